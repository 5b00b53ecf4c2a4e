"""The requests that the demo serves itself: endless, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

# Token that stands for a part of a picture, and the pictures: how many, and how long the longest is.
PLACEHOLDER = 7
PICTURES, LONGEST = 12, 24
# Requests of one burst; between bursts the server is idle for a moment.
BURST = 32


@dataclass
class Work:
    """A request and when it comes."""

    request_id: str
    prompt: list[int]
    # Name, place in the prompt and length of its picture, if it has one.
    picture: tuple[str, int, int] | None
    max_tokens: int
    # Seconds after the request before it.
    delay_sec: float
    # The client hangs up after so many tokens.
    abort_after: int | None


def generate(seed: int, vocabulary: int, gaps: bool) -> Iterator[Work]:
    """Requests of mixed lengths, many of which begin with one of a few common prefixes, and some of which
    have a picture."""
    source = random.Random(seed)
    prefixes = [[source.randrange(vocabulary) for _ in range(length)] for length in (32, 48, 80)]
    number = 0
    while True:
        prompt = list(source.choice(prefixes)) if source.random() < 0.6 else []
        picture = None
        if source.random() < 0.3:
            which = source.randrange(PICTURES)
            picture = (f"picture-{which}", len(prompt), LONGEST - which)
            prompt += [PLACEHOLDER] * picture[2]
        prompt += [source.randrange(vocabulary) for _ in range(source.randint(6, 90))]
        pause = 0.25 if number and number % BURST == 0 and gaps else 0.0
        yield Work(
            request_id=f"demo-{number:05d}",
            prompt=prompt,
            picture=picture,
            max_tokens=source.randint(24, 120),
            delay_sec=pause + source.expovariate(1 / 0.012),
            abort_after=source.randint(4, 12) if number % 17 == 16 else None,
        )
        number += 1
