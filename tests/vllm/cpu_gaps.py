"""What vLLM 0.32.0's CPU backend lacks for several ranks. Loaded into each worker as its extension.

A mixture of experts that is data parallel needs two collectives (NotImplementedError in `all_gatherv`). The later stages
of a pipeline get their buffers in a warm-up that is left out where nothing is compiled (an AssertionError in
`sync_and_gather_intermediate_tensors`).
"""
import torch
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
from vllm.distributed.parallel_state import get_pp_group
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker


def all_gatherv(self, input_, dim=0, sizes=None):
    """Tensors of every rank, one behind the other along the first dimension."""
    if isinstance(input_, list):
        return [all_gatherv(self, one, dim, sizes) for one in input_]
    assert dim == 0
    parts = []
    for rank, size in enumerate(sizes or [len(input_)] * self.world_size):
        own = rank == self.rank_in_group
        part = input_.contiguous() if own else input_.new_empty((size, *input_.shape[1:]))
        torch.distributed.broadcast(part, src=self.ranks[rank], group=self.device_group)
        parts.append(part)
    return torch.cat(parts)


def reduce_scatterv(self, input_, dim=-1, sizes=None):
    """This rank's part of the sum of all ranks' tensors."""
    assert dim == 0
    total = input_.contiguous().clone()
    torch.distributed.all_reduce(total, group=self.device_group)
    sizes = sizes or [len(input_) // self.world_size] * self.world_size
    return total.split(sizes)[self.rank_in_group].contiguous()


def buffers(self):
    """What the first dummy run of a later stage makes."""
    if not get_pp_group().is_first_rank:
        self.intermediate_tensors = self.model.make_empty_intermediate_tensors(
            batch_size=self.max_num_tokens, dtype=self.model_config.dtype, device=self.device)


CpuCommunicator.all_gatherv = all_gatherv
CpuCommunicator.reduce_scatterv = reduce_scatterv
CPUWorker._should_warm_up_model = lambda self: True
CPUModelRunner.warming_up_model = buffers


class CpuGaps:
    """What vLLM's `worker_extension_cls` names."""
