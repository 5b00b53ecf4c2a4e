#!/usr/bin/env python3
"""The helper's sampling on vLLM's own router, with experts in several physical slots (EPLB) and small tensors.

EPLB itself needs several GPUs. Here the router, its state and its maps are the real ones; only the mapping of ids, which
outside of CUDA gives them back as they are, is done by the maps. Prints one JSON object: what was counted, and the truth.
"""
import json
import sys
from collections import Counter

import torch
from profilemate_helper import routing
from vllm.distributed.eplb.eplb_state import EplbLayerState, EplbState
from vllm.model_executor.layers.fused_moe.router import base_router
from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter

LOGICAL, REDUNDANT, TOP_K, TOKENS = 6, 2, 2, 40


def maps(physical_to_logical):
    """What `EplbState` keeps of one layer: slots of each expert, and how many."""
    slots = [[slot for slot, one in enumerate(physical_to_logical) if one == expert] for expert in range(LOGICAL)]
    rows = [found + [-1] * (REDUNDANT + 1 - len(found)) for found in slots]
    return torch.tensor(rows), torch.tensor([len(found) for found in slots])


def mapped(topk_ids, logical_to_physical_map, logical_replica_count, **_rest):
    """Tokens take the slots of an expert in turn, as the kernel has it."""
    turn = torch.arange(topk_ids.shape[0]).unsqueeze(1) % logical_replica_count[topk_ids.long()]
    return logical_to_physical_map[topk_ids.long(), turn].to(topk_ids.dtype)


class Layer:
    layer_name = "model.layers.5.mlp.experts"

    def __init__(self, state):
        self.router = CPURouter(TOP_K, LOGICAL + REDUNDANT, eplb_state=state)

    def run(self):
        hidden, logits = torch.zeros(TOKENS, 4), torch.randn(TOKENS, LOGICAL)
        return logits, self.router.select_experts(hidden_states=hidden, router_logits=logits)[1]


def main():
    told = {}

    def publish(layer, experts, top_k, every, calls, sampled, captured, kind, keys, values):
        assert experts == LOGICAL, experts
        told.setdefault(kind, {}).update(zip(map(str, keys), values))

    routing.publish = publish
    base_router.eplb_map_to_physical_and_record = mapped
    sampler = routing.Sampler(1)
    routing.Routers(sampler, [
        {"module": base_router.__name__, "qualname": "BaseRouter._apply_eplb_mapping", "ids": "mapped"}
    ]).imported(base_router.__name__, base_router)
    first = EplbState.build_initial_global_physical_to_logical_map(LOGICAL, REDUNDANT)
    state = EplbLayerState(
        expert_load_view=torch.zeros(LOGICAL + REDUNDANT, dtype=torch.int32),
        should_record_tensor=torch.zeros((), dtype=torch.bool),
        num_unpadded_tokens_tensors=[torch.zeros((), dtype=torch.int32)],
    )
    layer, logical, physical, owners = Layer(state), Counter(), Counter(), {}
    # The second arrangement is what a rearrangement leaves: other experts have the spare slots.
    for arrangement in (first, first[:LOGICAL] + [4, 5]):
        state.logical_to_physical_map, state.logical_replica_count = maps(arrangement)
        for _ in range(5):
            logits, slots = layer.run()
            logical.update(logits.topk(TOP_K).indices.flatten().tolist())
            physical.update(slots.flatten().tolist())
            owners.update({slot: arrangement[slot] for slot in slots.flatten().tolist()})
        sampler.tell()
    sampler.restore()
    text = lambda counts: {str(key): value for key, value in counts.items()}
    print(json.dumps({
        "failure": sampler.failure,
        "told": [told.get(kind) for kind in (routing.CHOSEN, routing.PHYSICAL)],
        "owners": {slot: above - 1 for slot, above in told.get(routing.OWNERS, {}).items()},
        "truth": [text(logical), text(physical)],
        "true_owners": text(owners),
    }))


if __name__ == "__main__":
    sys.exit(main())
