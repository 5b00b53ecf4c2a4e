"""A small stand-in for PyTorch: integers in host memory, laid out there as PyTorch lays them out. Nothing is computed."""

from __future__ import annotations

import ctypes

from profilemate_demo import library

from .version import __version__

__all__ = ["Tensor", "tensor", "__version__"]

LIBRARY, VTABLE = "libc10.so", "_ZTVN3c1010TensorImplE"
# A vtable: the offset to the top, a description of the type, and the functions.
_DATA = bytes(8) + b"\1" * 8 + bytes(16)
_library = library.load(LIBRARY, library.image(LIBRARY, {}, _DATA, {VTABLE: (0, len(_DATA))}))
# What an object of the class begins with: the address of the vtable's functions.
_vtable = 0 if _library is None else ctypes.addressof(ctypes.c_char.in_dll(_library, VTABLE)) + 16

_LONG, _HOST = 4, 0x1_FF00_0000  # Integers of 64 bits; a device, which is there, of type 0 and no index.


class _Storage(ctypes.Structure):
    """`c10::StorageImpl`: whose numbers they are, and how many bytes."""

    _fields_ = [("vtable", ctypes.c_uint64), ("references", ctypes.c_uint64), ("data", ctypes.c_void_p)]
    _fields_ += [("deleter", ctypes.c_uint64), ("context", ctypes.c_void_p), ("device", ctypes.c_uint64)]
    _fields_ += [("bytes", ctypes.c_uint64)]


class Tensor(ctypes.Structure):
    """`c10::TensorImpl`. An object of `ctypes` holds a pointer to it where a tensor of PyTorch does."""

    _fields_ = [("vtable", ctypes.c_uint64), ("references", ctypes.c_uint64), ("storage", ctypes.c_void_p)]
    _fields_ += [("other", ctypes.c_uint64 * 3), ("object", ctypes.c_uint64), ("dimensions", ctypes.c_uint64)]
    _fields_ += [("sizes", ctypes.c_uint64 * 5), ("strides", ctypes.c_uint64 * 5), ("offset", ctypes.c_uint64)]
    _fields_ += [("count", ctypes.c_uint64), ("kind", ctypes.c_uint64)]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.sizes[: self.dimensions])

    def tolist(self) -> list:
        """The numbers, row by row."""
        numbers = list(self.numbers)
        if self.dimensions == 1:
            return numbers
        rows, columns = self.shape
        return [numbers[row * columns : (row + 1) * columns] for row in range(rows)]


def tensor(numbers: list[int] | list[tuple[int, ...]], columns: int | None = None) -> Tensor:
    """A tensor of one dimension, or of two with so many `columns`."""
    flat = numbers if columns is None else [number for row in numbers for number in row]
    made = Tensor(_vtable, 1)
    made.numbers = (ctypes.c_int64 * len(flat))(*flat)
    made.home = _Storage(0, 1, ctypes.addressof(made.numbers), 0, None, 0xFF00, ctypes.sizeof(made.numbers))
    made.storage, made.object = ctypes.addressof(made.home), id(made)
    sizes = [len(numbers)] if columns is None else [len(numbers), columns]
    made.dimensions, made.count = len(sizes), len(flat)
    made.sizes[: len(sizes)], made.strides[: len(sizes)] = sizes, [1] if columns is None else [columns, 1]
    made.kind = _LONG | _HOST
    return made
