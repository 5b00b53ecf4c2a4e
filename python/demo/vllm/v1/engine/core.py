"""The engine: a loop of schedule, execute, update, in a process of its own."""

from __future__ import annotations

import queue
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from profilemate_demo import process, truth
from vllm.config import VllmConfig
from vllm.v1.core.kv_cache_manager import KVCacheConfig
from vllm.v1.core.kv_cache_utils import get_request_block_hasher
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest, EngineCoreRequestType
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.request import Request, RequestStatus


class EngineCore:
    """Scheduler and workers together."""

    def __init__(self, vllm_config: VllmConfig, executor_class=MultiprocExecutor, log_stats: bool = True) -> None:
        self.vllm_config = vllm_config
        self.log_stats = log_stats
        self.model_executor = executor_class(vllm_config)
        cache = vllm_config.cache_config
        self.request_block_hasher = get_request_block_hasher(cache.block_size)
        self.scheduler = Scheduler(
            vllm_config,
            KVCacheConfig(cache.num_gpu_blocks, cache.block_size),
            block_size=cache.block_size,
            log_stats=log_stats,
        )
        self.aborts_queue: queue.Queue[list[str]] = queue.Queue()

    def add_request(self, request: Request, request_wave: int = 0) -> None:
        self.scheduler.add_request(request)

    def abort_requests(self, request_ids: list[str]) -> None:
        self.scheduler.finish_requests(request_ids, RequestStatus.FINISHED_ABORTED)

    def preprocess_add_request(self, request: EngineCoreRequest) -> tuple[Request, int]:
        return Request.from_engine_core_request(request, self.request_block_hasher), 0

    def step(self) -> tuple[dict[int, EngineCoreOutputs], bool]:
        """One step; returns what it gave, and whether the model ran."""
        if not self.scheduler.has_requests():
            return {}, False
        scheduler_output = self.scheduler.schedule()
        model_output = self.model_executor.execute_model(scheduler_output)
        if model_output is None:
            model_output = self.model_executor.sample_tokens(None)
        self._process_aborts_queue()
        outputs = self.scheduler.update_from_output(scheduler_output, model_output)
        return outputs, scheduler_output.total_num_scheduled_tokens > 0

    def _process_aborts_queue(self) -> None:
        while True:
            try:
                self.abort_requests(self.aborts_queue.get_nowait())
            except queue.Empty:
                return

    def shutdown(self) -> None:
        self.model_executor.shutdown()


class EngineCoreProc(EngineCore):
    """The engine with its two ends: requests come in by a thread, outputs go out."""

    def __init__(self, vllm_config: VllmConfig, connection: Connection) -> None:
        self.input_queue: queue.Queue[tuple[EngineCoreRequestType | None, Any]] = queue.Queue()
        self.connection = connection
        self.shutdown_requested = False
        super().__init__(vllm_config)
        reader = threading.Thread(target=self.process_input_sockets, name="input", daemon=True)
        reader.start()

    @staticmethod
    def run_engine_core(vllm_config: VllmConfig, connection: Connection) -> None:
        """Main function of the process."""
        process.begin("VLLM::EngineCore", vllm_config.deadline)
        truth.begin(vllm_config.truth_path)
        engine = None
        try:
            engine = EngineCoreProc(vllm_config, connection)
            connection.send(("ready", engine.model_executor.pids))
            engine.run_busy_loop()
        except (BrokenPipeError, ConnectionResetError, EOFError):
            pass  # The front end has gone.
        finally:
            truth.end()
            if engine is not None:
                engine.shutdown()

    def process_input_sockets(self) -> None:
        """Reads requests until the front end closes or goes."""
        while True:
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                message = (None, None)
            if message[0] is EngineCoreRequestType.ABORT:
                self.aborts_queue.put(message[1])
            self.input_queue.put(message)
            if message[0] is None:
                return

    def run_busy_loop(self) -> None:
        """Steps until told to stop."""
        while self._handle_shutdown():
            self._process_input_queue()
            self._process_engine_step()
        raise SystemExit(0)

    def _handle_shutdown(self) -> bool:
        return not self.shutdown_requested

    def _process_input_queue(self) -> None:
        """Takes over what has come in; waits only if there is nothing to do."""
        while not self.shutdown_requested:
            try:
                self._handle_client_request(*self.input_queue.get(block=not self.scheduler.has_requests()))
            except queue.Empty:
                return

    def _handle_client_request(self, request_type: EngineCoreRequestType | None, request: Any) -> None:
        if request_type is EngineCoreRequestType.ADD:
            self.add_request(*self.preprocess_add_request(request))
        elif request_type is EngineCoreRequestType.ABORT:
            self._process_aborts_queue()
        else:
            self.shutdown_requested = True

    def _process_engine_step(self) -> bool:
        outputs, executed = self.step()
        for client, output in outputs.items():
            output.timestamp = time.monotonic()
            self.connection.send((client, output))
        return executed
