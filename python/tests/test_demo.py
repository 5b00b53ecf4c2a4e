"""Tests of the demo server. Run with `python3 -m unittest discover -s python/tests`."""

import ast
import collections
import ctypes
import json
import os
import pathlib
import runpy
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

DEMO = pathlib.Path(__file__).resolve().parent.parent / "demo"
sys.path.insert(0, str(DEMO))

if sys.version_info >= (3, 10):
    from profilemate_demo import driver, library, model, workload
    from vllm.config import CacheConfig, SchedulerConfig, VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.core.block_pool import BlockPool
    from vllm.v1.core.kv_cache_manager import KVCacheConfig
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request, RequestStatus
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

VOCABULARY = 32000


def alive(pid):
    """Whether a process is there and is not a zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


class Run:
    """A demo server in a folder of its own; ended, if need be, when the test is over."""

    def __init__(self, test, *options):
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)
        self.child = subprocess.Popen(
            [sys.executable, "-s", "-B", "-m", "profilemate_demo", "--ready-file", str(self.path / "ready")]
            + ["--output-tokens", str(self.path / "tokens"), *options],
            cwd=DEMO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        test.addCleanup(self.end)

    def end(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(timeout=30)
        self.child.stdin.close()
        self.child.stdout.close()

    def ready(self):
        if not wait_until((self.path / "ready").exists):
            raise AssertionError("the server did not get ready")
        return json.loads((self.path / "ready").read_text())

    def lines(self, name):
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]


@unittest.skipIf(sys.version_info < (3, 10), "the demo needs Python 3.10")
class ServerTest(unittest.TestCase):
    def test_every_token_is_right_under_preemption_eviction_and_prefix_hits(self):
        with tempfile.NamedTemporaryFile() as truth:
            run = Run(self, "--requests", "120", "--no-gap", "--blocks", "48", "--print-truth", truth.name)
            output, _ = run.child.communicate(timeout=150)
            self.assertEqual(run.child.returncode, 0, output)
            events = [json.loads(line) for line in truth.read().splitlines()]
        source = workload.generate(0, VOCABULARY, False)
        works = [next(source) for _ in range(120)]
        answers = {line["request_id"]: line for line in run.lines("tokens")}
        for work in works:
            tokens = answers[work.request_id]["tokens"]
            self.assertEqual(len(tokens), work.abort_after or work.max_tokens)
            self.assertEqual(tokens, model.complete(work.prompt, len(tokens), VOCABULARY, work.picture))

        kinds = collections.Counter(event["e"] for event in events)
        steps = [event for event in events if event["e"] == "schedule"]
        self.assertGreater(kinds["schedule"], 300)
        self.assertGreater(kinds["preempt"], 3)
        self.assertGreater(kinds["evict"], 10)
        self.assertGreater(kinds["encode"], 5)
        passes = sum(event["e"] == "execute_model" and event["tokens"] > 0 for event in events)
        self.assertEqual(kinds["route"], model.LAYERS * passes)
        self.assertEqual(kinds["finish"], 120)
        self.assertEqual(kinds["execute_model"], kinds["schedule"])
        self.assertEqual(sum(len(step["preempted"]) for step in steps), kinds["preempt"])
        self.assertEqual(
            sum(step["total_num_scheduled_tokens"] for step in steps),
            sum(event["tokens"] for event in events if event["e"] == "execute_model"),
        )
        # Decoding steps, prefill steps, and steps with both.
        self.assertTrue(any(s["total_num_scheduled_tokens"] == s["n_sched_reqs"] > 1 for s in steps))
        self.assertTrue(any(s["total_num_scheduled_tokens"] > s["n_sched_reqs"] > s["new"] >= 1 for s in steps))
        for step in steps:
            self.assertAlmostEqual(step["usage"], 1 - step["free_blocks"] / (step["num_gpu_blocks"] - 1))

    def test_two_runs_and_two_workers_give_the_same_tokens(self):
        first = Run(self, "--requests", "12", "--no-gap")
        second = Run(self, "--requests", "12", "--workers", "2", "--max-num-seqs", "3")
        for run in (first, second):
            output, _ = run.child.communicate(timeout=150)
            self.assertEqual(run.child.returncode, 0, output)
        tokens = [{line["request_id"]: line["tokens"] for line in run.lines("tokens")} for run in (first, second)]
        self.assertEqual(len(tokens[0]), 12)
        self.assertEqual(tokens[0], tokens[1])

    def test_processes_have_names_and_end_after_ctrl_c(self):
        run = Run(self, "--seconds", "60")
        pids = run.ready()
        children = [pids["engine_core"], *pids["workers"]]
        names = [pathlib.Path(f"/proc/{pid}/comm").read_text().strip() for pid in children]
        self.assertEqual(names, ["VLLM::EngineCor", "VLLM::Worker"])
        run.child.send_signal(signal.SIGINT)
        output, _ = run.child.communicate(timeout=30)
        self.assertEqual(run.child.returncode, 130)
        self.assertNotIn("Traceback", output)
        self.assertTrue(wait_until(lambda: not any(map(alive, children))))

    def test_it_ends_when_standard_input_is_closed(self):
        run = Run(self, "--seconds", "60", "--end-with-stdin")
        pids = run.ready()
        self.assertIsNone(run.child.poll())
        run.child.stdin.close()
        self.assertTrue(wait_until(lambda: run.child.poll() is not None))
        self.assertTrue(wait_until(lambda: not any(map(alive, [pids["engine_core"], *pids["workers"]]))))

    def test_children_end_when_the_parent_is_killed(self):
        run = Run(self, "--seconds", "60")
        pids = run.ready()
        children = [pids["engine_core"], *pids["workers"]]
        self.assertTrue(all(map(alive, children)))
        run.child.kill()
        self.assertTrue(wait_until(lambda: not any(map(alive, children))))

    def test_parent_notices_that_the_engine_died(self):
        run = Run(self, "--seconds", "60")
        pids = run.ready()
        os.kill(pids["engine_core"], signal.SIGKILL)
        output, _ = run.child.communicate(timeout=30)
        self.assertEqual(run.child.returncode, 1)
        self.assertIn("ended early", output)
        self.assertTrue(wait_until(lambda: not any(map(alive, pids["workers"]))))

    def test_bad_options_are_refused(self):
        for options in (["--blocks", "4"], ["--seconds", "0"], ["--max-num-seqs", "0"]):
            run = Run(self, *options)
            output, _ = run.child.communicate(timeout=30)
            self.assertEqual(run.child.returncode, 2, output)


@unittest.skipIf(sys.version_info < (3, 10), "the demo needs Python 3.10")
class DriverTest(unittest.TestCase):
    def test_the_library_loads_and_gives_out_handles(self):
        loaded = driver.load()
        if loaded is None:
            self.skipTest("not for this machine")
        made = []
        for _ in range(2):
            graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
            self.assertEqual(loaded.cuStreamBeginCapture_v2(None, 1), 0)
            self.assertEqual(loaded.cuStreamEndCapture(None, ctypes.byref(graph)), 0)
            self.assertEqual(
                loaded.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_uint64(0)), 0
            )
            self.assertEqual(loaded.cuGraphLaunch(executable, None), 0)
            made += [graph.value, executable.value]
        self.assertEqual(len(set(made)), 4)
        for name in driver.FUNCTIONS:
            self.assertTrue(hasattr(loaded, name), name)


    def test_a_library_asks_for_no_executable_stack(self):
        """Newer C libraries do not load one that does, or that leaves it open."""
        file = library.image("lib.so", {}, bytes(8), {"object": (0, 8)})
        (count,) = struct.unpack_from("<H", file, 56)
        headers = [struct.unpack_from("<II", file, 64 + 56 * index) for index in range(count)]
        self.assertEqual([flags & 1 for kind, flags in headers if kind == 0x6474E551], [0])


class OldPythonTest(unittest.TestCase):
    def test_an_old_python_gets_a_message(self):
        # The file that says so must itself be readable for the old version.
        ast.parse((DEMO / "profilemate_demo/__main__.py").read_text(), feature_version=(3, 8))
        with mock.patch.object(sys, "version_info", (3, 9, 2, "final", 0)), mock.patch("sys.stderr") as stderr:
            with self.assertRaises(SystemExit) as stop:
                runpy.run_path(str(DEMO / "profilemate_demo/__main__.py"), run_name="__main__")
        self.assertEqual(stop.exception.code, 2)
        self.assertIn("Python 3.10 or newer is needed, this is 3.9", stderr.write.call_args[0][0])


@unittest.skipIf(sys.version_info < (3, 10), "the demo needs Python 3.10")
class EngineTest(unittest.TestCase):
    def make_scheduler(self, blocks=16, seqs=4, budget=32):
        config = VllmConfig(
            cache_config=CacheConfig(num_gpu_blocks=blocks, block_size=4),
            scheduler_config=SchedulerConfig(max_num_seqs=seqs, max_num_batched_tokens=budget),
        )
        return Scheduler(config, KVCacheConfig(blocks, 4), block_size=4)

    def make_request(self, name, prompt, max_tokens=8):
        return Request(
            name, prompt, SamplingParams(max_tokens=max_tokens), block_hasher=get_request_block_hasher(4)
        )

    def run_step(self, scheduler):
        """One step with a model that says 7 whenever a prompt is done."""
        output = scheduler.schedule()
        ids = list(output.num_scheduled_tokens)
        sampled = []
        for name in ids:
            request = scheduler.requests[name]
            sampled.append([7] if request.num_computed_tokens >= request.num_tokens else [])
        result = ModelRunnerOutput(ids, {name: index for index, name in enumerate(ids)}, sampled)
        scheduler.update_from_output(output, result)
        return output

    def test_null_block_is_no_capacity(self):
        pool = BlockPool(5, True, 4)
        self.assertEqual((pool.get_num_free_blocks(), pool.get_usage()), (4, 0.0))
        blocks = pool.get_new_blocks(4)
        self.assertNotIn(0, [block.block_id for block in blocks])
        self.assertEqual(pool.get_usage(), 1.0)
        with self.assertRaises(ValueError):
            pool.get_new_blocks(1)
        pool.free_blocks(reversed(blocks))
        self.assertEqual(len(pool.free_block_queue.get_all_free_blocks()), 4)

    def test_a_long_prompt_is_computed_in_chunks(self):
        scheduler = self.make_scheduler()
        scheduler.add_request(self.make_request("a", list(range(40))))
        self.assertEqual(self.run_step(scheduler).num_scheduled_tokens, {"a": 32})
        self.assertEqual(self.run_step(scheduler).num_scheduled_tokens, {"a": 8})
        self.assertEqual(self.run_step(scheduler).num_scheduled_tokens, {"a": 1})

    def test_a_common_prefix_is_reused_and_evicted_least_recently_used_first(self):
        scheduler = self.make_scheduler(blocks=9)
        pool = scheduler.kv_cache_manager.block_pool
        for name, first in (("a", 0), ("b", 100)):
            scheduler.add_request(self.make_request(name, list(range(first, first + 12)), max_tokens=1))
            self.run_step(scheduler)
        self.run_step(scheduler)
        self.assertEqual(pool.get_num_free_blocks(), 8)
        again = self.make_request("again", list(range(12)), max_tokens=1)
        self.assertEqual(scheduler.kv_cache_manager.get_computed_blocks(again)[1], 8)
        # Five blocks: two were never used; then three cached ones, of the request that ended first.
        scheduler.add_request(self.make_request("c", list(range(200, 220)), max_tokens=1))
        self.run_step(scheduler)
        self.assertEqual(scheduler.kv_cache_manager.get_computed_blocks(again)[1], 0)
        other = self.make_request("other", list(range(100, 112)))
        self.assertEqual(scheduler.kv_cache_manager.get_computed_blocks(other)[1], 8)

    def test_the_youngest_is_preempted_and_starts_over(self):
        scheduler = self.make_scheduler(blocks=8)
        for name in "ab":
            scheduler.add_request(self.make_request(name, [ord(name)] * 12, max_tokens=12))
        preempted = []
        for _ in range(60):
            output = self.run_step(scheduler)
            preempted.extend(output.preempted_req_ids)
            if not scheduler.requests:
                break
        self.assertEqual(preempted, ["b"])
        self.assertFalse(scheduler.requests)
        self.assertEqual(scheduler.kv_cache_manager.usage, 0.0)

    def test_finish_requests_frees_running_and_waiting_ones(self):
        scheduler = self.make_scheduler(seqs=1)
        for name in "ab":
            scheduler.add_request(self.make_request(name, [1, 2, 3]))
        self.run_step(scheduler)
        self.assertEqual(scheduler.get_request_counts(), (1, 1))
        ended = scheduler.finish_requests(["a", "b", "unknown"], RequestStatus.FINISHED_ABORTED)
        self.assertEqual(len(ended), 2)
        self.assertEqual((scheduler.get_request_counts(), scheduler.kv_cache_manager.usage), ((0, 0), 0.0))
        self.assertEqual(scheduler.schedule().finished_req_ids, {"a", "b"})

    def test_the_decorated_methods_hide_a_function_of_the_same_name(self):
        outer = vars(GPUModelRunner)["execute_model"]
        self.assertEqual(outer.__code__.co_name, "decorate_context")
        self.assertEqual(outer.__qualname__, outer.__wrapped__.__qualname__)


if __name__ == "__main__":
    unittest.main()
