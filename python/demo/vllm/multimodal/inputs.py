"""What a prompt has besides text: where it stands, and what it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlaceholderRange:
    """Tokens of the prompt that stand for it."""

    offset: int
    length: int


@dataclass(frozen=True)
class MultiModalFeatureSpec:
    """One picture."""

    identifier: str
    mm_position: PlaceholderRange
    modality: str = "image"
