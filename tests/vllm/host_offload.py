"""vLLM's own offloading connector without a GPU: its scheduler side and its second block pool are real, and the worker
side copies blocks at once, between tensors in host memory, in the place of transfers on CUDA streams.
"""
import torch
from vllm.distributed.kv_transfer.kv_connector.v1 import simple_cpu_offload_connector as offload
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.v1.simple_kv_offload.worker import SimpleCPUOffloadWorker


class Done:
    """The event of a copy that has happened."""

    def query(self):
        return True

    def synchronize(self):
        pass


class CopyNow:
    """In the place of the backend whose copies are asynchronous."""

    def __init__(self, near, far):
        self.near, self.far = near, far

    def launch_copy(self, sources, targets, is_store, event_idx, events_list, **_):
        for name, near in self.near.items():
            origin, target = (near, self.far[name]) if is_store else (self.far[name], near)
            target[torch.tensor(targets)] = origin[torch.tensor(sources)]
        events_list.append((event_idx, Done()))


class NoStream:
    """In the place of a CUDA stream."""

    def __init__(self, *_, **__):
        pass

    @staticmethod
    def priority_range():
        return 0, 0


class HostWorker(SimpleCPUOffloadWorker):
    def register_kv_caches(self, kv_caches):
        stream, torch.cuda.Stream = torch.cuda.Stream, NoStream
        try:
            super().register_kv_caches(kv_caches)
        finally:
            torch.cuda.Stream = stream

    def _init_cpu_mode(self, near, *_):
        self.cpu_kv_caches = {
            name: torch.zeros((self.num_cpu_blocks,) + tensor.shape[1:], dtype=tensor.dtype)
            for name, tensor in near.items()}
        self._backend = CopyNow(near, self.cpu_kv_caches)

    def wait_for_save(self):
        step = self._connector_metadata
        if step is not None and step.store_gpu_blocks:
            self._backend.launch_copy(step.store_gpu_blocks, step.store_cpu_blocks, is_store=True,
                                      event_idx=step.store_event, events_list=self._store_events)


class HostOffload(offload.SimpleCPUOffloadConnector):
    def __init__(self, vllm_config, role, kv_cache_config):
        worker = offload.SimpleCPUOffloadWorker
        if role == KVConnectorRole.WORKER:
            offload.SimpleCPUOffloadWorker = HostWorker
        try:
            super().__init__(vllm_config, role, kv_cache_config)
        finally:
            offload.SimpleCPUOffloadWorker = worker
