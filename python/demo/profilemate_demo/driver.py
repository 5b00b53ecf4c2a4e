"""A CUDA driver that does nothing, for a machine that has none.

It is a real shared library, `libcuda.so.1`, with a few of the driver's functions under the driver's names, each with
an entry like the real one's and a few instructions. Handles are numbers that count up; every call succeeds.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import struct

from profilemate_demo import library

NAME = "libcuda.so.1"

# What a function does after its entry.
_SUCCEED = bytes.fromhex("31c0 c3")  # xor eax, eax; ret
# mov eax, 64; lock xadd [rip + {}], rax; mov [r], rax; xor eax, eax; ret: a new handle, where argument 0 or 1 points to.
_MAKE = bytes.fromhex("b840000000 f0480fc105"), {0: bytes.fromhex("488907 31c0 c3"), 1: bytes.fromhex("488906 31c0 c3")}

# Function, and the argument that points to where it writes a handle.
FUNCTIONS: dict[str, int | None] = {
    "cuInit": None,
    "cuStreamBeginCapture_v2": None,
    "cuStreamEndCapture": 1,
    "cuGraphInstantiateWithFlags": 0,
    "cuGraphUpload": None,
    "cuGraphLaunch": None,
    "cuGraphExecDestroy": None,
    "cuGraphDestroy": None,
    "cuStreamSynchronize": None,
    "cuEventCreate": 0,
    "cuEventRecord": None,
    "cuEventSynchronize": None,
    "cuLaunchKernel": None,
    "cuMemcpyHtoDAsync_v2": None,
    "cuMemcpyDtoHAsync_v2": None,
}


# Data: the guard, and the last handle.
_DATA = struct.pack("<QQ", 0, 0x10000)


def _code(out: int | None, at: int, guard: int) -> bytes:
    """One function at address `at`: compares the guard, gives an error if the driver has closed, else does its work."""
    handles = guard + 8
    compare = b"\x81\x3d" + struct.pack("<i", guard - (at + 10)) + struct.pack("<I", 0x321CBA00)
    work_at = at + len(compare) + 2 + 6
    error = bytes.fromhex("b804000000 c3")  # mov eax, 4; ret
    # `jne` past the error.
    code = compare + b"\x75\x06" + error
    if out is None:
        return code + _SUCCEED
    head, tails = _MAKE
    end_of_xadd = work_at + len(head) + 4
    return code + head + struct.pack("<i", handles - end_of_xadd) + tails[out]


def image() -> bytes:
    """The library's file."""
    functions = {name: functools.partial(_code, out) for name, out in FUNCTIONS.items()}
    return library.image(NAME, functions, _DATA, {})


def load() -> ctypes.CDLL | None:
    """Loads the library into this process; None on a machine whose instructions it does not have."""
    return library.load(NAME, image()) if platform.machine() == "x86_64" else None
