"""A CUDA driver that does nothing, for a machine that has none.

It is a real shared library, `libcuda.so.1`, with a few of the driver's functions under the driver's names, each with
an entry like the real one's. No compiler is there to make it, so it is written here, byte by byte: the headers that the
dynamic linker reads, and a few instructions for each function. Handles are numbers that count up; every call succeeds.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import tempfile

PAGE = 0x1000
BASE_SYMBOL = struct.Struct("<IBBHQQ")

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


def _code(at: int, guard: int, handles: int, out: int | None) -> bytes:
    """One function at address `at`: compares the guard, gives an error if the driver has closed, else does its work."""
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
    names, strings = {}, b"\0"
    for name in ["libcuda.so.1", *FUNCTIONS]:
        names[name] = len(strings)
        strings += name.encode() + b"\0"
    count = len(FUNCTIONS) + 1
    symbols_at = 64 + 3 * 56
    strings_at = symbols_at + count * BASE_SYMBOL.size
    hash_at = (strings_at + len(strings) + 7) & ~7
    text_at = (hash_at + 4 * (3 + count) + 31) & ~31
    data_at = text_at + PAGE & ~(PAGE - 1)
    guard, handles, dynamic_at = data_at, data_at + 8, data_at + 16

    text, symbols = b"", BASE_SYMBOL.pack(0, 0, 0, 0, 0, 0)
    for name, out in FUNCTIONS.items():
        code = _code(text_at + len(text), guard, handles, out)
        symbols += BASE_SYMBOL.pack(names[name], 0x12, 0, 3, text_at + len(text), len(code))
        text += code + b"\xcc" * (-len(code) % 32)
    # One bucket: all symbols in one chain.
    hashes = struct.pack(f"<{3 + count}I", 1, count, 1, 0, *range(2, count), 0)
    entries = [(14, names["libcuda.so.1"]), (4, hash_at), (5, strings_at), (6, symbols_at)]
    entries += [(10, len(strings)), (11, BASE_SYMBOL.size), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", tag, value) for tag, value in entries)
    data = struct.pack("<QQ", 0, 0x10000) + dynamic

    def segment(kind: int, flags: int, at: int, size: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, flags, at, at, at, size, size, PAGE if kind == 1 else 8)

    def section(kind: int, flags: int, at: int, size: int, link: int = 0, info: int = 0, each: int = 0) -> bytes:
        return struct.pack("<IIQQQQIIQQ", 0, kind, flags, at, at, size, link, info, 8, each)

    sections_at = data_at + len(data)
    sections = section(0, 0, 0, 0)
    sections += section(11, 2, symbols_at, len(symbols), link=2, info=1, each=BASE_SYMBOL.size)
    sections += section(3, 2, strings_at, len(strings)) + section(1, 6, text_at, len(text))
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, sections_at, 0, 64, 56, 3, 64, 4, 2)
    header += segment(1, 5, 0, text_at + len(text)) + segment(1, 6, data_at, len(data))
    header += segment(2, 6, dynamic_at, len(dynamic))
    file = bytearray(sections_at)
    for at, part in [
        (0, header), (symbols_at, symbols), (strings_at, strings), (hash_at, hashes), (text_at, text), (data_at, data)
    ]:
        file[at:at + len(part)] = part
    return bytes(file) + sections


def load() -> ctypes.CDLL | None:
    """Loads the library into this process; None on a machine whose instructions it does not have."""
    if platform.machine() != "x86_64" or os.name != "posix":
        return None
    with tempfile.TemporaryDirectory(prefix="profilemate-demo-") as folder:
        path = os.path.join(folder, "libcuda.so.1")
        with open(path, "wb") as file:
            file.write(image())
        try:
            return ctypes.CDLL(path)
        except OSError:
            # A folder from which nothing may be run.
            return None
