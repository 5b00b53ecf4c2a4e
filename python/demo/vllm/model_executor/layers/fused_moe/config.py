"""Sizes of a layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FusedMoEConfig:
    """How many experts there are, and how many a token takes."""

    num_experts: int
    experts_per_token: int
