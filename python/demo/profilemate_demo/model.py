"""The toy model: a 64-bit state that each token advances, and a token for each state."""

from __future__ import annotations

# State before the first token.
START = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def advance(state: int, token: int) -> int:
    """The state after `token`."""
    state = ((state ^ token) * 0xBF58476D1CE4E5B9) & _MASK
    return state ^ (state >> 29)


def token(state: int, vocabulary: int) -> int:
    """The token that follows."""
    return (state >> 7) % vocabulary


def complete(prompt: list[int], count: int, vocabulary: int) -> list[int]:
    """What the model says after `prompt`, computed directly: what the engine must give, however it is batched."""
    state = START
    for known in prompt:
        state = advance(state, known)
    said = []
    for _ in range(count):
        said.append(token(state, vocabulary))
        state = advance(state, said[-1])
    return said
