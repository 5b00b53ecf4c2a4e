"""Workers in processes of their own, driven over pipes."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

from profilemate_demo import process, truth
from vllm.config import VllmConfig
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.worker.gpu_worker import Worker


class MultiprocExecutor:
    """Starts the workers and calls their methods; the first worker's answer is the answer."""

    def __init__(self, vllm_config: VllmConfig, monitor_workers: bool = True) -> None:
        self.vllm_config = vllm_config
        self.world_size = vllm_config.parallel_config.world_size
        self.output_rank = 0
        self._init_executor()

    def _init_executor(self) -> None:
        self.workers = [WorkerProc.make_worker_process(self.vllm_config, rank) for rank in range(self.world_size)]
        self.pids = [connection.recv() for _, connection in self.workers]

    def execute_model(self, scheduler_output: SchedulerOutput, non_block: bool = False) -> ModelRunnerOutput | None:
        return self.collective_rpc("execute_model", args=(scheduler_output,))[self.output_rank]

    def sample_tokens(
        self, grammar_output: GrammarOutput | None, non_block: bool = False
    ) -> ModelRunnerOutput | None:
        return self.collective_rpc("sample_tokens", args=(grammar_output,))[self.output_rank]

    def collective_rpc(self, method: str, args: tuple = (), kwargs: dict | None = None) -> list[Any]:
        """Calls a method on all workers, which run at the same time, and gathers the results."""
        for _, connection in self.workers:
            connection.send((method, args, kwargs or {}))
        results = []
        for _, connection in self.workers:
            ok, result = connection.recv()
            if not ok:
                raise RuntimeError(f"a worker failed: {result}")
            results.append(result)
        return results

    def shutdown(self) -> None:
        """Ends the workers: by closing the pipe, and by force if that does not help."""
        for _, connection in self.workers:
            connection.close()
        for child, _ in self.workers:
            process.join_or_kill(child, seconds=2.0)


class WorkerProc:
    """A worker's process."""

    def __init__(self, vllm_config: VllmConfig, rank: int, connection: Connection) -> None:
        self.rank = rank
        self.connection = connection
        self.worker = Worker(vllm_config, local_rank=rank, rank=rank)
        self.worker.init_device()
        self.worker.load_model()

    @staticmethod
    def make_worker_process(vllm_config: VllmConfig, rank: int):
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child = context.Process(
            target=WorkerProc.worker_main, args=(vllm_config, rank, theirs), name=f"VllmWorker-{rank}", daemon=True
        )
        child.start()
        theirs.close()
        return child, ours

    @staticmethod
    def worker_main(vllm_config: VllmConfig, rank: int, connection: Connection) -> None:
        """Main function of the process."""
        single = vllm_config.parallel_config.world_size == 1
        process.begin("VLLM::Worker" if single else f"VLLM::Worker_TP{rank}", vllm_config.deadline)
        truth.begin(vllm_config.truth_path)
        try:
            worker = WorkerProc(vllm_config, rank, connection)
            connection.send(process.pid())
            worker.worker_busy_loop()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # The engine has gone.
        finally:
            truth.end()

    def worker_busy_loop(self) -> None:
        """Answers calls until the engine closes the pipe."""
        while True:
            method, args, kwargs = self.connection.recv()
            try:
                answer = (True, getattr(self.worker, method)(*args, **kwargs))
            except Exception as error:
                answer = (False, repr(error))
            self.connection.send(answer)
