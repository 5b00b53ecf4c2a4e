"""Calls that pass the page that the helper makes. Run with `python3 -m unittest discover -s python/tests`."""

import subprocess
import sys
import unittest

from helper_case import BOUND, HELPER, METHODS, TESTS, HelperCase


class CallTest(HelperCase):
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
            import os, threading, warnings
            # A joined thread may still be in the kernel's list, of which CPython 3.12 warns.
            warnings.simplefilter("ignore", DeprecationWarning)
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


if __name__ == "__main__":
    unittest.main()
