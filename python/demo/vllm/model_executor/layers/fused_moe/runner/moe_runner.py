"""Runs a layer: asks the router, then the experts."""

from __future__ import annotations

import torch
from profilemate_demo import model, truth
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter


class MoERunner:
    """One layer."""

    def __init__(self, layer_name: str, layer_idx: int, moe_config: FusedMoEConfig) -> None:
        self.layer_name = layer_name
        self.layer_idx = layer_idx
        self.moe_config = moe_config
        self.router = CPURouter(layer_idx, moe_config.experts_per_token, moe_config.num_experts)

    def forward(self, hidden_states: torch.Tensor, router_logits: torch.Tensor) -> torch.Tensor:
        return self._forward_impl(hidden_states, router_logits, None)

    def _forward_impl(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor, shared_experts_input: None
    ) -> torch.Tensor:
        _, experts = self.router.select_experts(hidden_states=hidden_states, router_logits=router_logits)
        chosen = experts.tolist()
        if truth.enabled:
            truth.route(self.layer_name, chosen)
        states = zip(hidden_states.numbers, chosen)
        return torch.tensor([model.signed(model.layer(self.layer_idx, s & model.MASK, e)) for s, e in states])
