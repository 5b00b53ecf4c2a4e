"""Tests of the helper. Run with `python3 -m unittest discover -s python/tests`.

They need an x86-64 machine, and gcc for a small page of their own, unless PROFILEMATE_TEST_PAGE names a file with the
tracer's own code and PROFILEMATE_TEST_STUBS says where its entries for C callables begin. The programs under test run
in children.
"""

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
import time
import unittest

TESTS = pathlib.Path(__file__).resolve().parent
HELPER = TESTS.parent / "profilemate_helper"
KNOWN = [(3, 10), (3, 11), (3, 12), (3, 13)]

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
class HelperTest(unittest.TestCase):
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
            "code": str(self.shared / "page.bin"),
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

    def test_what_can_be_bound_is_bound_and_the_rest_is_left_with_a_reason(self):
        functions = self.run_python(
            "import json, vllm.target; print(json.dumps(list(calls())))", VLLM_ENABLE_PROFILING=""
        )
        self.assertEqual(sorted(functions), sorted(BOUND))
        lines = {line["qualname"]: line for line in self.report()}
        self.assertEqual([lines[name]["slot"] for name in BOUND], list(range(len(BOUND))))
        reasons = {name: lines[name]["reason"] for name in METHODS if name not in BOUND}
        expected = {
            "Base.static": "staticmethod", "Base.klass": "classmethod", "Base.prop": "property",
            "Base.generate": "generator", "Base.later": "coroutine", "Base.marked": "attributes of its own: mark",
            "Base.absent": "there is no `Base.absent`", "Gone.add": "no class `Gone`",
        }  # fmt: skip
        for name, words in expected.items():
            self.assertIn(words, reasons.pop(name))
        self.assertEqual(reasons, {})

    def test_results_keywords_exceptions_subclasses_and_super(self):
        self.run_python(
            """
            import functools, operator
            from vllm.target import Base, Derived, Other, plain
            for _ in range(50):  # Often enough to be specialised.
                one = Base()
                assert one.add(2) == 2 and one.add(2, 3) == 8 and one.add(1, scale=5) == 13
                assert one.add(number=1, times=2, scale=3) == 19
                assert one.add(*[1], **{"scale": 2}) == 21
                assert one.none() is None and one(4) == 5
                assert one.everything(1, a=2) == (one, (1,), {"a": 2}) and one.everything() == (one, (), {})
                assert one.everything(*range(3000))[1] == tuple(range(3000))
                assert one.wrapped(1) == (1, 2) and one.wrapped(one=3, two=4) == (3, 4)
                derived, other = Derived(1), Other(1)
                assert derived.add(2, scale=2) == -5 and other.add(1) == 2
                assert super(Derived, derived).add(1) == 6
                assert Base.add(derived, 1) == 7 and Base.add(derived, number=1, scale=2) == 9
                for error in (ValueError("x"), KeyboardInterrupt(), SystemExit(3)):
                    try:
                        one.fail(error)
                    except BaseException as caught:
                        assert caught is error
                        names, trace = [], caught.__traceback__
                        while trace:
                            names.append(trace.tb_frame.f_code.co_name)
                            trace = trace.tb_next
                        assert names == ["<module>", "fail"], names
                    else:
                        raise AssertionError
                for wrong in ((), (1, 2, 3)):
                    try:
                        one.add(*wrong)
                    except TypeError as error:
                        assert "Base.add()" in str(error) or "add()" in str(error)
                    else:
                        raise AssertionError
                assert one.recurse(100) == 100
                assert plain(1) == (1, 2, (), 3) and plain(1, 4, 5, three=6) == (1, 4, (5,), 6)
                assert plain(*[7], **{"three": 8}) == (7, 2, (), 8)
                # Bound methods that are kept, and calls from C code.
                kept = one.everything
                assert kept() == (one, (), {}) and kept(1, b=2) == (one, (1,), {"b": 2})
                assert getattr(one, "everything")(*[1, 2], **{"c": 3}) == (one, (1, 2), {"c": 3})
                assert functools.partial(kept, 1, d=4)(2, e=5) == (one, (1, 2), {"d": 4, "e": 5})
                assert list(map(kept, [1], [2])) == [(one, (1, 2), {})]
                assert operator.methodcaller("everything", 1, f=6)(one) == (one, (1,), {"f": 6})
                assert Base.everything.__get__(one)(1) == (one, (1,), {}) and Base.none.__get__(one, Base)() is None
                assert list(map(plain, [1], [2])) == [(1, 2, (), 3)]
                assert kept == one.everything and hash(kept) == hash(one.everything) and kept.__self__ is one
            before = calls()
            for _ in range(1000):
                one.add(1); derived.add(1); kept(); plain(1)
            after = calls()
            assert after["Base.add"] - before["Base.add"] == 2000
            assert after["Base.everything"] - before["Base.everything"] == 1000
            assert after["plain"] - before["plain"] == 1000
            """
        )

    def test_nothing_leaks(self):
        self.run_python(
            """
            import gc, weakref
            from vllm.target import Base
            class Thing: pass
            thing, one = Thing(), Base()
            before = [sys.getrefcount(x) for x in (thing, one, None)][:2]
            for _ in range(1000):
                one.everything(thing, k=thing); kept = one.everything; kept(thing, k=thing); del kept
                try: one.fail(ValueError(thing))
                except ValueError: pass
            gc.collect()
            assert [sys.getrefcount(x) for x in (thing, one, None)][:2] == before
            gone = weakref.ref(one); del one; gc.collect()
            assert gone() is None
            """
        )

    def test_threads_and_fork(self):
        self.run_python(
            """
            import os, threading
            from vllm.target import Base
            def work():
                one = Base()
                for _ in range(5000): one.add(1)
                assert one.value == 5000
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert calls()["Base.add"] == 20000
            child = os.fork()
            if child == 0:
                try:
                    Base().add(1)
                    os._exit(0 if calls()["Base.add"] == 20001 else 1)
                except BaseException:
                    os._exit(2)
            assert os.waitpid(child, 0)[1] == 0
            # The child's page is its own.
            assert calls()["Base.add"] == 20000
            """
        )

    def test_instances_can_be_pickled_copied_inspected_and_mocked(self):
        self.run_python(
            """
            import copy, inspect, pickle, pydoc
            from unittest import mock
            from vllm.target import Base, Derived, plain
            one = Derived(3)
            assert pickle.loads(pickle.dumps(one)).value == 3 and copy.deepcopy(one).value == 3
            assert pickle.loads(pickle.dumps(one.none))() is None
            assert pickle.loads(pickle.dumps(Base.add)) is Base.add and pickle.loads(pickle.dumps(plain)) is plain
            assert Base.add.__name__ == "add" and Base.add.__qualname__ == "Base.add" and Base.add.__doc__ == "Adds."
            assert callable(Base.add) and inspect.isroutine(Base.add) and "add" in dir(one)
            assert str(inspect.signature(Base.add)) == "(self, /, number, times=1, *, scale=1)"
            assert str(inspect.signature(one.none)) == "()"
            assert str(inspect.signature(Base().add)) == "(number, times=1, *, scale=1)"
            assert str(inspect.signature(Base.wrapped)) == "(self, /, one, two=2)"
            assert str(inspect.signature(plain)) == "(one, two=2, *rest, three=3)" and plain.__module__ == "vllm.target"
            assert "Adds." in pydoc.render_doc(Base)
            with mock.patch.object(Base, "none", lambda self: 7): assert one.none() == 7
            assert one.none() is None
            # What differs.
            assert not inspect.isfunction(Base.add) and not inspect.ismethod(Base().add)
            assert not hasattr(Base.add, "__code__") and not hasattr(Base().add, "__func__")
            """
        )

    def test_spawned_children_and_scripts_are_reached(self):
        script = self.path / "script.py"
        script.write_text(
            PRELUDE
            + textwrap.dedent(
                """
                import json, multiprocessing
                def child(pipe):
                    from vllm.target import Base
                    Base().add(1)
                    pipe.send(calls())
                if __name__ == "__main__":
                    ours, theirs = multiprocessing.Pipe()
                    process = multiprocessing.get_context("spawn").Process(target=child, args=(theirs,))
                    process.start()
                    print(json.dumps(ours.recv()))
                    process.join()
                """
            )
        )
        done = subprocess.run(
            [sys.executable, "-B", script], env=self.environment(), capture_output=True, text=True, timeout=60
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(json.loads(done.stdout)["Base.add"], 1)

    def test_it_is_for_vllm_unless_told_otherwise(self):
        (self.path / "site" / "other.py").write_text("def plain(): return 1\n")
        self.write_plan(methods=[{"module": "other", "qualname": "plain"}])
        mapped = 'print("memfd:profilemate" in open("/proc/self/maps").read(), type(other.plain).__name__)'
        self.assertEqual(self.run_python("import other; " + mapped), "False function")
        builtin = "True builtin_function_or_method"
        # With vLLM in the process, before or after, it is a process of vLLM.
        self.assertEqual(self.run_python("import vllm, other; " + mapped), builtin)
        self.assertEqual(self.run_python("import other, vllm; " + mapped), builtin)
        self.assertEqual(self.run_python("import other; " + mapped, VLLM_ENABLE_PROFILING="1"), builtin)
        forbidden = self.run_python("import vllm, other; " + mapped, VLLM_ENABLE_PROFILING="0")
        self.assertEqual(forbidden, "False function")

    def test_a_module_that_is_there_already_is_taken(self):
        early = self.path / "early"
        early.mkdir()
        (early / "sitecustomize.py").write_text("import vllm.target\n")
        found = self.run_python(
            """
            import json, os
            sys.modules["sitecustomize"]
            import profilemate_helper
            sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "Finder"]
            os.environ["PROFILEMATE_PAGE"] = os.environ["LATER"]
            profilemate_helper.start()
            import vllm.target
            print(json.dumps(sorted(calls())))
            """,
            folders=[str(early)],
            PROFILEMATE_PAGE="/nowhere",
            LATER=str(self.path / "plan.json"),
        )
        self.assertEqual(found, sorted(BOUND))

    def test_a_sitecustomize_that_was_there_still_works(self):
        there = self.path / "there"
        there.mkdir()
        (there / "sitecustomize.py").write_text("import builtins; builtins.seen = __file__\n")
        program = 'import vllm.target; print(seen == sys.modules["sitecustomize"].__file__, len(calls()))'
        self.assertEqual(self.run_python(program, folders=[str(there)]), "True %d" % len(BOUND))
        self.assertEqual(
            self.run_python('print(seen == sys.modules["sitecustomize"].__file__)', folders=[str(there)],
                            PROFILEMATE_PAGE="/nowhere"),
            "True",
        )  # fmt: skip

    def test_the_module_sees_its_own_loader(self):
        (self.path / "site" / "vllm" / "target.py").write_text(
            "seen = type(__loader__).__name__, type(__spec__.loader).__name__\n"
        )
        program = "import vllm.target as t; print(t.seen, type(t.__loader__).__name__, type(t.__spec__.loader).__name__)"
        name = "SourceFileLoader"
        self.assertEqual(self.run_python(program), f"('{name}', '{name}') {name} {name}")

    def test_a_module_that_fails_fails_as_before_and_can_be_imported_again(self):
        (self.path / "site" / "vllm" / "target.py").write_text(
            "import builtins\nif not hasattr(builtins, 'again'): raise ZeroDivisionError('once')\n" + TARGET
        )
        self.run_python(
            """
            import builtins
            try: import vllm.target
            except ZeroDivisionError as error: assert str(error) == "once"
            else: raise AssertionError
            builtins.again = True
            import vllm.target
            assert vllm.target.Base().add(1) == 1 and calls()["Base.add"] == 1
            """
        )

    def test_a_bad_plan_does_no_harm(self):
        program = "import vllm.target; print(vllm.target.Base().add(1), type(vllm.target.Base.add).__name__)"
        for text in ("", "[]", "{}", '{"code": 3}', "null"):
            (self.path / "plan.json").write_text(text)
            self.assertEqual(self.run_python(program), "1 function", text)
        for changes, words in (
            ({"code": "/nowhere/page.bin"}, "No such file"),
            ({"arch": "riscv64"}, "riscv64"),
            ({"code_size": 8192}, "bytes instead of"),
            ({"slots": 2}, "slots are taken"),
        ):
            self.write_plan(**changes)
            result = self.run_python(program)
            self.assertEqual(result, "1 function" if "slots" not in changes else "1 method_descriptor")
            self.assertTrue(any(words in (line["reason"] or "") for line in self.report()), (words, self.report()))
            (self.path / "report").unlink()
        self.write_plan(pythons=["2.7"])
        self.assertEqual(self.run_python(program), "1 function")
        self.assertEqual(self.report(), [])

    def test_the_demo_server_says_the_same_with_all_its_methods_bound(self):
        scheduler, pool = "vllm.v1.core.sched.scheduler", "vllm.v1.core.block_pool"
        manager, runner = "vllm.v1.core.kv_cache_manager", "vllm.v1.worker.gpu_model_runner"
        names = {
            scheduler: "Scheduler", pool: "BlockPool", manager: "KVCacheManager", runner: "GPUModelRunner",
            "vllm.v1.engine.core": "EngineCore", "vllm.v1.worker.gpu_worker": "Worker",
        }  # fmt: skip
        methods = {
            scheduler: "schedule _preempt_request update_from_output add_request finish_requests _free_request",
            pool: "get_new_blocks free_blocks touch _maybe_evict_cached_block cache_full_blocks",
            manager: "allocate_slots free get_computed_blocks",
            runner: "execute_model sample_tokens _update_states _prepare_inputs _model_forward _bookkeeping_sync",
            "vllm.v1.engine.core": "step",
            "vllm.v1.worker.gpu_worker": "execute_model sample_tokens",
        }
        listed = [(m, f"{names[m]}.{name}") for m, all_names in methods.items() for name in all_names.split()]
        self.write_plan(methods=[{"module": module, "qualname": name} for module, name in listed])
        tokens = []
        for allowed in ("", "0"):
            path = self.path / ("tokens" + allowed)
            done = subprocess.run(
                [sys.executable, "-s", "-B", "-m", "profilemate_demo", "--requests", "40", "--no-gap"]
                + ["--blocks", "40", "--output-tokens", path],
                cwd=TESTS.parent / "demo",
                env=self.environment(VLLM_ENABLE_PROFILING=allowed, PYTHONPATH=str(HELPER)),
                capture_output=True,
                text=True,
                timeout=120,
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            tokens.append(path.read_text())
        self.assertEqual(tokens[0], tokens[1])
        self.assertEqual(tokens[0].count("request_id"), 40)
        lines = self.report()
        self.assertEqual([line for line in lines if line["slot"] is None], [])
        bound = {}
        for line in lines:
            bound.setdefault((line["module"], line["qualname"]), set()).add(line["pid"])
        self.assertEqual(set(bound), set(listed))
        self.assertGreaterEqual(len(set.union(*bound.values())), 3)

    def test_an_interpreter_that_does_not_need_it_starts_about_as_fast(self):
        def start(environment):
            times = []
            for _ in range(7):
                began = time.perf_counter()
                subprocess.run([sys.executable, "-B", "-c", "pass"], env=environment, check=True)
                times.append(time.perf_counter() - began)
            return min(times)

        plain = self.environment()
        del plain["PYTHONPATH"]
        # Generous: what it must not do is import a large part of the library.
        self.assertLess(start(self.environment()), start(plain) * 3 + 0.05)
        heavy = self.run_python('print([name for name in ("ctypes", "inspect", "typing") if name in sys.modules])')
        self.assertNotIn("inspect", heavy)


if __name__ == "__main__":
    unittest.main()
