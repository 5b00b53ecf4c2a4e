"""What a client asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class SamplingParams:
    """Sampling is greedy here, so only the length counts."""

    max_tokens: int | None = 16
    min_tokens: int = 0
    temperature: float = 0.0
    stop_token_ids: list[int] = field(default_factory=list)
    skip_reading_prefix_cache: bool | None = None
    extra_args: dict[str, Any] | None = None
