"""A request as the scheduler keeps it."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import Any

from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreEvent, EngineCoreEventType, EngineCoreRequest, FinishReason
from vllm.v1.utils import ConstantList


class RequestStatus(enum.IntEnum):
    """Where a request stands; everything after `PREEMPTED` is an end."""

    WAITING = 1
    WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR = 2
    WAITING_FOR_REMOTE_KVS = 3
    WAITING_FOR_STREAMING_REQ = 4
    RUNNING = 5
    PREEMPTED = 6
    FINISHED_STOPPED = 7
    FINISHED_LENGTH_CAPPED = 8
    FINISHED_ABORTED = 9
    FINISHED_IGNORED = 10
    FINISHED_ERROR = 11
    FINISHED_REPETITION = 12

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def is_finished(status: RequestStatus) -> bool:
        return status > RequestStatus.PREEMPTED

    @staticmethod
    def get_finished_reason(status: RequestStatus) -> FinishReason | None:
        return _REASONS.get(status)


_REASONS = {
    RequestStatus.FINISHED_STOPPED: FinishReason.STOP,
    RequestStatus.FINISHED_LENGTH_CAPPED: FinishReason.LENGTH,
    RequestStatus.FINISHED_ABORTED: FinishReason.ABORT,
    RequestStatus.FINISHED_IGNORED: FinishReason.LENGTH,
    RequestStatus.FINISHED_ERROR: FinishReason.ERROR,
    RequestStatus.FINISHED_REPETITION: FinishReason.REPETITION,
}


class Request:
    """Tokens, progress and status of one request.

    Many attributes never change here; they are present because a tracer sees a dictionary of this size and order
    in the real thing.
    """

    def __init__(
        self,
        request_id: str,
        prompt_token_ids: list[int] | None,
        sampling_params: SamplingParams | None,
        pooling_params: Any | None = None,
        client_index: int = 0,
        arrival_time: float | None = None,
        cache_salt: str | None = None,
        priority: int = 0,
        block_hasher: Callable[[Request], list[bytes]] | None = None,
        mm_features: list[MultiModalFeatureSpec] | None = None,
    ) -> None:
        if sampling_params is None or sampling_params.max_tokens is None:
            raise ValueError("a request needs sampling parameters with max_tokens")
        self.request_id = request_id
        self.client_index = client_index
        self.priority = priority
        self.sampling_params = sampling_params
        self.pooling_params = pooling_params
        self.lora_request = None
        self.structured_output_request = None
        self.arrival_time = time.time() if arrival_time is None else arrival_time
        self.status = RequestStatus.WAITING
        self.events: list[EngineCoreEvent] = []
        self.stop_reason: int | str | None = None
        self.kv_transfer_params = None
        self.ec_transfer_params = None
        self.max_tokens = sampling_params.max_tokens
        self.kv_cache_report_mode = "incremental"
        self.prompt_token_ids = prompt_token_ids
        self.prompt_embeds = None
        self.prompt_is_token_ids = None
        self._prompt_embeds_per_block_hashes: dict = {}
        self.num_prompt_tokens = len(prompt_token_ids or ())
        self._output_token_ids: list[int] = []
        self._all_token_ids: list[int] = list(prompt_token_ids or ())
        self._set_progress()
        self.cache_salt = cache_salt
        self.mm_features = list(mm_features or ())
        self.output_token_ids = ConstantList(self._output_token_ids)
        self.all_token_ids = ConstantList(self._all_token_ids)
        self.trace_headers = None
        self.session_id = None
        self.kv_hints = None
        self.is_prefill_chunk = False
        self.shared_prefix_boundary = 0
        self.replay_start = 0
        self.num_nans_in_logits = 0
        self.num_preemptions = 0
        self.prefill_stats = None
        self.spec_decode_metrics = None
        self.block_hashes: list[bytes] = []
        self._block_hasher = block_hasher
        self.update_block_hashes()
        self.skip_reading_prefix_cache = bool(sampling_params.skip_reading_prefix_cache)
        self.resumable = False
        self.streaming_queue = None
        self.abort_immediately = False

    def _set_progress(self) -> None:
        self.num_output_placeholders = 0
        self.num_stale_output_tokens = 0
        self.drop_stale_output = False
        self.num_in_flight_tokens = 0
        self.next_decode_eligible_step = 0
        self.last_sched_seq = 0
        self.spec_token_ids: list[int] = []
        self.num_computed_tokens = 0

    @classmethod
    def from_engine_core_request(cls, request: EngineCoreRequest, block_hasher) -> Request:
        return cls(
            request_id=request.request_id,
            prompt_token_ids=request.prompt_token_ids,
            sampling_params=request.sampling_params,
            client_index=request.client_index,
            arrival_time=request.arrival_time,
            cache_salt=request.cache_salt,
            priority=request.priority,
            block_hasher=block_hasher,
            mm_features=request.mm_features,
        )

    def append_output_token_ids(self, token_ids: int | list[int]) -> None:
        """Takes over newly made tokens."""
        tokens = [token_ids] if isinstance(token_ids, int) else token_ids
        self._output_token_ids.extend(tokens)
        self._all_token_ids.extend(tokens)
        self.update_block_hashes()

    def update_block_hashes(self) -> None:
        """Hashes the blocks that have become full."""
        if self._block_hasher is not None:
            self.block_hashes.extend(self._block_hasher(self))

    @property
    def num_tokens(self) -> int:
        return len(self._all_token_ids)

    @property
    def num_tokens_with_spec(self) -> int:
        return len(self._all_token_ids) + len(self.spec_token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self._output_token_ids)

    @property
    def has_encoder_inputs(self) -> bool:
        return bool(self.mm_features)

    def get_num_encoder_embeds(self, input_id: int) -> int:
        return self.mm_features[input_id].mm_position.length

    def is_finished(self) -> bool:
        return RequestStatus.is_finished(self.status)

    def get_finished_reason(self) -> FinishReason | None:
        return RequestStatus.get_finished_reason(self.status)

    def record_event(self, event_type: EngineCoreEventType, timestamp: float | None = None) -> None:
        self.events.append(EngineCoreEvent.new_event(event_type, timestamp))
