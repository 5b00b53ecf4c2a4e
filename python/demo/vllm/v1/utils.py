"""Named phases, and a read-only view of a list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# A tool may put a callable here that takes a phase's name and returns a context manager.
_PROFILER_FUNC = None


def record_function_or_nullcontext(name: str):
    """The context manager of the phase `name`: nothing, unless a tool asked for it."""
    func = _PROFILER_FUNC
    return contextlib.nullcontext(name) if func is None else func(name)


class ConstantList:
    """A list that can be read but not changed."""

    def __init__(self, items: list) -> None:
        self._x = items

    def __getitem__(self, index):
        return self._x[index]

    def __len__(self) -> int:
        return len(self._x)

    def __iter__(self) -> Iterator:
        return iter(self._x)

    def __repr__(self) -> str:
        return f"ConstantList({self._x!r})"

    def copy(self) -> list:
        return self._x.copy()
