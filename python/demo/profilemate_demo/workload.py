"""The requests that the demo serves itself: endless, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

# Requests of one burst; between bursts the server is idle for a moment.
BURST = 32


@dataclass
class Work:
    """A request and when it comes."""

    request_id: str
    prompt: list[int]
    max_tokens: int
    # Seconds after the request before it.
    delay_sec: float
    # The client hangs up after so many tokens.
    abort_after: int | None


def generate(seed: int, vocabulary: int, gaps: bool) -> Iterator[Work]:
    """Requests of mixed lengths, many of which begin with one of a few common prefixes."""
    source = random.Random(seed)
    prefixes = [[source.randrange(vocabulary) for _ in range(length)] for length in (32, 48, 80)]
    number = 0
    while True:
        prompt = list(source.choice(prefixes)) if source.random() < 0.6 else []
        prompt += [source.randrange(vocabulary) for _ in range(source.randint(6, 90))]
        pause = 0.25 if number and number % BURST == 0 and gaps else 0.0
        yield Work(
            request_id=f"demo-{number:05d}",
            prompt=prompt,
            max_tokens=source.randint(24, 120),
            delay_sec=pause + source.expovariate(1 / 0.012),
            abort_after=source.randint(4, 12) if number % 17 == 16 else None,
        )
        number += 1
