"""What a worker keeps of the requests in its batch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class CachedRequestState:
    """One request: its tokens and its blocks."""

    req_id: str
    token_ids: list[int]
    block_ids: list[int]
    num_computed_tokens: int
    num_prompt_tokens: int
    mm_features: list = field(default_factory=list)


class InputBatch:
    """The requests of the current step, in the scheduler's order."""

    def __init__(self, max_num_reqs: int) -> None:
        self.max_num_reqs = max_num_reqs
        self.req_ids: list[str] = []
        self.req_id_to_index: dict[str, int] = {}

    @property
    def num_reqs(self) -> int:
        return len(self.req_ids)

    def set(self, req_ids: list[str]) -> None:
        self.req_ids = req_ids
        self.req_id_to_index = {req_id: index for index, req_id in enumerate(req_ids)}
