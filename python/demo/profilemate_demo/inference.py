"""A decorator of the kind that stands before the model runner's methods in the real thing."""

from __future__ import annotations

import functools
from collections.abc import Callable


class inference_mode:  # noqa: N801 - named as its model is
    """Context manager and decorator. The decorated function is a closure that takes any arguments."""

    def __init__(self, mode: bool = True) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, func: Callable) -> Callable:
        @functools.wraps(func)
        def decorate_context(*args, **kwargs):
            with self:
                return func(*args, **kwargs)

        return decorate_context
