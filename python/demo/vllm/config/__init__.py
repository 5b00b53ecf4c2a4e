"""Settings, as far as the stand-in has them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class CUDAGraphMode(enum.Enum):
    """How much of a forward pass is a graph."""

    NONE = 0
    PIECEWISE = 1
    FULL = 2
    FULL_AND_PIECEWISE = (2, 1)


@dataclass
class CompilationConfig:
    """Sizes for which graphs are captured."""

    cudagraph_capture_sizes: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32])
    max_cudagraph_capture_size: int = 32
    # Pieces of the toy model between two attention layers.
    pieces: int = 3


@dataclass
class ModelArchitectureConfig:
    """What the toy model is made of."""

    num_experts: int = 8


@dataclass
class ModelConfig:
    """The toy model."""

    max_model_len: int = 512
    vocab_size: int = 32000
    seed: int = 0
    # Shape of the pretended forward pass: seconds for a batch, and for each token on top.
    forward_sec: float = 0.001
    forward_sec_per_token: float = 0.000005
    uses_mrope: bool = False
    is_encoder_decoder: bool = False
    runner_type: str = "generate"
    model_arch_config: ModelArchitectureConfig = field(default_factory=ModelArchitectureConfig)


@dataclass
class CacheConfig:
    """The paged key-value memory."""

    block_size: int = 16
    num_gpu_blocks: int = 64
    enable_prefix_caching: bool = True


@dataclass
class SchedulerConfig:
    """Limits of one step."""

    max_num_seqs: int = 8
    max_num_batched_tokens: int = 64
    max_num_scheduled_tokens: int | None = None
    max_num_active_seqs: int | None = None
    policy: str = "fcfs"
    async_scheduling: bool = False


@dataclass
class ParallelConfig:
    """How many worker processes."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    data_parallel_index: int = 0

    @property
    def world_size(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass
class VllmConfig:
    """All settings together; travels to the child processes."""

    model_config: ModelConfig = field(default_factory=ModelConfig)
    cache_config: CacheConfig = field(default_factory=CacheConfig)
    scheduler_config: SchedulerConfig = field(default_factory=SchedulerConfig)
    parallel_config: ParallelConfig = field(default_factory=ParallelConfig)
    compilation_config: CompilationConfig = field(default_factory=CompilationConfig)
    # Where true values are written, if anywhere; see `profilemate_demo.truth`.
    truth_path: str | None = None
    # CLOCK_MONOTONIC, seconds: every process ends by then, whatever happens.
    deadline: float = 0.0
