"""Graphs on the demo's CUDA driver."""

from __future__ import annotations

import ctypes
from typing import Any

from profilemate_demo import driver

_library: Any = None
_STREAM = ctypes.c_void_p(0x5000)


def available() -> bool:
    """Loads the driver; False where there is none."""
    global _library
    if _library is None:
        _library = driver.load()
    return _library is not None


def launch_kernel() -> None:
    """A kernel outside of any graph, or one that is being captured."""
    none = ctypes.c_void_p()
    _library.cuLaunchKernel(none, 1, 1, 1, 1, 1, 1, 0, _STREAM, none, none)


def synchronize() -> None:
    """Waits for what was launched."""
    _library.cuStreamSynchronize(_STREAM)


class Graph:
    """A graph; what is launched inside of `with` is captured."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()

    def __enter__(self) -> Graph:
        _library.cuStreamBeginCapture_v2(_STREAM, 1)
        return self

    def __exit__(self, *exception: Any) -> None:
        graph = ctypes.c_void_p()
        _library.cuStreamEndCapture(_STREAM, ctypes.byref(graph))
        _library.cuGraphInstantiateWithFlags(ctypes.byref(self.handle), graph, ctypes.c_ulonglong(0))
        _library.cuGraphDestroy(graph)

    def replay(self) -> None:
        _library.cuGraphLaunch(self.handle, _STREAM)
