"""What the model's parts know of the batch that they run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator

from vllm.config import CUDAGraphMode


@dataclass(frozen=True)
class BatchDescriptor:
    """Sizes that a graph is made for."""

    num_tokens: int
    num_reqs: int | None = None
    uniform: bool = False
    has_lora: bool = False
    num_active_loras: int = 0


@dataclass
class ForwardContext:
    """Of one forward pass."""

    cudagraph_runtime_mode: CUDAGraphMode = CUDAGraphMode.NONE
    batch_descriptor: BatchDescriptor | None = None


_forward_context: ForwardContext | None = None


def get_forward_context() -> ForwardContext:
    return _forward_context


@contextmanager
def set_forward_context(mode: CUDAGraphMode, descriptor: BatchDescriptor | None) -> Iterator[None]:
    global _forward_context
    before, _forward_context = _forward_context, ForwardContext(mode, descriptor)
    try:
        yield
    finally:
        _forward_context = before
