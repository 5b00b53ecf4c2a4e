"""A worker shaped like vLLM 0.32.0's: its frames lie above calls of a (stand-in) CUDA driver that release the GIL.

Usage: walked.py LIBCUDA RESULT. Says `ready`, and runs when a line comes. Then it captures graphs, once to throw them
away, runs its steps, and writes what it did to RESULT.
"""

import contextlib
import ctypes
import dataclasses
import enum
import functools
import json
import sys
import types

CUDA = ctypes.CDLL(sys.argv[1])
P = ctypes.c_void_p
CUDA.cuStreamBeginCapture_v2.argtypes = [P, ctypes.c_int]
CUDA.cuStreamEndCapture.argtypes = [P, ctypes.POINTER(P)]
CUDA.cuGraphInstantiateWithFlags.argtypes = [ctypes.POINTER(P), P, ctypes.c_ulonglong]
CUDA.cuGraphLaunch.argtypes = [P, P]
CUDA.cuStreamSynchronize.argtypes = [P]
CUDA.cuLaunchKernel.argtypes = [P] + [ctypes.c_uint] * 7 + [P] * 3


def module(name, **contents):
    made = types.ModuleType(name)
    made.__dict__.update(contents)
    sys.modules[name] = made
    return made


def inference_mode(function):
    @functools.wraps(function)
    def decorate_context(*args, **kwargs):
        return function(*args, **kwargs)

    return decorate_context


class CUDAGraphMode(enum.Enum):
    NONE = 0
    PIECEWISE = 1
    FULL = 2


@dataclasses.dataclass(frozen=True)
class BatchDescriptor:
    num_tokens: int
    num_reqs: "int | None" = None
    uniform: bool = False
    has_lora: bool = False
    num_active_loras: int = 0


@dataclasses.dataclass
class CachedRequestData:
    num_computed_tokens: list


@dataclasses.dataclass
class SchedulerOutput:
    scheduled_new_reqs: list
    scheduled_cached_reqs: CachedRequestData
    num_scheduled_tokens: dict
    total_num_scheduled_tokens: int


@dataclasses.dataclass
class Context:
    batch_descriptor: object
    cudagraph_runtime_mode: CUDAGraphMode


CONTEXT = None


@contextlib.contextmanager
def forward_context(descriptor, mode):
    global CONTEXT
    CONTEXT = Context(descriptor, mode)
    yield
    CONTEXT = None


def kernels(count):
    for _ in range(count):
        CUDA.cuLaunchKernel(1, 1, 1, 1, 1, 1, 1, 0, None, None, None)


class Graph:
    @contextlib.contextmanager
    def capture(self):
        assert CUDA.cuStreamBeginCapture_v2(None, 0) == 0
        yield
        graph, self.exec = P(), P()
        assert CUDA.cuStreamEndCapture(None, ctypes.byref(graph)) == 0
        assert CUDA.cuGraphInstantiateWithFlags(ctypes.byref(self.exec), graph, 0) == 0

    def replay(self):
        assert CUDA.cuGraphLaunch(self.exec, None) == 0


class CUDAGraphWrapper:
    def __init__(self, runnable, runtime_mode):
        self.runnable = runnable
        self.runtime_mode = runtime_mode
        self.entries = {}

    def __call__(self, *args, **kwargs):
        batch_descriptor = CONTEXT.batch_descriptor
        cudagraph_runtime_mode = CONTEXT.cudagraph_runtime_mode
        if cudagraph_runtime_mode != self.runtime_mode:
            return self.runnable(*args, **kwargs)
        graph = self.entries.get(batch_descriptor)
        if graph is None:
            graph = Graph()
            with graph.capture():
                self.runnable(*args, **kwargs)
            self.entries[batch_descriptor] = graph
            return None
        graph.replay()
        return None


PIECES = 3


class GPUModelRunner:
    def __init__(self):
        self.clear()

    def clear(self):
        self.pieces = [CUDAGraphWrapper(lambda: kernels(2), CUDAGraphMode.PIECEWISE) for _ in range(PIECES)]
        self.model = CUDAGraphWrapper(self.pieces_run, CUDAGraphMode.FULL)

    def pieces_run(self):
        for piece in self.pieces:
            piece()
            if CONTEXT.cudagraph_runtime_mode != CUDAGraphMode.FULL:
                kernels(1)

    def _model_forward(self):
        return self.model()

    @inference_mode
    def execute_model(self, scheduler_output, intermediate_tensors=None):
        tokens = scheduler_output.total_num_scheduled_tokens
        kernels(1)
        descriptor, mode = self.dispatch(tokens, len(scheduler_output.num_scheduled_tokens))
        with forward_context(descriptor, mode):
            self._model_forward()
        return None

    def dispatch(self, tokens, requests):
        if tokens == requests and tokens <= 4:
            padded = 2 if tokens <= 2 else 4
            return BatchDescriptor(padded, padded, True), CUDAGraphMode.FULL
        if tokens <= 16:
            return BatchDescriptor(8 if tokens <= 8 else 16), CUDAGraphMode.PIECEWISE
        return BatchDescriptor(tokens), CUDAGraphMode.NONE

    @inference_mode
    def sample_tokens(self, grammar_output):
        kernels(1)
        CUDA.cuStreamSynchronize(None)

    def _dummy_run(self, descriptor, mode):
        with forward_context(descriptor, mode):
            self._model_forward()

    def capture_model(self):
        for tokens in (16, 8):
            self._dummy_run(BatchDescriptor(tokens), CUDAGraphMode.PIECEWISE)
        for tokens in (4, 2):
            self._dummy_run(BatchDescriptor(tokens, tokens, True), CUDAGraphMode.FULL)

    @inference_mode
    def profile_cudagraph_memory(self):
        self._dummy_run(BatchDescriptor(4, 4, True), CUDAGraphMode.FULL)
        self.clear()


module("vllm", __version__="0.32.0")
module("vllm.forward_context", BatchDescriptor=BatchDescriptor)
module("vllm.compilation.cuda_graph", CUDAGraphWrapper=CUDAGraphWrapper)
module("vllm.v1.worker.gpu_model_runner", GPUModelRunner=GPUModelRunner)


def steps():
    """Batches: (tokens of each request, computed tokens of the first one, whether its requests are new)."""
    batches = [([7], 0, True), ([13, 2], 0, True), ([40, 60], 0, True)]
    # The same batch again and again: only the computed tokens differ.
    batches += [([1] * 3, 20 + step, False) for step in range(12)]
    batches += [([1] * 2, 32 + step, False) for step in range(5)]
    batches += [([5, 1], 40, False), ([1], 41, False)]
    return batches


def main():
    libc = ctypes.CDLL(None)
    # PR_SET_NAME
    assert libc.prctl(15, b"VLLM::Worker_TP0", 0, 0, 0) == 0
    runner = GPUModelRunner()
    print("ready", flush=True)
    sys.stdin.readline()
    runner.profile_cudagraph_memory()
    runner.capture_model()
    done = []
    for each, computed, new in steps():
        names = [f"r{index}" for index in range(len(each))]
        output = SchedulerOutput(
            names if new else [],
            CachedRequestData([] if new else [computed] * len(each)),
            dict(zip(names, each)),
            sum(each),
        )
        runner.execute_model(output)
        runner.sample_tokens(None)
        descriptor, mode = runner.dispatch(sum(each), len(each))
        del output
        done.append({"tokens": sum(each), "seqs": len(each), "mode": mode.name, "padded": descriptor.num_tokens})
    with open(sys.argv[2], "w") as file:
        json.dump({"steps": done, "pieces": PIECES}, file)
    print("done", flush=True)
    sys.stdin.readline()


main()
