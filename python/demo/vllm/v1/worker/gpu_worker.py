"""A worker: one model runner."""

from __future__ import annotations

from profilemate_demo.inference import inference_mode
from vllm.config import VllmConfig
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.worker.gpu_model_runner import GPUModelRunner


class Worker:
    """Owns a device, which here is none, and the model runner on it."""

    def __init__(self, vllm_config: VllmConfig, local_rank: int, rank: int, is_driver_worker: bool = False) -> None:
        self.vllm_config = vllm_config
        self.local_rank = local_rank
        self.rank = rank
        self.is_driver_worker = is_driver_worker
        self.model_runner: GPUModelRunner | None = None

    def init_device(self) -> None:
        self.model_runner = GPUModelRunner(self.vllm_config, device=None)

    def load_model(self) -> None:
        self.model_runner.load_model()

    @inference_mode()
    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput | None:
        return self.model_runner.execute_model(scheduler_output, None)

    @inference_mode()
    def sample_tokens(self, grammar_output: GrammarOutput | None) -> ModelRunnerOutput:
        return self.model_runner.sample_tokens(grammar_output)
