"""The router of servers without a GPU: its choices lie in host memory."""

from __future__ import annotations

import torch
from profilemate_demo import model


class CPURouter:
    """Of one layer."""

    def __init__(self, layer_idx: int, top_k: int, global_num_experts: int) -> None:
        self.layer_idx = layer_idx
        self.top_k = top_k
        self.global_num_experts = global_num_experts

    def select_experts(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor, topk_indices_dtype: None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and experts of each token."""
        return self._select_experts(hidden_states, router_logits, topk_indices_dtype)

    def _select_experts(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor, topk_indices_dtype: None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._compute_routing(hidden_states, router_logits, topk_indices_dtype)

    def _compute_routing(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor, indices_type: None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = [model.route(self.layer_idx, state & model.MASK) for state in router_logits.numbers]
        weights = [(1,) * self.top_k] * len(chosen)
        return torch.tensor(weights, self.top_k), torch.tensor(chosen, self.top_k)
