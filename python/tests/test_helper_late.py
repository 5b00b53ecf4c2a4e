"""The helper started in a program that runs already. Run with `python3 -m unittest discover -s python/tests`."""

import json
import pathlib
import subprocess
import sys
import unittest

from helper_case import BOUND, HELPER, HelperCase
from test_helper_resident import Tracer

# What the tracer has a program run, and then answers to what it is asked, line by line.
SERVER = """
import os, sys
sys.path.insert(0, sys.argv[1])
import vllm.target as target
names = set(globals())
def late(source):
    exec(compile(source, "<string>", "exec"), {"__name__": "profilemate_late"})
for line in sys.stdin:
    print(eval(line), flush=True)
"""


def source():
    """As the tracer makes it: `late.py`, and a call with the texts of the helper's files."""
    files = {path.stem: path.read_text() for path in (HELPER / "profilemate_helper").glob("*.py")}
    return "%s\nbegin(%s)\n" % ((HELPER / "late.py").read_text(), json.dumps(files))


class LateTest(HelperCase):
    def serve(self, **changes):
        environment = self.environment(**changes)
        for name in ("PROFILEMATE_PAGE", "PYTHONPATH"):
            environment.pop(name, None)
        process = subprocess.Popen(
            [sys.executable, "-B", "-W", "ignore::DeprecationWarning", "-c", SERVER, str(self.path / "site")],
            env=environment, cwd=self.path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        done = process.communicate(timeout=30)
        self.assertEqual((process.returncode, done[1]), (0, ""))

    def ask(self, process, expression):
        process.stdin.write(expression + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def load(self, process, text=None):
        return self.ask(process, "__import__('_thread').start_new_thread(late, (%r,)) and None" % (text or source()))

    def plan(self):
        return (self.path / "plan.json").read_text()

    def test_it_waits_serves_and_lets_go_without_a_file_of_its_own(self):
        process = self.serve()
        self.load(process)
        tracer = Tracer(process.pid)
        tracer.wait("waiting")
        self.assertEqual(self.ask(process, "sorted(set(globals()) - names - {'late', 'line', 'names'})"), "[]")
        state = tracer.wait("bound", tracer.send(self.plan()))
        self.assertEqual([line["qualname"] for line in state["methods"] if line["slot"] is not None], BOUND)
        self.assertEqual(self.ask(process, "[target.Base().add(2, times=3) for _ in range(5)][-1]"), "6")
        self.assertEqual(self.ask(process, "type(vars(target.Base)['add']).__name__"), "method_descriptor")
        tracer.leave()
        tracer.wait("waiting")
        self.assertEqual(self.ask(process, "type(vars(target.Base)['add']).__name__"), "function")

    def test_a_second_start_finds_the_first(self):
        process = self.serve()
        self.load(process)
        tracer = Tracer(process.pid)
        first = tracer.wait("waiting")
        self.assertEqual(self.ask(process, "[late(%r), late(%r)]" % (source(), source())), "[None, None]")
        self.assertEqual(tracer.wait("waiting"), first)

    def test_what_a_fork_cut_off_is_started_anew(self):
        process = self.serve()
        # A package whose own file has not been run yet, as a child has it that was forked in the middle.
        self.ask(process, "sys.modules.__setitem__('profilemate_helper', type(sys)('profilemate_helper'))")
        self.load(process)
        Tracer(process.pid).wait("waiting")

    def test_a_helper_that_is_there_is_the_one_that_is_started(self):
        process = self.serve()
        self.ask(process, "sys.path.insert(0, %r)" % str(HELPER))
        self.ask(process, "__import__('profilemate_helper')")
        self.load(process)
        Tracer(process.pid).wait("waiting")
        path = self.ask(process, "sys.modules['profilemate_helper'].resident.__file__")
        self.assertEqual(pathlib.Path(path).parent, HELPER / "profilemate_helper")

    def test_what_forbids_it_is_told(self):
        process = self.serve(VLLM_ENABLE_PROFILING="0")
        self.load(process)
        state = Tracer(process.pid).wait("failed")
        self.assertIn("VLLM_ENABLE_PROFILING=0", state["reason"])
        self.assertEqual(self.ask(process, "target.Base().add(2)"), "2")

    def test_a_helper_that_cannot_be_imported_says_why(self):
        process = self.serve()
        self.load(process, source().replace("import ctypes", "import no_ctypes_here"))
        state = Tracer(process.pid).wait("failed")
        self.assertIn("no_ctypes_here", state["reason"])


if __name__ == "__main__":
    unittest.main()
