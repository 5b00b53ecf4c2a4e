"""The toy model: a 64-bit state that each token advances, layers of experts, and a token for what they make of it."""

from __future__ import annotations

# State before the first token.
START = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
# Layers of experts, experts of each, and how many of them a token takes.
LAYERS, EXPERTS, TOP_K = 2, 8, 2


def advance(state: int, token: int) -> int:
    """The state after `token`."""
    state = ((state ^ token) * 0xBF58476D1CE4E5B9) & MASK
    return state ^ (state >> 29)


def signed(state: int) -> int:
    """The same 64 bits, as a number with a sign."""
    return state - (state >> 63 << 64)


def route(index: int, state: int) -> tuple[int, int]:
    """The experts that layer `index` takes for `state`, the first ones more often than the last ones."""
    first = min((state >> 11) % EXPERTS, (state >> 17) % EXPERTS)
    return first, (first + 1 + (state >> 23 + index) % (EXPERTS - 1)) % EXPERTS


def layer(index: int, state: int, chosen: tuple[int, ...] | list[int]) -> int:
    """What the `chosen` experts of layer `index` make of `state`."""
    for expert in chosen:
        state = advance(state, EXPERTS * index + expert)
    return state


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
        thought = state
        for index in range(LAYERS):
            thought = layer(index, thought, route(index, thought))
        said.append(token(thought, vocabulary))
        state = advance(state, said[-1])
    return said
