"""Decides, step by step, which requests get how many tokens."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from profilemate_demo import truth
from vllm.config import VllmConfig
from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
from vllm.v1.core.kv_cache_manager import KVCacheBlocks, KVCacheConfig, KVCacheManager
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.core.sched.request_queue import SchedulingPolicy, create_request_queue
from vllm.v1.engine import EngineCoreEventType, EngineCoreOutput, EngineCoreOutputs, SchedulerStats
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.utils import record_function_or_nullcontext


@dataclass
class _Step:
    """A step while it is being put together."""

    budget: int
    timestamp: float
    tokens: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, KVCacheBlocks] = field(default_factory=dict)
    running: list[Request] = field(default_factory=list)
    new: list[Request] = field(default_factory=list)
    resumed: list[Request] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    encoder_budget: int = 0
    encoder_inputs: dict[str, list[int]] = field(default_factory=dict)

    def take(self, request: Request, tokens: int, blocks: KVCacheBlocks) -> None:
        self.tokens[request.request_id] = tokens
        self.blocks[request.request_id] = blocks
        self.budget -= tokens


class Scheduler:
    """Continuous batching: running requests first, then waiting ones, within a budget of tokens.

    Prompts longer than the budget are computed in chunks. If a running request finds no block, the youngest running
    request loses its blocks and has to be computed again.
    """

    def __init__(
        self,
        vllm_config: VllmConfig,
        kv_cache_config: KVCacheConfig,
        structured_output_manager: Any = None,
        block_size: int = 16,
        log_stats: bool = True,
    ) -> None:
        self.vllm_config = vllm_config
        self.scheduler_config = vllm_config.scheduler_config
        self.cache_config = vllm_config.cache_config
        self.lora_config = None
        self.model_uses_mrope = False
        self.kv_cache_config = kv_cache_config
        self.kv_events_config = None
        self.parallel_config = vllm_config.parallel_config
        self.log_stats = log_stats
        self.kv_metrics_collector = None
        self.structured_output_manager = structured_output_manager
        self.is_encoder_decoder = False
        self.finished_req_ids_dict = None
        self.prev_step_scheduled_req_ids: set[str] = set()
        limits = vllm_config.scheduler_config
        self.max_num_running_reqs = limits.max_num_seqs
        self.max_num_active_reqs = limits.max_num_active_seqs or limits.max_num_seqs
        self.max_num_scheduled_tokens = limits.max_num_scheduled_tokens or limits.max_num_batched_tokens
        self.max_model_len = vllm_config.model_config.max_model_len
        self.enable_kv_cache_events = False
        self.num_sampled_tokens_per_step = 1
        self.connector = None
        self.defer_block_free = False
        self.ec_connector = None
        self.block_size = block_size
        self.dcp_world_size = 1
        self.pcp_world_size = 1
        self.requests: dict[str, Request] = {}
        self.policy = SchedulingPolicy(limits.policy)
        self.waiting = create_request_queue(self.policy)
        self.kv_holding_waiting = create_request_queue(self.policy)
        self.deferred_waiting: set[Request] = set()
        self.running: list[Request] = []
        self.finished_req_ids: set[str] = set()
        self.reset_preempted_req_ids: set[str] = set()
        self.num_waiting_for_streaming_input = 0
        self.max_num_encoder_input_tokens = limits.max_num_encoder_input_tokens
        self.encoder_cache_manager = EncoderCacheManager(cache_size=limits.encoder_cache_size)
        self.num_spec_tokens = 0
        self.num_lookahead_tokens = 0
        self.hash_block_size = block_size
        self.kv_cache_manager = KVCacheManager(
            kv_cache_config=kv_cache_config,
            max_model_len=self.max_model_len,
            scheduler_block_size=block_size,
            hash_block_size=block_size,
            enable_caching=self.cache_config.enable_prefix_caching,
            log_stats=log_stats,
        )

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """Puts the next step together."""
        began = time.perf_counter_ns()
        step = _Step(budget=self.max_num_scheduled_tokens, timestamp=time.monotonic())
        step.encoder_budget = self.max_num_encoder_input_tokens
        self._schedule_running(step)
        # Requests that were just thrown out are not taken back in the same step.
        if not step.preempted and not throttle_prefills:
            self._schedule_waiting(step)
        output = self._make_output(step)
        with record_function_or_nullcontext("schedule: update_after_schedule"):
            self._update_after_schedule(output)
        if truth.enabled:
            truth.schedule(self, output, time.perf_counter_ns() - began)
        return output

    def _schedule_running(self, step: _Step) -> None:
        index = 0
        while index < len(self.running) and step.budget > 0:
            request = self.running[index]
            tokens = min(request.num_tokens - request.num_computed_tokens, step.budget)
            inputs, tokens = self._try_schedule_encoder_inputs(request, request.num_computed_tokens, tokens, step)
            if tokens == 0:
                # It waits for room for a picture.
                index += 1
                continue
            with record_function_or_nullcontext("schedule: allocate_slots"):
                blocks = self._allocate_or_preempt(request, tokens, step)
            if blocks is None:
                # The request itself was the youngest, and is gone.
                break
            step.running.append(request)
            step.take(request, tokens, blocks)
            self._allocate_encoder_inputs(request, inputs, step)
            index += 1

    def _allocate_or_preempt(self, request: Request, tokens: int, step: _Step) -> KVCacheBlocks | None:
        while (blocks := self.kv_cache_manager.allocate_slots(request, tokens)) is None:
            victim = self.running.pop()
            self._preempt_request(victim, step.timestamp)
            step.preempted.append(victim)
            if victim is request:
                return None
        return blocks

    def _schedule_waiting(self, step: _Step) -> None:
        while self.waiting and step.budget > 0 and len(self.running) < self.max_num_running_reqs:
            request = self.waiting.peek_request()
            hits, hit_tokens, _ = self.kv_cache_manager.get_computed_blocks(request)
            tokens = min(request.num_tokens - hit_tokens, step.budget)
            inputs, tokens = self._try_schedule_encoder_inputs(request, hit_tokens, tokens, step)
            if tokens == 0:
                break
            blocks = self.kv_cache_manager.allocate_slots(request, tokens, hit_tokens, hits)
            if blocks is None:
                self.encoder_cache_manager.free(request)
                break
            self.waiting.pop_request()
            self.running.append(request)
            (step.resumed if request.status == RequestStatus.PREEMPTED else step.new).append(request)
            request.status = RequestStatus.RUNNING
            request.num_computed_tokens = hit_tokens
            if self.log_stats:
                request.record_event(EngineCoreEventType.SCHEDULED, step.timestamp)
            # A new request's message names all its blocks, hits included.
            step.take(request, tokens, self.kv_cache_manager.get_blocks(request.request_id))
            self._allocate_encoder_inputs(request, inputs, step)

    def _try_schedule_encoder_inputs(
        self, request: Request, num_computed_tokens: int, num_new_tokens: int, step: _Step
    ) -> tuple[list[int], int]:
        """Pictures that the next tokens need and that are not encoded, and how many tokens there are before the first
        one that finds no room."""
        inputs, embeds = [], 0
        for input_id, feature in enumerate(request.mm_features):
            begin, length = feature.mm_position.offset, feature.mm_position.length
            if begin >= num_computed_tokens + num_new_tokens or begin + length <= num_computed_tokens:
                continue
            if input_id in self.encoder_cache_manager.get_cached_input_ids(request):
                continue
            if self.encoder_cache_manager.check_and_update_cache(request, input_id):
                continue
            fits = embeds + length <= step.encoder_budget
            if not fits or not self.encoder_cache_manager.can_allocate(request, input_id, embeds):
                return inputs, max(0, begin - num_computed_tokens)
            embeds += length
            inputs.append(input_id)
        return inputs, num_new_tokens

    def _allocate_encoder_inputs(self, request: Request, inputs: list[int], step: _Step) -> None:
        for input_id in inputs:
            self.encoder_cache_manager.allocate(request, input_id)
            step.encoder_budget -= request.get_num_encoder_embeds(input_id)
        if inputs:
            step.encoder_inputs[request.request_id] = inputs

    def _make_output(self, step: _Step) -> SchedulerOutput:
        new = [NewRequestData.from_request(r, step.blocks[r.request_id].get_block_ids()) for r in step.new]
        with record_function_or_nullcontext("schedule: make_cached_request_data"):
            cached = self._make_cached_request_data(step)
        self.prev_step_scheduled_req_ids = set(step.tokens)
        return SchedulerOutput(
            scheduled_new_reqs=new,
            scheduled_cached_reqs=cached,
            num_scheduled_tokens=step.tokens,
            total_num_scheduled_tokens=sum(step.tokens.values()),
            scheduled_spec_decode_tokens={},
            scheduled_encoder_inputs=step.encoder_inputs,
            finished_req_ids=self.finished_req_ids,
            free_encoder_mm_hashes=self.encoder_cache_manager.get_freed_mm_hashes(),
            preempted_req_ids=self.reset_preempted_req_ids,
            num_common_prefix_blocks=[0],
        )

    def _make_cached_request_data(self, step: _Step) -> CachedRequestData:
        data = CachedRequestData.make_empty()
        for request in step.running + step.resumed:
            req_id = request.request_id
            data.req_ids.append(req_id)
            if req_id not in self.prev_step_scheduled_req_ids:
                data.all_token_ids[req_id] = request.all_token_ids.copy()
            data.new_block_ids.append(step.blocks[req_id].get_block_ids(allow_none=True))
            data.num_computed_tokens.append(request.num_computed_tokens)
            data.num_output_tokens.append(request.num_output_tokens)
        data.resumed_req_ids = {request.request_id for request in step.resumed}
        return data

    def _preempt_request(self, request: Request, timestamp: float, drop_stale_output: bool = False) -> None:
        """Takes a running request's blocks away and puts it in front of the queue. It starts over."""
        self.kv_cache_manager.free(request)
        self.encoder_cache_manager.free(request)
        request.status = RequestStatus.PREEMPTED
        request.num_computed_tokens = 0
        request.drop_stale_output = drop_stale_output
        request.num_preemptions += 1
        if self.log_stats:
            request.record_event(EngineCoreEventType.PREEMPTED, timestamp)
        self.waiting.prepend_request(request)
        self.reset_preempted_req_ids.add(request.request_id)
        if truth.enabled:
            truth.preempt(request)

    def _update_after_schedule(self, scheduler_output: SchedulerOutput) -> None:
        """Counts the step's tokens as computed, and starts new lists of what ended."""
        for req_id, tokens in scheduler_output.num_scheduled_tokens.items():
            request = self.requests[req_id]
            request.num_computed_tokens += tokens
            request.num_in_flight_tokens += tokens
            request.is_prefill_chunk = request.num_computed_tokens < request.num_tokens
        # New sets, because the output holds the old ones.
        self.finished_req_ids = set()
        self.reset_preempted_req_ids = set()

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """Takes over the tokens of a step, and ends the requests that are done."""
        outputs: dict[int, EngineCoreOutputs] = defaultdict(EngineCoreOutputs)
        ended: set[str] = set()
        for req_id, tokens in scheduler_output.num_scheduled_tokens.items():
            request = self.requests.get(req_id)
            if request is None:
                continue  # Aborted while the step ran.
            request.num_in_flight_tokens -= tokens
            self._free_encoder_inputs(request)
            index = model_runner_output.req_id_to_index[req_id]
            new_tokens = model_runner_output.sampled_token_ids[index]
            if not new_tokens:
                continue
            request.append_output_token_ids(new_tokens)
            if request.num_output_tokens >= request.max_tokens:
                request.status = RequestStatus.FINISHED_LENGTH_CAPPED
                ended.add(req_id)
                self._free_request(request)
            outputs[request.client_index].outputs.append(
                EngineCoreOutput(req_id, new_tokens, request.get_finished_reason(), request.stop_reason)
            )
        if ended:
            self.running = [request for request in self.running if request.request_id not in ended]
        if self.log_stats:
            stats = self.make_stats()
            for client in outputs.values():
                client.scheduler_stats = stats
        return outputs

    def _free_encoder_inputs(self, request: Request) -> None:
        """Lets go of pictures whose tokens are computed."""
        for input_id in list(self.encoder_cache_manager.get_cached_input_ids(request)):
            place = request.mm_features[input_id].mm_position
            if place.offset + place.length <= request.num_computed_tokens:
                self.encoder_cache_manager.free_encoder_input(request, input_id)

    def get_request_counts(self) -> tuple[int, int]:
        """Running and waiting requests."""
        return len(self.running), len(self.waiting) + len(self.kv_holding_waiting)

    def make_stats(self) -> SchedulerStats:
        """The state of queues and memory."""
        return SchedulerStats(*self.get_request_counts(), kv_cache_usage=self.kv_cache_manager.usage)

    def add_request(self, request: Request) -> None:
        """Queues a request."""
        if request.request_id in self.requests:
            raise ValueError(f"request {request.request_id} is there already")
        self.waiting.add_request(request)
        self.requests[request.request_id] = request
        if self.log_stats:
            request.record_event(EngineCoreEventType.QUEUED)

    def finish_requests(
        self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus
    ) -> list[Request]:
        """Ends requests from outside, as when a client hangs up. Unknown ones are passed over."""
        if isinstance(request_ids, str):
            request_ids = [request_ids]
        wanted = list(self.requests) if request_ids is None else list(request_ids)
        found = [self.requests[req_id] for req_id in wanted if req_id in self.requests]
        self.running = [request for request in self.running if request not in found]
        self.waiting.remove_requests(found)
        for request in found:
            request.status = finished_status
            self._free_request(request)
        return found

    def _free_request(self, request: Request, delay_free_blocks: bool = False) -> tuple[None, None]:
        """Forgets a request that has ended."""
        self.finished_req_ids.add(request.request_id)
        self.encoder_cache_manager.free(request)
        if truth.enabled:
            truth.finish(request)
        if not delay_free_blocks:
            self._free_blocks(request)
        return None, None

    def _free_blocks(self, request: Request) -> None:
        self.kv_cache_manager.free(request)
        del self.requests[request.request_id]

    def has_requests(self) -> bool:
        """Whether there is anything to do, or to tell the workers."""
        return bool(self.requests) or bool(self.finished_req_ids)
