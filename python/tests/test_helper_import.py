"""How the helper gets into a program, without harm. Run with `python3 -m unittest discover -s python/tests`."""

import json
import subprocess
import sys
import textwrap
import unittest

from helper_case import BOUND, PRELUDE, TARGET, HelperCase


class ImportTest(HelperCase):
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
        program = (
            "import vllm.target as t; print(t.seen, type(t.__loader__).__name__, type(t.__spec__.loader).__name__)"
        )
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
            ({"code": ""}, "bytes instead of"),
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

    def test_an_interpreter_that_does_not_need_it_imports_nothing_but_the_finder(self):
        # What that costs is measured by `cargo xtask bench --only helper`.
        program = "import sys; print(*sorted(sys.modules))"

        def modules(**changes):
            environment = self.environment(**changes)
            environment.pop("PROFILEMATE_PAGE")
            done = subprocess.run(
                [sys.executable, "-B", "-c", program], env=environment, check=True, capture_output=True, text=True
            )
            self.assertEqual(done.stderr, "")
            return set(done.stdout.split())

        ours = {"sitecustomize", "profilemate_helper", "profilemate_helper.hook"}
        without = modules(PYTHONPATH="")
        self.assertEqual(modules() - without - ours, set())
        self.assertEqual(modules(VLLM_ENABLE_PROFILING="0") - without - ours, set())


if __name__ == "__main__":
    unittest.main()
