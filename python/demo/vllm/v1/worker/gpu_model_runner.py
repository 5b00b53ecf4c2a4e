"""Runs the model for one step: prepare, forward, sample."""

from __future__ import annotations

import time
from array import array
from typing import Any, NamedTuple

import torch
from profilemate_demo import graph, model, truth
from profilemate_demo.inference import inference_mode
from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput, SamplerOutput
from vllm.v1.utils import record_function_or_nullcontext
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch


# Seconds from the first step to the capture of the graphs.
CAPTURE_AFTER = 2.5


class ExecuteModelState(NamedTuple):
    """What `execute_model` leaves for `sample_tokens`."""

    scheduler_output: SchedulerOutput
    logits: list[int]
    hidden_states: list[int]


class GPUModelRunner:
    """The model runner.

    The key-value memory holds, for each position, the model's state after that token. A token is computed from the
    state before it, read through the request's block table, so a block that is wrongly shared or given away too early
    shows as a wrong token.
    """

    def __init__(self, vllm_config: VllmConfig, device: Any) -> None:
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self.cache_config = vllm_config.cache_config
        self.scheduler_config = vllm_config.scheduler_config
        self.parallel_config = vllm_config.parallel_config
        self.device = device
        self.block_size = self.cache_config.block_size
        self.max_num_tokens = self.scheduler_config.max_num_batched_tokens
        self.max_num_reqs = self.scheduler_config.max_num_seqs
        self.requests: dict[str, CachedRequestState] = {}
        self.input_batch = InputBatch(self.max_num_reqs)
        self.execute_model_state: ExecuteModelState | None = None
        self.kv_cache = array("Q")
        self.cudagraph_dispatcher = CudagraphDispatcher(vllm_config)
        self.graphs_due: float | None = None
        arch = self.model_config.model_arch_config
        self.layers = [
            MoERunner(f"model.layers.{index}.mlp.experts", index, FusedMoEConfig(arch.num_experts, model.TOP_K))
            for index in range(model.LAYERS)
        ]
        self._wrap_model()

    def _wrap_model(self) -> None:
        """Kernels of the toy model: a wrapper around each piece, attention between them, and one around the whole."""
        pieces = [
            CUDAGraphWrapper(graph.launch_kernel, self.vllm_config, CUDAGraphMode.PIECEWISE)
            for _ in range(self.vllm_config.compilation_config.pieces)
        ]

        def kernels() -> None:
            for piece in pieces:
                piece()
                graph.launch_kernel()

        self.model = CUDAGraphWrapper(kernels, self.vllm_config, CUDAGraphMode.FULL)

    def capture_model(self) -> int:
        """Captures the graphs. A real server does it before it serves."""
        dispatcher = self.cudagraph_dispatcher
        dispatcher.initialize_cudagraph_keys(CUDAGraphMode.FULL_AND_PIECEWISE)
        for uniform in (False, True):
            for size in reversed(self.vllm_config.compilation_config.cudagraph_capture_sizes):
                self._run_kernels(*dispatcher.dispatch(size, uniform))
        return 0

    def _run_kernels(self, mode: CUDAGraphMode, descriptor: BatchDescriptor) -> None:
        with set_forward_context(mode, descriptor):
            self.model()

    def load_model(self) -> None:
        self.kv_cache = array("Q", bytes(8 * self.cache_config.num_gpu_blocks * self.block_size))

    @inference_mode()
    def execute_model(
        self, scheduler_output: SchedulerOutput, intermediate_tensors: Any | None = None
    ) -> ModelRunnerOutput | None:
        """Computes the step's tokens. The result is left for `sample_tokens`; nothing is returned, unless there was
        nothing to do."""
        began = time.perf_counter_ns()
        result = self._execute(scheduler_output, intermediate_tensors)
        if truth.enabled:
            truth.execute_model(scheduler_output, result, time.perf_counter_ns() - began)
        return result

    def _execute(self, scheduler_output: SchedulerOutput, intermediate_tensors: Any | None) -> ModelRunnerOutput | None:
        with record_function_or_nullcontext("gpu_model_runner: preprocess"):
            self._update_states(scheduler_output)
            num_tokens = scheduler_output.total_num_scheduled_tokens
            if not num_tokens:
                return EMPTY_MODEL_RUNNER_OUTPUT
            counts = [scheduler_output.num_scheduled_tokens[req_id] for req_id in self.input_batch.req_ids]
            logits_indices, _, _ = self._prepare_inputs(scheduler_output, counts)
            slots, _ = self._build_attention_metadata(
                num_tokens=num_tokens,
                num_reqs=self.input_batch.num_reqs,
                max_query_len=max(counts),
                num_scheduled_tokens=scheduler_output.num_scheduled_tokens,
            )
            input_ids, embeds, positions, intermediate_tensors, model_kwargs, _ = self._preprocess(
                scheduler_output, num_tokens, intermediate_tensors
            )
        with record_function_or_nullcontext("gpu_model_runner: forward"):
            hidden = self._model_forward(
                input_ids, positions, intermediate_tensors, embeds, slots=slots, **model_kwargs
            )
        with record_function_or_nullcontext("gpu_model_runner: postprocess"):
            logits = [hidden[index] for index in logits_indices]
            self.execute_model_state = ExecuteModelState(scheduler_output, logits, hidden)
        return None

    @inference_mode()
    def sample_tokens(self, grammar_output: GrammarOutput | None) -> ModelRunnerOutput:
        """Chooses the next token of each request from what `execute_model` left."""
        state, self.execute_model_state = self.execute_model_state, None
        if state is None:
            return EMPTY_MODEL_RUNNER_OUTPUT
        with record_function_or_nullcontext("gpu_model_runner: sample"):
            sampler_output = self._sample(state.logits, None)
        with record_function_or_nullcontext("gpu_model_runner: bookkeep"):
            sampled = self._bookkeeping_sync(
                state.scheduler_output,
                sampler_output,
                state.logits,
                state.hidden_states,
                state.scheduler_output.total_num_scheduled_tokens,
            )
        return ModelRunnerOutput(self.input_batch.req_ids, self.input_batch.req_id_to_index, sampled)

    def _update_states(self, scheduler_output: SchedulerOutput) -> None:
        """Follows the scheduler: requests that ended, came, or got more blocks."""
        for req_id in scheduler_output.finished_req_ids:
            self.requests.pop(req_id, None)
        for new in scheduler_output.scheduled_new_reqs:
            prompt = new.prompt_token_ids
            self.requests[new.req_id] = CachedRequestState(
                new.req_id, list(prompt), list(new.block_ids[0]), new.num_computed_tokens, len(prompt)
            )
        cached = scheduler_output.scheduled_cached_reqs
        for index, req_id in enumerate(cached.req_ids):
            state = self.requests[req_id]
            state.num_computed_tokens = cached.num_computed_tokens[index]
            if req_id in cached.all_token_ids:
                state.token_ids = cached.all_token_ids[req_id]
            blocks = cached.new_block_ids[index]
            if req_id in cached.resumed_req_ids:
                state.block_ids = list(blocks[0])
            elif blocks is not None:
                state.block_ids.extend(blocks[0])
        self.input_batch.set(list(scheduler_output.num_scheduled_tokens))

    def _prepare_inputs(
        self, scheduler_output: SchedulerOutput, num_scheduled_tokens: list[int]
    ) -> tuple[list[int], None, int]:
        """For each request, where in the batch its last token stands."""
        ends, end = [], 0
        for count in num_scheduled_tokens:
            end += count
            ends.append(end - 1)
        return ends, None, 1

    def _build_attention_metadata(
        self,
        num_tokens: int,
        num_reqs: int,
        max_query_len: int,
        num_tokens_padded: int | None = None,
        num_reqs_padded: int | None = None,
        num_scheduled_tokens: dict[str, int] | None = None,
    ) -> tuple[list[tuple[int, int]], None]:
        """For each token: where the state before it is read (-1 at the beginning), and where its own is written."""
        slots = []
        for req_id, count in (num_scheduled_tokens or {}).items():
            state = self.requests[req_id]
            begin = state.num_computed_tokens
            before = self._slot(state, begin - 1) if begin else -1
            for position in range(begin, begin + count):
                own = self._slot(state, position)
                slots.append((before, own))
                before = own
        return slots, None

    def _slot(self, state: CachedRequestState, position: int) -> int:
        block, offset = divmod(position, self.block_size)
        return state.block_ids[block] * self.block_size + offset

    def _preprocess(
        self, scheduler_output: SchedulerOutput, num_input_tokens: int, intermediate_tensors: Any | None = None
    ) -> tuple[list[int], None, list[int], Any | None, dict[str, Any], None]:
        """The tokens of the batch, request after request, and their positions."""
        input_ids, positions = [], []
        for req_id, count in scheduler_output.num_scheduled_tokens.items():
            state = self.requests[req_id]
            begin = state.num_computed_tokens
            input_ids.extend(state.token_ids[begin : begin + count])
            positions.extend(range(begin, begin + count))
        return input_ids, None, positions, intermediate_tensors, {}, None

    def _model_forward(
        self,
        input_ids: list[int] | None = None,
        positions: list[int] | None = None,
        intermediate_tensors: Any | None = None,
        inputs_embeds: Any | None = None,
        **model_kwargs: Any,
    ) -> list[int]:
        """The model: the state after each token, and what the layers of experts make of it. Then it waits as long as a small model would compute."""
        self._run_on_device(len(input_ids), len(input_ids) == self.input_batch.num_reqs)
        cache, hidden = self.kv_cache, []
        for token, (before, own) in zip(input_ids, model_kwargs["slots"]):
            state = model.advance(cache[before] if before >= 0 else model.START, token)
            cache[own] = state
            hidden.append(model.signed(state))
        thoughts = torch.tensor(hidden)
        for layer in self.layers:
            thoughts = layer.forward(thoughts, thoughts)
        config = self.model_config
        time.sleep(config.forward_sec + config.forward_sec_per_token * len(input_ids))
        return [state & model.MASK for state in thoughts.numbers]

    def _run_on_device(self, num_tokens: int, uniform_decode: bool) -> None:
        """The kernels of the batch, where there is a driver. The graphs are captured late, so that a tracer that has
        come a second after the start can see it."""
        if not graph.available():
            return
        now = time.monotonic()
        if self.graphs_due is None:
            self.graphs_due = now + CAPTURE_AFTER
        if not self.cudagraph_dispatcher.keys_initialized and now >= self.graphs_due:
            self.capture_model()
        self._run_kernels(*self.cudagraph_dispatcher.dispatch(num_tokens, uniform_decode))
        graph.synchronize()

    def _sample(self, logits: list[int], spec_decode_metadata: Any | None) -> SamplerOutput:
        """The most likely token of each request."""
        vocabulary = self.model_config.vocab_size
        return SamplerOutput([[model.token(state, vocabulary)] for state in logits])

    def _bookkeeping_sync(
        self,
        scheduler_output: SchedulerOutput,
        sampler_output: SamplerOutput,
        logits: list[int],
        hidden_states: list[int],
        num_scheduled_tokens: int,
    ) -> list[list[int]]:
        """Notes the new tokens. A request whose prompt is not finished yet has none."""
        sampled = []
        for req_id, tokens in zip(self.input_batch.req_ids, sampler_output.sampled_token_ids):
            state = self.requests[req_id]
            done = state.num_computed_tokens + scheduler_output.num_scheduled_tokens[req_id]
            valid = tokens if done >= len(state.token_ids) else []
            state.token_ids.extend(valid)
            sampled.append(valid)
        return sampled
