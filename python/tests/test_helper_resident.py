"""The helper that waits for a tracer. Run with `python3 -m unittest discover -s python/tests`."""

import fcntl
import json
import os
import pathlib
import struct
import subprocess
import sys
import textwrap
import time
import unittest

from helper_case import BOUND, PRELUDE, HelperCase

# Answers each line of its input with what the expression in it gives.
SERVER = PRELUDE + textwrap.dedent(
    """
    import os
    import vllm.target as target
    def kinds():
        return sorted({type(vars(target.Base)[name]).__name__ for name in ("add", "none", "__call__", "wrapped")})
    for line in sys.stdin:
        print(eval(line), flush=True)
    """
)


class Tracer:
    """What the tracer does to a process with a resident helper."""

    def __init__(self, pid):
        self.pid = pid
        self.fd = None

    def find(self):
        for entry in pathlib.Path("/proc/%d/fd" % self.pid).iterdir():
            try:
                if os.readlink(entry).startswith("/memfd:profilemate-helper"):
                    state = json.loads(entry.read_text())
                    if state["fd"] == int(entry.name):
                        return entry, state
            except (OSError, ValueError):
                pass
        return None, None

    def state(self):
        return (self.find()[1] or {}).get("state")

    def wait(self, state, serial=0):
        for _ in range(600):
            found = self.find()[1]
            if found and found["state"] == state and found["serial"] >= serial:
                return found
            time.sleep(0.02)
        raise AssertionError((state, found))

    def send(self, text, magic=b"PMH1"):
        entry, state = self.find()
        if self.fd is None:
            self.fd = os.open(entry, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pipe = os.open("/proc/%d/fd/%d" % (self.pid, state["pipe"]), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(pipe, struct.pack("<4sI", magic, len(text)) + text.encode())
        os.close(pipe)
        return state["serial"] + 1

    def leave(self):
        os.close(self.fd)
        self.fd = None


class ResidentTest(HelperCase):
    def serve(self, **changes):
        environment = self.environment(**changes)
        environment.pop("PROFILEMATE_PAGE")
        process = subprocess.Popen(
            # CPython 3.12 and newer warn of any fork beside another thread, which a program of one thread can see.
            [sys.executable, "-B", "-W", "ignore::DeprecationWarning", "-c", SERVER], env=environment, cwd=self.path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        if process.poll() is None:
            done = process.communicate(timeout=30)
            self.assertEqual((process.returncode, done[1]), (0, ""))

    def ask(self, process, expression):
        process.stdin.write(expression + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def plan(self):
        return (self.path / "plan.json").read_text()

    def test_nothing_is_touched_until_a_tracer_comes_nor_after_it_has_gone(self):
        process = self.serve()
        untouched = "['function']"
        self.assertEqual(self.ask(process, "kinds()"), untouched)
        self.assertEqual(self.ask(process, "open('/proc/self/maps').read().count('memfd:profilemate')"), "0")
        tracer = Tracer(process.pid)
        tracer.wait("waiting")
        for _ in range(3):
            state = tracer.wait("bound", tracer.send(self.plan()))
            self.assertEqual([line["qualname"] for line in state["methods"] if line["slot"] is not None], BOUND)
            self.assertEqual(self.ask(process, "kinds()"), "['method_descriptor']")
            before = eval(self.ask(process, "calls()"))["Base.add"]
            self.assertEqual(self.ask(process, "[target.Base().add(2, times=3) for _ in range(5)][-1]"), "6")
            self.assertEqual(eval(self.ask(process, "calls()"))["Base.add"], before + 5)
            tracer.leave()
            tracer.wait("waiting")
            self.assertEqual(self.ask(process, "kinds()"), untouched)
            self.assertEqual(self.ask(process, "target.Base().add(2)"), "2")
            self.assertEqual(eval(self.ask(process, "calls()"))["Base.add"], before + 5)

    def test_a_forked_child_is_served_like_its_parent(self):
        process = self.serve()
        tracer = Tracer(process.pid)
        tracer.wait("waiting")
        tracer.wait("bound", tracer.send(self.plan()))
        child = int(
            self.ask(process, "(lambda pid: pid if pid else [__import__('time').sleep(60), os._exit(0)])(os.fork())")
        )
        other = Tracer(child)
        other.wait("bound")
        self.assertEqual(self.ask(process, "kinds()"), "['method_descriptor']")
        tracer.leave()
        tracer.wait("waiting")
        other.wait("waiting")
        other.wait("bound", other.send(self.plan()))
        self.assertEqual(tracer.state(), "waiting")
        other.leave()
        other.wait("waiting")
        self.assertEqual(self.ask(process, "os.kill(%d, 9)" % child), "None")
        self.assertEqual(self.ask(process, "os.waitpid(%d, 0)[1]" % child), "9")

    def test_what_is_no_plan_is_refused_and_a_plan_is_taken_afterwards(self):
        process = self.serve()
        tracer = Tracer(process.pid)
        tracer.wait("waiting")
        for text, magic in (("x" * 5000, b"GET "), ("{}", b"PMH1"), ("no json", b"PMH1")):
            self.assertTrue(tracer.wait("failed", tracer.send(text, magic))["reason"])
            self.assertEqual(self.ask(process, "kinds()"), "['function']")
        tracer.wait("bound", tracer.send(self.plan()))
        tracer.leave()
        tracer.wait("waiting")

    def test_what_was_not_there_is_bound_when_it_comes_and_what_fails_is_told_by_name(self):
        process = self.serve()
        tracer = Tracer(process.pid)
        tracer.wait("waiting")
        state = tracer.wait("bound", tracer.send(self.plan()))
        reasons = {line["qualname"]: line["reason"] for line in state["methods"] if line["slot"] is None}
        self.assertEqual(reasons["Base.absent"], "there is no `Base.absent` in it")
        self.assertIn("generator", reasons["Base.generate"])
        self.ask(process, "setattr(target.Base, 'absent', lambda self: 7)")

        def slot():
            methods = tracer.find()[1]["methods"]
            return next(line["slot"] for line in methods if line["qualname"] == "Base.absent")

        for _ in range(200):
            if slot() is not None:
                break
            time.sleep(0.02)
        self.assertIsNotNone(slot())
        self.assertEqual(self.ask(process, "target.Base().absent()"), "7")
        self.assertEqual(self.ask(process, "type(vars(target.Base)['absent']).__name__"), "method_descriptor")
        tracer.leave()
        tracer.wait("waiting")
        self.assertEqual(self.ask(process, "type(vars(target.Base)['absent']).__name__"), "function")

    def test_a_failure_of_the_helper_itself_is_one_methods_only(self):
        process = self.serve()
        tracer = Tracer(process.pid)
        tracer.wait("waiting")
        self.ask(process, "__import__('profilemate_helper.bind').bind.__dict__.update(documentation=lambda f, m: "
                          "1 / 0 if f.__name__ == 'add' else b'')")
        state = tracer.wait("bound", tracer.send(self.plan()))
        bound = [line["qualname"] for line in state["methods"] if line["slot"] is not None]
        self.assertEqual(bound, [name for name in BOUND if name != "Base.add"])
        self.assertIn("ZeroDivisionError", state["methods"][0]["reason"])
        self.assertEqual(self.ask(process, "target.Base().add(2)"), "2")
        tracer.leave()
        tracer.wait("waiting")

    def test_it_says_what_it_does_only_if_that_is_asked_for(self):
        for wish, said in (("1", "methods bound"), (None, "")):
            process = self.serve(**({"VLLM_PROFILING_VERBOSE": wish} if wish else {}))
            tracer = Tracer(process.pid)
            tracer.wait("waiting")
            tracer.wait("bound", tracer.send(self.plan()))
            tracer.leave()
            tracer.wait("waiting")
            out, errors = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 0)
            self.assertEqual((said in errors, bool(errors)), (True, bool(wish)))

    def test_a_plan_without_a_lock_is_not_taken(self):
        process = self.serve()
        tracer = Tracer(process.pid)
        entry = tracer.find()[0] or (tracer.wait("waiting"), tracer.find()[0])[1]
        tracer.fd = os.open(entry, os.O_RDWR | os.O_CLOEXEC)
        serial = tracer.send(self.plan())
        tracer.wait("waiting", serial)
        self.assertEqual(self.ask(process, "kinds()"), "['function']")
        tracer.leave()

    def test_a_program_that_closes_all_files_goes_on(self):
        process = self.serve()
        tracer = Tracer(process.pid)
        tracer.wait("waiting")
        tracer.wait("bound", tracer.send(self.plan()))
        self.assertEqual(self.ask(process, "os.closerange(3, 1000)"), "None")
        tracer.leave()
        time.sleep(0.5)
        self.assertEqual(self.ask(process, "target.Base().add(2)"), "2")

    def test_it_is_for_vllm_unless_told_otherwise(self):
        def run(code, **changes):
            built = self.environment(**changes)
            built.pop("PROFILEMATE_PAGE")
            done = subprocess.run(
                [sys.executable, "-B", "-c", code], env=built, cwd=self.path, capture_output=True, text=True, timeout=60
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            return done.stdout.split()[0]

        program = (
            "import os\n%s\n"
            "def link(name):\n    try: return os.readlink('/proc/self/fd/' + name)\n    except OSError: return ''\n"
            "print(any('profilemate-helper' in link(name) for name in os.listdir('/proc/self/fd')))"
        )
        self.assertEqual(run(program % "import json"), "False")
        self.assertEqual(run(program % "import vllm"), "True")
        self.assertEqual(run(program % "import json", VLLM_ENABLE_PROFILING="1"), "True")
        self.assertEqual(run(program % "import vllm", VLLM_ENABLE_PROFILING="0"), "False")
        plugin = "import vllm, profilemate_helper; profilemate_helper.plugin(); profilemate_helper.plugin()"
        self.assertEqual(run(program % plugin, VLLM_ENABLE_PROFILING=""), "True")


if __name__ == "__main__":
    unittest.main()
