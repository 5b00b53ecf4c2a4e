#!/usr/bin/env python3
"""vLLM's rarer CUDA graphs without a GPU, over a stand-in for the driver, as graphs.py does for the common ones.

UBatchWrapper (two microbatches in threads of their own, captured as one graph), BreakableCUDAGraphWrapper (many segments
with eager calls between them) and EncoderCudaGraphManager (budgets of a vision encoder) are vLLM's own, unmodified. Only
torch's graphs, streams and events are replaced.

  graph_kinds.py --library libcuda.so.1 --out truth.json [--ready FILE --go FILE] [--late]
"""
import contextlib
import os
from types import SimpleNamespace

os.environ["VLLM_USE_BREAKABLE_CUDAGRAPH"] = "1"

import torch

import graphs
from graphs import Config, Driver, Truth, config


class Stream:
    """In the place of torch.cuda.Stream."""

    def __init__(self, *args, **kwargs):
        pass

    def wait_event(self, event):
        pass

    def wait_stream(self, stream):
        pass


class Event:
    """In the place of torch.Event."""

    def record(self, *args):
        pass


def replace_torch(driver):
    graphs.replace_torch(driver)
    stream = Stream()
    torch.cuda.Stream, torch.Event = Stream, Event
    torch.cuda.current_stream = lambda *_: stream
    torch.cuda.set_stream = lambda *_: None
    torch.cuda.stream = lambda *_: contextlib.nullcontext()
    torch.cuda.current_blas_handle = lambda: 0
    torch.accelerator.set_device_index = lambda *_: None


def forward(settings, mode, descriptor, call, **more):
    from vllm.forward_context import create_forward_context, override_forward_context
    context = create_forward_context(None, settings, cudagraph_runtime_mode=mode, batch_descriptor=descriptor, **more)
    with override_forward_context(context):
        return call()


class Dispatched:
    """What a dispatcher decides for."""

    def __init__(self, driver, truth, mode, sizes):
        from vllm.config.compilation import CUDAGraphMode
        from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
        self.modes, self.driver, self.truth = CUDAGraphMode, driver, truth
        self.config = config(mode, sizes)
        self.dispatcher = CudagraphDispatcher(self.config)
        self.dispatcher.initialize_cudagraph_keys(CUDAGraphMode[mode], 1)

    def key(self, mode, d):
        return Truth.key(mode.name, d.num_tokens, d.num_reqs, d.uniform)

    def capture(self):
        for mode in (self.modes.PIECEWISE, self.modes.FULL):
            for d in sorted(self.dispatcher.cudagraph_keys[mode], key=lambda d: -d.num_tokens):
                self.run(mode, d)
                self.truth.capture(self.key(mode, d), False)

    def step(self, tokens):
        mode, d = self.dispatcher.dispatch(num_tokens=tokens, uniform_decode=True, has_lora=False)
        self.run(mode, d if mode != self.modes.NONE else None)
        if mode != self.modes.NONE:
            self.truth.replay(self.key(mode, d), self.LAUNCHES, tokens)


class Breakable(Dispatched):
    """A model whose attention breaks the capture: LAUNCHES graphs with an eager call between each two."""

    LAUNCHES = 4

    def __init__(self, driver, truth):
        from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphWrapper, eager_break_during_capture
        super().__init__(driver, truth, "PIECEWISE", [8, 16])
        self.eager = 0

        @eager_break_during_capture
        def attention(x):
            self.eager += 1
            driver.kernel()

        def model(x):
            for _ in range(self.LAUNCHES - 1):
                driver.kernel()
                attention(x)
            driver.kernel()
            return x
        self.wrapper = BreakableCUDAGraphWrapper(model, self.config)

    def run(self, mode, d):
        forward(self.config, mode, d, lambda: self.wrapper([0]))


class Ubatch(Dispatched):
    """Two microbatches, in a thread each."""

    LAUNCHES = 1
    UBATCHES = 2

    def __init__(self, driver, truth):
        import vllm.v1.worker.gpu_ubatch_wrapper as module
        super().__init__(driver, truth, "FULL", [4, 12])
        self.config.parallel_config = Config(
            num_ubatches=self.UBATCHES, data_parallel_size=2, data_parallel_rank=0, tensor_parallel_size=1,
            is_moe_model=True, use_sequence_parallel_moe=False, enable_expert_parallel=False)
        module.create_sm_control_context = lambda *_: contextlib.nullcontext()
        module.set_graph_pool_id = lambda *_: None

        def model(input_ids, **_):
            driver.kernel()
            return input_ids
        self.wrapper = module.UBatchWrapper(model, self.config, self.modes.FULL, torch.device("cpu"))

    def run(self, mode, d):
        from vllm.forward_context import DPMetadata
        from vllm.v1.worker.ubatch_utils import UBatchSlice
        tokens = d.num_tokens if d else 30
        half = tokens // 2
        ids = torch.zeros(tokens)
        inputs = {"input_ids": ids, "positions": ids, "intermediate_tensors": None, "inputs_embeds": None}
        slices = [UBatchSlice(slice(0, 1), slice(0, half)), UBatchSlice(slice(1, 2), slice(half, tokens))]
        dp = DPMetadata.make(self.config.parallel_config, tokens, torch.tensor([tokens, tokens]))
        forward(self.config, mode, d, lambda: self.wrapper(**inputs), dp_metadata=dp, ubatch_slices=slices)


class Encoder:
    """A vision encoder of which only the sizes matter: an image of so many output tokens."""

    def __init__(self, driver, truth):
        from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager
        self.driver, self.truth = driver, truth
        settings = config("NONE", [8])
        for name, value in (("encoder_cudagraph_token_budgets", [16, 64]),
                            ("encoder_cudagraph_max_vision_items_per_batch", 2),
                            ("encoder_cudagraph_max_frames_per_batch", None)):
            setattr(settings.compilation_config, name, value)
        settings.model_config.multimodal_config = SimpleNamespace(
            get_limit_per_prompt=lambda _: 0, mm_encoder_tp_mode="weights")
        self.manager = EncoderCudaGraphManager(settings, torch.device("cpu"), torch.float32, self)

    # What a model is asked for.

    def get_encoder_cudagraph_config(self):
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphConfig
        return EncoderCudaGraphConfig(modalities=["image"], buffer_keys=["pixels"], out_hidden_size=1)

    def prepare_encoder_cudagraph_capture_inputs(self, budget, *_):
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphCaptureInputs
        return EncoderCudaGraphCaptureInputs(values={"pixels": torch.zeros(budget, 1)})

    def prepare_encoder_cudagraph_replay_buffers(self, images, *_):
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphReplayBuffers
        return EncoderCudaGraphReplayBuffers(values={"pixels": torch.ones(sum(images["sizes"]), 1)})

    def encoder_cudagraph_forward(self, values, path):
        self.driver.kernel()
        return values["pixels"]

    def encoder_eager_forward(self, images, path):
        self.driver.kernel()
        return torch.zeros(sum(images["sizes"]), 1)

    def get_encoder_cudagraph_item_specs(self, images):
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderItemSpec
        return [EncoderItemSpec(input_size=size, output_tokens=size) for size in images["sizes"]]

    def select_encoder_cudagraph_items(self, images, indices):
        return {"sizes": [images["sizes"][index] for index in indices]}

    def postprocess_encoder_output(self, outputs, indices, tokens, results, **_):
        for index in indices:
            results[index] = outputs

    # What is done.

    @staticmethod
    def key(budget):
        return f"|{budget}||"

    def capture(self):
        self.manager.capture((0, 2))
        for budget in (64, 16):
            self.truth.capture(self.key(budget), False)

    def step(self):
        self.manager.execute({"sizes": [10]})
        self.truth.replay(self.key(16), 1, None)
        self.manager.execute({"sizes": [30, 20]})  # both in one graph
        self.truth.replay(self.key(64), 1, None)
        self.manager.execute({"sizes": [100]})  # larger than any: eager


def main():
    a = graphs.parse()
    import setproctitle
    import vllm
    import vllm.v1.worker.gpu_worker  # noqa: F401  a worker has it
    setproctitle.setproctitle("VLLM::Worker_TP1")  # as vLLM names its workers
    driver, truth = Driver(a.library), Truth()
    replace_torch(driver)
    kinds = [Breakable(driver, truth), Ubatch(driver, truth), Encoder(driver, truth)]

    def capture():
        for kind in kinds:
            kind.capture()

    if a.late:
        capture()
        truth.captures.clear()
    calls = graphs.begin(a, driver)
    if not a.late:
        capture()
    breakable, ubatch, encoder = kinds
    for _ in range(a.rounds):
        for tokens in (3, 8, 13, 40):
            breakable.step(tokens)
        for tokens in (4, 9, 12, 40):
            ubatch.step(tokens)
        encoder.step()
    result = {
        "vllm": vllm.__version__, "replays": truth.replays, "launches": truth.launches,
        "batch_tokens": truth.batch_tokens, "captures": truth.captures,
        "segments": Breakable.LAUNCHES, "ubatches": Ubatch.UBATCHES,
        "hits": encoder.manager.graph_hits, "misses": encoder.manager.graph_misses, "eager_calls": breakable.eager,
        "driver": calls(),
    }
    graphs.end(a, result)


if __name__ == "__main__":
    main()
