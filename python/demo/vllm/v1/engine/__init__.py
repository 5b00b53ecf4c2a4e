"""Messages between the front end and the engine."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field
from typing import Any

from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.sampling_params import SamplingParams


class FinishReason(enum.IntEnum):
    """Why a request ended."""

    STOP = 0
    LENGTH = 1
    ABORT = 2
    ERROR = 3
    REPETITION = 4

    def __str__(self) -> str:
        return self.name.lower()


class EngineCoreEventType(enum.IntEnum):
    """Moments in the life of a request."""

    QUEUED = 1
    SCHEDULED = 2
    PREEMPTED = 3


@dataclass
class EngineCoreEvent:
    """One such moment, on the monotonic clock."""

    type: EngineCoreEventType
    timestamp: float

    @classmethod
    def new_event(cls, event_type: EngineCoreEventType, timestamp: float | None = None):
        return cls(event_type, time.monotonic() if timestamp is None else timestamp)


class EngineCoreRequestType(enum.Enum):
    """First word of a message to the engine."""

    ADD = b"\x00"
    ABORT = b"\x01"
    UTILITY = b"\x03"


@dataclass
class EngineCoreRequest:
    """A request as the front end sends it."""

    request_id: str
    prompt_token_ids: list[int]
    sampling_params: SamplingParams | None
    arrival_time: float
    client_index: int = 0
    priority: int = 0
    cache_salt: str | None = None
    mm_features: list[MultiModalFeatureSpec] = field(default_factory=list)


@dataclass
class EngineCoreOutput:
    """New tokens of one request."""

    request_id: str
    new_token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    num_cached_tokens: int = 0


@dataclass
class SchedulerStats:
    """Queues and memory after a step."""

    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    kv_cache_usage: float = 0.0


@dataclass
class EngineCoreOutputs:
    """Everything that one step gives one client."""

    engine_index: int = 0
    outputs: list[EngineCoreOutput] = field(default_factory=list)
    scheduler_stats: SchedulerStats | None = None
    timestamp: float = 0.0
    utility_output: Any = None
