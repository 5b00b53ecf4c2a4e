"""Captures what the model does for one size of batch, and replays it for every batch of that size."""

from __future__ import annotations

from typing import Any, Callable

from profilemate_demo.graph import Graph
from vllm import forward_context as context
from vllm.config import CUDAGraphMode, VllmConfig


class CUDAGraphWrapper:
    """One for the model as a whole (`FULL`), and one for each piece of it (`PIECEWISE`)."""

    def __init__(self, runnable: Callable[..., Any], vllm_config: VllmConfig, runtime_mode: CUDAGraphMode) -> None:
        self.runnable = runnable
        self.vllm_config = vllm_config
        self.runtime_mode = runtime_mode
        self.concrete_cudagraph_entries: dict[context.BatchDescriptor, Graph] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward_context = context.get_forward_context()
        if forward_context.cudagraph_runtime_mode != self.runtime_mode:
            return self.runnable(*args, **kwargs)
        descriptor = forward_context.batch_descriptor
        graph = self.concrete_cudagraph_entries.get(descriptor)
        if graph is not None:
            graph.replay()
            return None
        with Graph() as graph:
            output = self.runnable(*args, **kwargs)
        self.concrete_cudagraph_entries[descriptor] = graph
        return output
