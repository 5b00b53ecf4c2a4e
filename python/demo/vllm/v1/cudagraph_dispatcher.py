"""Decides which graph a batch runs with."""

from __future__ import annotations

from vllm.config import CUDAGraphMode, VllmConfig
from vllm.forward_context import BatchDescriptor


class CudagraphDispatcher:
    """Full graphs for batches that only decode, pieces for the others, none for large ones."""

    def __init__(self, vllm_config: VllmConfig) -> None:
        self.vllm_config = vllm_config
        self.compilation_config = vllm_config.compilation_config
        self.cudagraph_mode = CUDAGraphMode.NONE
        self.keys_initialized = False

    def initialize_cudagraph_keys(self, cudagraph_mode: CUDAGraphMode) -> None:
        self.cudagraph_mode = cudagraph_mode
        self.keys_initialized = True

    def dispatch(
        self,
        num_tokens: int,
        uniform_decode: bool = False,
        has_lora: bool = False,
        num_active_loras: int = 0,
        valid_modes: set[CUDAGraphMode] | None = None,
        invalid_modes: set[CUDAGraphMode] | None = None,
    ) -> tuple[CUDAGraphMode, BatchDescriptor]:
        sizes = self.compilation_config.cudagraph_capture_sizes
        padded = next((size for size in sizes if size >= num_tokens), None)
        if self.cudagraph_mode == CUDAGraphMode.NONE or padded is None:
            return CUDAGraphMode.NONE, BatchDescriptor(num_tokens)
        if uniform_decode and padded <= self.vllm_config.scheduler_config.max_num_seqs:
            return CUDAGraphMode.FULL, BatchDescriptor(padded, padded, True)
        return CUDAGraphMode.PIECEWISE, BatchDescriptor(padded)
