"""What the tests of the helper stand on: a page, a plan, a small package to bind, and programs run in children.

They need an x86-64 machine, and gcc for a small page of their own, unless PROFILEMATE_TEST_PAGE names a file with the
tracer's own code and PROFILEMATE_TEST_STUBS says where its entries for C callables begin. The programs under test run
in children.
"""

import base64
import json
import os
import pathlib
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import unittest

TESTS = pathlib.Path(__file__).resolve().parent
HELPER = TESTS.parent / "profilemate_helper"
KNOWN = [(3, 10), (3, 11), (3, 12), (3, 13), (3, 14)]

PAGE = os.environ.get("PROFILEMATE_TEST_PAGE")
STUBS = int(os.environ.get("PROFILEMATE_TEST_STUBS", "0"))

TARGET = '''
import contextlib, functools
class Base:
    def __init__(self, start=0): self.value = start
    def add(self, number, times=1, *, scale=1):
        """Adds."""
        self.value += number * times * scale
        return self.value
    def none(self): pass
    def everything(self, *arguments, **keywords): return self, arguments, keywords
    def fail(self, error): raise error
    def recurse(self, depth): return 0 if depth == 0 else 1 + self.recurse(depth - 1)
    def __call__(self, number): return number + 1
    @staticmethod
    def static(): return "static"
    @classmethod
    def klass(cls): return cls.__name__
    @property
    def prop(self): return "prop"
    def generate(self): yield 1
    async def later(self): return 1
    def marked(self): return 1
    marked.mark = True
    def decorated(function):
        @functools.wraps(function)
        def wrapper(*arguments, **keywords):
            with contextlib.nullcontext(): return function(*arguments, **keywords)
        return wrapper
    @decorated
    def wrapped(self, one, two=2): return one, two
class Derived(Base):
    def add(self, number, times=1, *, scale=1): return -super().add(number, times, scale=scale)
class Other(Base): pass
def plain(one, two=2, *rest, three=3): return one, two, rest, three
'''
METHODS = [
    "Base.add", "Base.none", "Base.everything", "Base.fail", "Base.recurse", "Base.__call__", "Base.wrapped", "plain",
    "Base.static", "Base.klass", "Base.prop", "Base.generate", "Base.later", "Base.marked", "Base.absent", "Gone.add",
]  # fmt: skip
BOUND = METHODS[:8]

# What the programs under test use to look at the page.
PRELUDE = '''
import ctypes, sys
def data():
    spans = [line.split() for line in open("/proc/self/maps") if "/memfd:profilemate" in line]
    assert [span[1] for span in spans] == ["r-xp", "rw-p"], spans
    return int(spans[1][0].split("-")[0], 16)
def calls():
    found = {}
    for number in range(64):
        slot = data() + 4096 + number * 512
        function, count = (ctypes.c_uint64.from_address(slot + at).value for at in (16, 24))
        assert ctypes.c_uint64.from_address(slot + 48).value == function
        if function:
            found[ctypes.cast(function, ctypes.py_object).value.__qualname__] = count
    return found
'''


@unittest.skipUnless(platform.machine() == "x86_64" and sys.version_info[:2] in KNOWN, "not for this interpreter")
@unittest.skipUnless(PAGE or shutil.which("gcc") and shutil.which("objcopy"), "needs gcc and objcopy")
class HelperCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.shared = pathlib.Path(folder.name)
        if PAGE:
            shutil.copy(PAGE, cls.shared / "page.bin")
            return
        subprocess.run(["gcc", "-c", "-o", cls.shared / "page.o", TESTS / "page.S"], check=True)
        objcopy = ["objcopy", "-O", "binary", "-j", ".text"]
        subprocess.run([*objcopy, cls.shared / "page.o", cls.shared / "page.bin"], check=True)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)
        package = self.path / "site" / "vllm"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "target.py").write_text(TARGET)
        self.write_plan()

    def write_plan(self, **changes):
        plan = {
            "code": base64.b64encode((self.shared / "page.bin").read_bytes()).decode(),
            "arch": "x86_64",
            "magic": struct.unpack("=Q", b"PMMARKER")[0],
            "version": 1,
            "code_size": 4096,
            "data_size": 40960,
            "slot_offset": 4096,
            "slot_stride": 512,
            "slots": 64,
            "helper_stub_offset": STUBS,
            "stub_stride": 16,
            "methods": [{"module": "vllm.target", "qualname": name} for name in METHODS],
            "report": str(self.path / "report"),
        }
        plan.update(changes)
        (self.path / "plan.json").write_text(json.dumps(plan))

    def environment(self, **changes):
        folders = [str(HELPER), *changes.pop("folders", []), str(self.path / "site")]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VLLM_", "PROFILEMATE"))}
        environment.update(PYTHONPATH=os.pathsep.join(folders), PROFILEMATE_PAGE=str(self.path / "plan.json"))
        environment.update(changes)
        return environment

    def run_python(self, program, **changes):
        """What a program prints, as JSON or as text. It must succeed and complain about nothing."""
        program = PRELUDE + textwrap.dedent(program)
        done = subprocess.run(
            [sys.executable, "-B", "-c", program],
            env=self.environment(**changes),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stderr)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout.strip()

    def report(self):
        path = self.path / "report"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
