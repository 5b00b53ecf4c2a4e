"""Writes small shared libraries, for a machine that has no compiler.

The file holds what the dynamic linker reads, code, and data; it is loaded from a folder that is gone at once.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import tempfile
from collections.abc import Callable

PAGE = 0x1000
_SYMBOL = struct.Struct("<IBBHQQ")
_FUNCTION, _OBJECT = 0x12, 0x11
# Number of a machine in the header.
_MACHINES = {"x86_64": 62, "aarch64": 183}


def image(
    name: str,
    functions: dict[str, Callable[[int, int], bytes]],
    data: bytes,
    objects: dict[str, tuple[int, int]],
) -> bytes:
    """The file of library `name`. A function's code is made for its address and that of `data`; an object is a part of
    `data`: offset and size."""
    names, strings = {}, b"\0"
    for text in [name, *functions, *objects]:
        names[text] = len(strings)
        strings += text.encode() + b"\0"
    count = len(functions) + len(objects) + 1
    symbols_at = 64 + 4 * 56
    strings_at = symbols_at + count * _SYMBOL.size
    hash_at = (strings_at + len(strings) + 7) & ~7
    text_at = (hash_at + 4 * (3 + count) + 31) & ~31
    data_at = text_at + PAGE & ~(PAGE - 1)
    dynamic_at = data_at + (len(data) + 7 & ~7)

    text, symbols = b"", _SYMBOL.pack(0, 0, 0, 0, 0, 0)
    for function, make in functions.items():
        code = make(text_at + len(text), data_at)
        symbols += _SYMBOL.pack(names[function], _FUNCTION, 0, 3, text_at + len(text), len(code))
        text += code + b"\xcc" * (-len(code) % 32)
    for object_, (offset, size) in objects.items():
        symbols += _SYMBOL.pack(names[object_], _OBJECT, 0, 4, data_at + offset, size)
    # One bucket: all symbols in one chain.
    hashes = struct.pack(f"<{3 + count}I", 1, count, 1, 0, *range(2, count), 0)
    entries = [(14, names[name]), (4, hash_at), (5, strings_at), (6, symbols_at)]
    entries += [(10, len(strings)), (11, _SYMBOL.size), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", tag, value) for tag, value in entries)
    data = data + bytes(-len(data) % 8) + dynamic

    def segment(kind: int, flags: int, at: int, size: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, flags, at, at, at, size, size, PAGE if kind == 1 else 8)

    def section(kind: int, flags: int, at: int, size: int, link: int = 0, info: int = 0, each: int = 0) -> bytes:
        return struct.pack("<IIQQQQIIQQ", 0, kind, flags, at, at, size, link, info, 8, each)

    sections_at = data_at + len(data)
    sections = section(0, 0, 0, 0)
    sections += section(11, 2, symbols_at, len(symbols), link=2, info=1, each=_SYMBOL.size)
    sections += section(3, 2, strings_at, len(strings)) + section(1, 6, text_at, len(text))
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    machine = _MACHINES.get(platform.machine(), 0)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, sections_at, 0, 64, 56, 4, 64, 4, 2)
    header += segment(1, 5, 0, text_at + len(text)) + segment(1, 6, data_at, len(data))
    header += segment(2, 6, dynamic_at, len(dynamic))
    # The stack need not be executable: newer C libraries (glibc 2.41) do not load a library that leaves this open.
    header += segment(0x6474E551, 6, 0, 0)
    file = bytearray(sections_at)
    for at, part in [
        (0, header), (symbols_at, symbols), (strings_at, strings), (hash_at, hashes), (text_at, text), (data_at, data)
    ]:
        file[at:at + len(part)] = part
    return bytes(file) + sections


def load(name: str, file: bytes) -> ctypes.CDLL | None:
    """Loads the library into this process; None where that is not possible."""
    if os.name != "posix":
        return None
    with tempfile.TemporaryDirectory(prefix="profilemate-demo-") as folder:
        path = os.path.join(folder, name)
        with open(path, "wb") as written:
            written.write(file)
        try:
            return ctypes.CDLL(path)
        except OSError:
            # Another kind of machine, or a folder from which nothing may be run.
            return None
