#!/usr/bin/env python3
"""vLLM's real CUDA graph classes without a GPU, over a stand-in for the driver.

CUDAGraphWrapper, CudagraphDispatcher and the second model runner's CudaGraphManager are vLLM's own, unmodified. Only
torch's graph objects (torch.cuda.CUDAGraph, torch.cuda.graph) are replaced, by ones that call the driver library given.

  graphs.py --library libcuda.so.1 --out truth.json [--ready FILE --go FILE] [--late]

With --ready and --go it says by the first file that everything is imported, and waits for the second. With --late the
graphs are captured before that. What was done, as this program, vLLM's compilation_counter and the driver itself
counted it, is written to --out.
"""
import argparse
import collections
import ctypes
import gc
import json
import os
import time
from contextlib import nullcontext
from types import SimpleNamespace

import torch


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--library", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--ready")
    p.add_argument("--go")
    p.add_argument("--late", action="store_true", help="capture before --ready")
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--pieces", type=int, default=5)
    return p.parse_args()


class Driver:
    """The library, and one stream."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.fake_cuda_calls.restype = ctypes.c_ulonglong
        self.stream = ctypes.c_void_p()
        self.check(self.library.cuStreamCreate(ctypes.byref(self.stream), 0))

    @staticmethod
    def check(result):
        if result:
            raise RuntimeError(f"CUresult {result}")

    def calls(self, *names):
        return sum(self.library.fake_cuda_calls(name.encode()) for name in names)

    def kernel(self):
        none = ctypes.c_void_p()
        self.check(self.library.cuLaunchKernel(none, 1, 1, 1, 1, 1, 1, 0, self.stream, none, none))


class Graph:
    """In the place of torch.cuda.CUDAGraph."""

    driver = None

    def __init__(self, *args, **kwargs):
        self.handle = ctypes.c_void_p()

    def capture_begin(self, *args, **kwargs):
        self.driver.check(self.driver.library.cuStreamBeginCapture_v2(self.driver.stream, 1))

    def capture_end(self):
        library, graph = self.driver.library, ctypes.c_void_p()
        self.driver.check(library.cuStreamEndCapture(self.driver.stream, ctypes.byref(graph)))
        self.driver.check(library.cuGraphInstantiateWithFlags(ctypes.byref(self.handle), graph, ctypes.c_ulonglong(0)))
        self.driver.check(library.cuGraphDestroy(graph))

    def replay(self):
        self.driver.check(self.driver.library.cuGraphLaunch(self.handle, self.driver.stream))

    def __del__(self):
        if self.handle:
            self.driver.library.cuGraphExecDestroy(self.handle)


class Capturing:
    """In the place of torch.cuda.graph."""

    def __init__(self, graph, *args, **kwargs):
        self.graph = graph

    def __enter__(self):
        self.graph.capture_begin()

    def __exit__(self, *exception):
        self.graph.capture_end()


def replace_torch(driver):
    Graph.driver = driver
    torch.cuda.CUDAGraph = Graph
    torch.cuda.graph = Capturing
    torch.cuda.graph_pool_handle = lambda: (0, 1)
    torch.cuda.empty_cache = lambda *_: None
    torch.accelerator.empty_cache = lambda *_: None
    from vllm.platforms import current_platform
    type(current_platform).graph_pool_handle = staticmethod(lambda: (0, 1))


class Config:
    """As much of VllmConfig as the classes ask for."""

    def __init__(self, **values):
        self.__dict__.update(values)


def config(mode, sizes, max_num_seqs=64):
    from vllm.config.compilation import CUDAGraphMode
    compilation = Config(
        cudagraph_mode=CUDAGraphMode[mode], cudagraph_capture_sizes=sizes, max_cudagraph_capture_size=max(sizes),
        compile_sizes=[], cudagraph_specialize_lora=True, splitting_ops=[], mode=3,
        is_attention_compiled_piecewise=lambda: True, fast_moe_cold_start=False, static_forward_context={},
        static_all_moe_layers=[])
    return Config(
        compilation_config=compilation, scheduler_config=Config(max_num_seqs=max_num_seqs, max_num_batched_tokens=512),
        parallel_config=Config(data_parallel_size=1, tensor_parallel_size=1, is_moe_model=False), lora_config=None,
        speculative_config=None, num_speculative_tokens=0, model_config=Config(max_model_len=512),
        cache_config=Config(use_kda_recoverssm=False), use_cumem_cudagraph_pool=False)


class Truth:
    """What is done, as this program sees it."""

    def __init__(self):
        self.replays = collections.Counter()
        self.launches = collections.Counter()
        self.batch_tokens = collections.Counter()
        self.captures = collections.Counter()

    @staticmethod
    def key(mode, tokens, reqs, uniform):
        return f"{mode}|{tokens}|{'' if reqs is None else reqs}|{uniform}"

    def replay(self, key, launches, batch):
        self.replays[key] += 1
        self.launches[key] += launches
        if batch is not None:
            self.batch_tokens[key] += batch

    def capture(self, key, throwaway):
        self.captures[f"{key}|{'True' if throwaway else ''}"] += 1


class First:
    """The first model runner's way: a dispatcher, an outer wrapper, and one for each piece inside."""

    def __init__(self, driver, truth, pieces):
        import vllm.compilation.cuda_graph as module
        from vllm.config.compilation import CUDAGraphMode
        from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
        module.set_graph_pool_id = lambda *_: None
        self.modes, self.driver, self.truth, self.pieces = CUDAGraphMode, driver, truth, pieces
        self.config = config("FULL_AND_PIECEWISE", [4, 8, 16])
        self.dispatcher = CudagraphDispatcher(self.config)
        self.dispatcher.initialize_cudagraph_keys(CUDAGraphMode.FULL_AND_PIECEWISE, 1)

        class Piece:
            def __init__(self, index):
                self.piecewise_compile_index, self.total_piecewise_compiles = index, pieces

            def __call__(self, x):
                driver.kernel()
                return x

        self.inner = [module.CUDAGraphWrapper(Piece(i), self.config, CUDAGraphMode.PIECEWISE) for i in range(pieces)]
        self.outer = module.CUDAGraphWrapper(self.model, self.config, CUDAGraphMode.FULL)

    def model(self, x):
        for piece in self.inner:
            x = piece(x)
            self.driver.kernel()  # attention, between two pieces
        return x

    def run(self, mode, descriptor):
        from vllm.forward_context import create_forward_context, override_forward_context
        import inspect
        more = {"virtual_engine": 0} if "virtual_engine" in inspect.signature(create_forward_context).parameters else {}
        context = create_forward_context(None, self.config, cudagraph_runtime_mode=mode, batch_descriptor=descriptor,
                                         **more)
        with override_forward_context(context):
            self.outer([0])

    def key(self, mode, d):
        return Truth.key(mode.name, d.num_tokens, d.num_reqs, d.uniform)

    def capture(self, throwaway):
        for mode in (self.modes.PIECEWISE, self.modes.FULL):
            for d in sorted(self.dispatcher.cudagraph_keys[mode], key=lambda d: -d.num_tokens):
                self.run(self.modes.NONE, None)
                self.run(mode, d)
                for _ in range(self.pieces if mode == self.modes.PIECEWISE else 1):
                    self.truth.capture(self.key(mode, d), throwaway)

    def step(self, tokens, uniform):
        mode, d = self.dispatcher.dispatch(num_tokens=tokens, uniform_decode=uniform, has_lora=False)
        self.run(mode, d if mode != self.modes.NONE else None)
        if mode != self.modes.NONE:
            self.truth.replay(self.key(mode, d), self.pieces if mode == self.modes.PIECEWISE else 1, tokens)


class Second:
    """The second model runner's manager."""

    def __init__(self, driver, truth):
        import vllm.v1.worker.gpu.cudagraph_utils as module
        from vllm.config.compilation import CUDAGraphMode
        self.modes, self.driver, self.truth = CUDAGraphMode, driver, truth
        module.graph_capture = lambda **_: nullcontext()
        module.is_global_first_rank = lambda: False
        if hasattr(module, "get_pp_group"):
            module.get_pp_group = lambda: SimpleNamespace(is_first_rank=True, is_last_rank=True)
        self.new = hasattr(module.CudaGraphManager, "dispatch")
        self.config = config("FULL_DECODE_ONLY", [2, 4, 8])
        device = torch.device("cpu")
        if self.new:
            self.manager = module.CudaGraphManager(self.config, device, CUDAGraphMode.FULL_DECODE_ONLY, 1)
        else:
            from vllm.forward_context import create_forward_context, override_forward_context
            module.prepare_inputs_to_capture = lambda *_: ({}, {})
            module.make_num_tokens_across_dp = lambda *_: None

            def set_forward_context(attn_metadata, vllm_config, cudagraph_runtime_mode, **_):
                return override_forward_context(create_forward_context(
                    None, vllm_config, 0, cudagraph_runtime_mode=cudagraph_runtime_mode))
            module.set_forward_context = set_forward_context
            self.manager = module.CudaGraphManager(self.config, False, device)

    def capture(self):
        if self.new:
            def create(desc, warmup):
                return lambda mode: self.driver.kernel()
            self.manager.capture(create)
        else:
            def model(**_):
                self.driver.kernel()
                return torch.zeros(8, 4)[:self.tokens]
            inputs = SimpleNamespace(input_ids=torch.zeros(64), positions=torch.zeros(64))
            state = SimpleNamespace(prepare_dummy_inputs=lambda *_: {})
            capture = self.manager.capture_graph

            def sized(size, *args, **kwargs):
                self.tokens = size
                return capture(size, *args, **kwargs)
            self.manager.capture_graph = sized
            self.manager.capture(model, state, inputs, SimpleNamespace(cp_size=1), [], None)
            del self.manager.capture_graph

    def profile(self):
        """vLLM's own profile_cudagraph_memory, with a runner that has nothing but a manager."""
        import vllm.v1.worker.gpu.cudagraph_utils as module
        if not hasattr(module, "profile_cudagraph_memory"):
            return 0
        module._init_minimal_kv_cache_for_profiling = lambda _: None
        module._teardown_profiling_state = lambda _: None
        module.set_current_vllm_config = lambda _: nullcontext()
        torch.accelerator.synchronize = lambda *_: None
        torch.accelerator.get_memory_info = lambda *_: (0, 0)
        runner = SimpleNamespace(compilation_config=self.config.compilation_config, vllm_config=self.config,
                                 cudagraph_manager=self.manager, capture_model=lambda profile_only: self.capture() or 0)
        module.profile_cudagraph_memory(runner)
        captured = list(self.manager.graphs)
        for d in captured:
            self.truth.capture(self.key(d), True)
        return len(captured)

    def key(self, d):
        if self.new:
            return Truth.key("FULL", d.num_tokens, d.num_reqs, d.uniform_token_count is not None)
        return Truth.key("FULL", d, None, True)

    def step(self, tokens):
        if self.new:
            d = self.manager.dispatch(tokens, tokens, 1, 0)
            if d.cg_mode != self.modes.FULL:
                return
            self.manager.run_fullgraph(d)
        else:
            mode, d = self.manager.get_cudagraph_runtime_mode(tokens, tokens, 1)
            if mode != self.modes.FULL:
                return
            self.manager.run_fullgraph(d)
        self.truth.replay(self.key(d), 1, tokens)


def begin(a, driver):
    """Says that all is ready, and waits for the go. Returns what gives the driver's calls since then."""
    if a.ready:
        open(a.ready, "w").close()
        while not os.path.exists(a.go):
            time.sleep(0.01)
    names = ("cuGraphLaunch", "cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags", "cuLaunchKernel")
    at_go = {name: driver.calls(name) for name in names}
    return lambda: {name: driver.calls(name) - count for name, count in at_go.items()}


def end(a, result):
    with open(a.out, "w") as out:
        json.dump(result, out)
    # The tracer looks at a process that is still there.
    time.sleep(1.0)
    print("RESULT " + json.dumps(result), flush=True)
    os._exit(0)


def main():
    a = parse()
    import setproctitle
    import vllm
    import vllm.v1.worker.gpu_worker  # noqa: F401  a worker has it
    from vllm.compilation.counter import compilation_counter
    setproctitle.setproctitle("VLLM::Worker_TP1")  # as vLLM names its workers
    driver, truth = Driver(a.library), Truth()
    replace_torch(driver)
    first, second = First(driver, truth, a.pieces), Second(driver, truth)
    before = compilation_counter.num_cudagraph_captured

    def capture():
        thrown_away = Second(driver, truth).profile()  # clears all wrappers too
        gc.collect()
        first.capture(False)
        second.capture()
        for d in second.manager.graphs:
            truth.capture(second.key(d), False)
        return thrown_away

    thrown_away = 0
    if a.late:
        thrown_away = capture()
        truth.captures.clear()
    calls = begin(a, driver)
    if not a.late:
        thrown_away = capture()
    for _ in range(a.rounds):
        for tokens in (1, 4, 7, 16, 17, 30):
            first.step(tokens, True)
            first.step(tokens, False)
            second.step(tokens)
    result = {
        "vllm": vllm.__version__,
        "replays": truth.replays, "launches": truth.launches, "batch_tokens": truth.batch_tokens,
        "captures": truth.captures, "counter": compilation_counter.num_cudagraph_captured - before,
        "thrown_away": thrown_away, "second_counts": second.new,
        "driver": calls(),
    }
    end(a, result)


if __name__ == "__main__":
    main()
