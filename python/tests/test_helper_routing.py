"""Sampling of routers, with a stand-in for PyTorch. Run with `python3 -m unittest discover -s python/tests`."""

import json
import pathlib
import sys
import time
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "profilemate_helper"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from helper_case import HelperCase
from profilemate_helper import routing
from test_helper_resident import Tracer

# What of PyTorch is used, over lists. Copies to pinned memory are done when `done` says so.
TORCH = '''
import types
log, state = [], types.SimpleNamespace(capturing=False, done=False)
int64, int32 = "int64", "int32"
class Device:
    def __init__(self, type): self.type = type
    def __str__(self): return self.type
class Tensor:
    def __init__(self, rows, dtype="int64", device=None, base=None):
        self.rows, self.dtype, self.device = rows, dtype, device or Device("cpu")
    def flat(self): return self.rows if self.dim() == 1 else [n for row in self.rows for n in row]
    def dim(self): return 2 if self.rows and isinstance(self.rows[0], list) else 1
    @property
    def shape(self): return (len(self.rows), len(self.rows[0])) if self.dim() == 2 else (len(self.rows),)
    def made(self, rows, dtype=None): return Tensor(rows, dtype or self.dtype, self.device)
    def map(self, each): return self.made([[each(n) for n in row] for row in self.rows] if self.dim() == 2 else [each(n) for n in self.rows])
    def to(self, dtype): return self.made(self.rows, dtype)
    def add(self, more): return self.map(lambda n: n + more)
    def __mul__(self, by): return self.map(lambda n: n * by)
    def __add__(self, other): return self.made([[a + b for a, b in zip(x, y)] for x, y in zip(self.rows, other.rows)])
    def clamp(self, low, high): return self.map(lambda n: max(low, min(high, n)))
    def reshape(self, size): return self.made(self.flat())
    def __getitem__(self, key):
        if isinstance(key, tuple): return self.made([row[key[1]] for row in self.rows])
        return self.made(self.rows[key])
    def scatter_add_(self, dim, index, source):
        log.append("scatter")
        for at, more in zip(index.rows, source.rows): self.rows[at] += more
    def scatter_(self, dim, index, source):
        for at, value in zip(index.rows, source.rows): self.rows[at] = value
    def copy_(self, source, non_blocking=False):
        assert non_blocking
        log.append("copy")
        for own, other in zip(self.rows, source.rows): own[:] = other
    def clone(self): return self.made([list(row) for row in self.rows])
    def tolist(self): return list(self.rows)
def zeros(rows, columns, dtype, device): return Tensor([[0] * columns for _ in range(rows)], dtype, device)
def zeros_like(tensor): return zeros(*tensor.shape, tensor.dtype, tensor.device)
def ones_like(tensor, dtype): return tensor.made([1] * len(tensor.rows))
def empty(shape, dtype, pin_memory): return zeros(*shape, dtype, None)
def cat(parts, dim): return parts[0].made([sum((part.rows[at] for part in parts), []) for at in range(len(parts[0].rows))])
def minimum(a, b): return a.made([[min(m, n) for m, n in zip(x, y)] for x, y in zip(a.rows, b.rows)])
def maximum(a, b): return a.made([[max(m, n) for m, n in zip(x, y)] for x, y in zip(a.rows, b.rows)])
class inference_mode:
    def __enter__(self): pass
    def __exit__(self, *rest): pass
class Event:
    def record(self): log.append("record")
    def query(self): return state.done
    def synchronize(self): raise AssertionError
cuda = types.SimpleNamespace(is_current_stream_capturing=lambda: state.capturing, Event=Event)
compiler = types.SimpleNamespace(is_compiling=lambda: False)
'''


class Layer:
    """A layer that asks its router, which maps ids as vLLM's do."""

    layer_name = "model.layers.3.mlp.experts"

    def __init__(self, device="cpu"):
        self.device = sys.modules["torch"].Device(device)
        self.router = Router()

    def run(self, *tokens):
        ids = sys.modules["torch"].Tensor([list(token) for token in tokens], "int32", self.device)
        return self.router._apply_eplb_mapping(ids)


class Router:
    global_num_experts = 4
    eplb_state = None
    slots = {0: 0, 1: 3, 2: 2, 3: 1}

    def _apply_eplb_mapping(self, topk_ids):
        return topk_ids if self.eplb_state is None else topk_ids.map(self.slots.get)


class RoutingTest(unittest.TestCase):
    def setUp(self):
        torch = types.ModuleType("torch")
        exec(TORCH, vars(torch))
        self.torch, before = torch, sys.modules.get("torch")
        sys.modules["torch"] = torch
        self.addCleanup(sys.modules.__setitem__ if before else sys.modules.pop, "torch", before)
        self.told = {}
        real = routing.publish
        routing.publish = self.publish
        self.addCleanup(setattr, routing, "publish", real)

    def publish(self, layer, experts, top_k, every, calls, sampled, captured, kind, keys, values):
        self.told[layer, kind] = dict(zip(keys, values))
        self.state = calls, sampled, captured

    def sampler(self, every=1):
        sampler = routing.Sampler(every)
        original = vars(Router)["_apply_eplb_mapping"]
        sampler.stand_in(Router, "_apply_eplb_mapping", "mapped")
        self.addCleanup(setattr, Router, "_apply_eplb_mapping", original)
        return sampler

    def chosen(self, kind=routing.CHOSEN):
        return self.told.get((Layer.layer_name, kind))

    def test_every_choice_is_counted_and_every_pair(self):
        sampler, layer = self.sampler(), Layer()
        layer.run((0, 1), (1, 3))
        layer.run((1, -1), (3, 9))
        sampler.tell()
        self.assertIsNone(sampler.failure)
        self.assertEqual(self.chosen(), {0: 1, 1: 3, 3: 2})
        self.assertEqual(self.chosen(routing.PAIRS), {0 | 1 << 16: 1, 1 | 3 << 16: 1})
        self.assertEqual(self.state, (2, 2, 0))

    def test_every_nth_call_is_counted_from_the_first_on(self):
        sampler, layer = self.sampler(every=4), Layer()
        for call in range(10):
            layer.run((call % 4, 0))
        sampler.tell()
        self.assertEqual(self.state, (10, 3, 0))
        self.assertEqual(self.chosen(), {0: 6}, "calls 0, 4 and 8")

    def test_copies_from_a_device_are_rare_and_nobody_waits_for_them(self):
        sampler, layer = self.sampler(), Layer("cuda")
        layer.run((0, 1))
        (bank,) = sampler.banks.values()
        sampler.tell()
        self.assertEqual((self.told, self.torch.log.count("copy")), ({}, 0), "none is due")
        bank.copied -= routing.PERIOD
        layer.run((1, 2))
        layer.run((1, 2))
        sampler.tell()
        self.assertEqual((self.told, self.torch.log.count("record")), ({}, 1), "it is under way")
        self.torch.state.done = True
        layer.run((3, 2))
        sampler.tell()
        self.assertEqual(self.chosen(), {0: 1, 1: 2, 2: 1}, "as it was when the copy began")
        self.assertEqual(self.state, (2, 2, 0))
        self.assertIsNone(sampler.failure)

    def test_nothing_is_done_while_a_graph_is_captured(self):
        sampler, layer = self.sampler(), Layer("cuda")
        layer.run((0, 1))
        before = list(self.torch.log)
        self.torch.state.capturing = True
        layer.run((2, 3))
        self.torch.state.capturing = False
        self.assertEqual(self.torch.log, before)
        (bank,) = sampler.banks.values()
        self.assertEqual(bank.layers[0].state(), (1, 1, 1))

    def test_slots_are_told_with_the_experts_in_them(self):
        sampler, layer = self.sampler(), Layer()
        layer.router.eplb_state = object()
        layer.run((0, 1), (1, 3))
        sampler.tell()
        self.assertEqual(self.chosen(), {0: 1, 1: 2, 3: 1})
        self.assertEqual(self.chosen(routing.PHYSICAL), {0: 1, 3: 2, 1: 1})
        self.assertEqual(self.chosen(routing.OWNERS), {0: 1, 3: 2, 1: 4}, "one above the expert")

    def test_what_fails_never_reaches_the_program_and_ends_the_sampling(self):
        sampler, layer = self.sampler(), Layer()
        self.torch.zeros = None
        self.assertEqual(layer.run((0, 1)).rows, [[0, 1]])
        self.assertIn("TypeError", sampler.failure)
        self.assertFalse(sampler.active)

    def test_an_error_of_the_router_is_the_program_s(self):
        self.sampler()
        with self.assertRaises(AttributeError):
            Router()._apply_eplb_mapping.__func__(types.SimpleNamespace(eplb_state=1), None)

    def test_routers_are_put_back_unless_somebody_else_replaced_them(self):
        original = vars(Router)["_apply_eplb_mapping"]
        sampler = self.sampler()
        stand_in = vars(Router)["_apply_eplb_mapping"]
        self.assertIsNot(stand_in, original)
        self.assertEqual((stand_in.__qualname__, stand_in.__wrapped__), (original.__qualname__, original))
        sampler.restore()
        self.assertIs(vars(Router)["_apply_eplb_mapping"], original)
        sampler.stand_in(Router, "_apply_eplb_mapping", "mapped")
        Router._apply_eplb_mapping = other = lambda self, ids: ids
        sampler.restore()
        self.assertIs(vars(Router)["_apply_eplb_mapping"], other)

    def test_many_sums_come_in_parts(self):
        calls = []
        routing.publish = lambda *arguments: calls.append(arguments)
        sampler, layer = self.sampler(), Layer()
        layer.router.global_num_experts = 1200
        layer.run(*[(expert,) for expert in range(1200)])
        sampler.tell()
        self.assertEqual([len(call[8]) for call in calls], [512, 512, 176])
        self.assertEqual(sum(sum(call[9]) for call in calls), 1200)


SERVER = """
import sys, types
torch = types.ModuleType("torch")
exec(open({torch!r}).read(), vars(torch))
sys.modules["torch"] = torch
import vllm.target
from vllm import routers
class Layer:
    layer_name = "model.layers.0.mlp.experts"
    def run(self, ids): return routers.Router()._apply_eplb_mapping(ids)
for line in sys.stdin:
    print(eval(line), flush=True)
"""
ROUTERS = """
class Router:
    global_num_experts, eplb_state = 4, None
    def _apply_eplb_mapping(self, topk_ids): return topk_ids
"""


class ResidentSamplingTest(HelperCase):
    """Asked by a tracer, in a process of its own; the sums pass the page."""

    def test_sampled_on_request_until_it_ends(self):
        import subprocess

        (self.path / "torch.txt").write_text(TORCH)
        (self.path / "site" / "vllm" / "routers.py").write_text(ROUTERS)
        environment = self.environment()
        environment.pop("PROFILEMATE_PAGE")
        process = subprocess.Popen(
            [sys.executable, "-B", "-W", "ignore::DeprecationWarning", "-c", SERVER.format(torch=str(self.path / "torch.txt"))],
            env=environment, cwd=self.path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(process.communicate)
        ask = lambda text: (process.stdin.write(text + "\n"), process.stdin.flush(), process.stdout.readline().strip())[2]
        tracer = Tracer(process.pid)
        tracer.wait("waiting")
        name = "type(routers.Router.__dict__['_apply_eplb_mapping'].__code__.co_name).__name__ and routers.Router.__dict__['_apply_eplb_mapping'].__code__.co_name"
        self.assertEqual(ask(name), "_apply_eplb_mapping")
        plan = json.loads((self.path / "plan.json").read_text())
        plan["methods"] = [{"module": "profilemate_helper.routing", "qualname": "publish"}]
        plan["sample"] = {"every": 2, "routers": [
            {"module": "vllm.routers", "qualname": "Router._apply_eplb_mapping", "ids": "mapped"},
            {"module": "vllm.gone", "qualname": "Router.gone", "ids": "mapped"},
        ]}  # fmt: skip
        tracer.wait("bound", tracer.send(json.dumps(plan)))
        self.assertEqual(ask(name), "stand_in")
        for _ in range(3):
            ask("Layer().run(torch.Tensor([[0, 1], [2, 1]])).rows")
        calls = "sys.modules['profilemate_helper.resident']._resident.sampler"
        self.assertEqual(ask(calls + ".failure"), "None")
        self.assertEqual(ask("[b.layers[0].state() for b in %s.banks.values()]" % calls), "[(3, 2, 0)]")
        end = tracer.wait("bound", tracer.send('{"sampling": "end"}'))
        self.assertIsNone(end["sampling"])
        self.assertEqual(ask(name), "_apply_eplb_mapping")
        published = ask("type(sys.modules['profilemate_helper.routing'].publish).__name__")
        self.assertEqual(published, "builtin_function_or_method", "it passes the page")
        tracer.leave()
        tracer.wait("waiting")


if __name__ == "__main__":
    unittest.main()
