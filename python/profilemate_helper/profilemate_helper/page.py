"""The marker page, made from inside. Its shape is documented in `profilemate-common/src/page.rs`."""

import ctypes
import os
import struct
import sys

# Where a function object keeps its `vectorcall`, by version. An unknown version is not guessed at.
VECTORCALL = {(3, 10): 120, (3, 11): 120, (3, 12): 128, (3, 13): 128, (3, 14): 136}

MEMFD = "profilemate"
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_PRIVATE, MAP_FIXED = 2, 16
MAP_FAILED = ctypes.c_void_p(-1).value

# Offsets in the data: head, and within a slot.
HEAD = struct.Struct("=QIIQII")
SLOT_FUNCTION = 16
SLOT_CALLEE = 48


class Unavailable(Exception):
    """There can be no page here, and why."""


class Absent(Unavailable):
    """What was looked for is not there. It may yet come."""


class Page:
    """The page of this process. Forked children have a copy of it at the same place."""

    def __init__(self, plan):
        if os.uname().machine != plan.arch:
            raise Unavailable("the page's code is for %s" % plan.arch)
        original = default_vectorcall()
        code = plan.code
        if len(code) != plan.code_size:
            raise Unavailable("the page's code has %d bytes instead of %d" % (len(code), plan.code_size))
        if any("/memfd:%s " % MEMFD in line for line in maps()):
            raise Unavailable("there is a marker page already")
        self.plan = plan
        self.base = self._map(code)
        self.data = self.base + plan.code_size
        self.used = 0
        head = HEAD.pack(plan.magic, plan.version, plan.slots, original, 0, 0)
        ctypes.memmove(self.data, head, len(head))

    def _map(self, code):
        plan = self.plan
        mmap = ctypes.CDLL(None, use_errno=True).mmap
        mmap.restype = ctypes.c_void_p
        mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
        size = plan.code_size + plan.data_size
        fd = os.memfd_create(MEMFD, os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            os.pwrite(fd, code, 0)
            base = mmap(None, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0)
            if base == MAP_FAILED:
                raise Unavailable("executable memory is forbidden: %s" % os.strerror(ctypes.get_errno()))
            flags = MAP_PRIVATE | MAP_FIXED
            data = mmap(base + plan.code_size, plan.data_size, PROT_READ | PROT_WRITE, flags, fd, plan.code_size)
            if data == MAP_FAILED:
                raise Unavailable("the page's data could not be mapped: %s" % os.strerror(ctypes.get_errno()))
        finally:
            os.close(fd)
        return base

    def take_slot(self, function):
        """Gives a slot to a function; returns the slot's number and the address of its entry for C callables."""
        if self.used == self.plan.slots:
            raise Unavailable("all %d slots are taken" % self.plan.slots)
        number, self.used = self.used, self.used + 1
        slot = self.data + self.plan.slot_offset + number * self.plan.slot_stride
        # The callee first: a tracer takes a slot for used once it sees the function.
        ctypes.c_uint64.from_address(slot + SLOT_CALLEE).value = id(function)
        ctypes.c_uint64.from_address(slot + SLOT_FUNCTION).value = id(function)
        return number, self.base + self.plan.helper_stub_offset + number * self.plan.stub_stride


def default_vectorcall():
    """Address of the interpreter's own vectorcall for Python functions."""
    offset = VECTORCALL.get(sys.version_info[:2])
    if sys.implementation.name != "cpython" or offset is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise Unavailable("this interpreter's function objects are not known")

    def one():
        return 1

    def two(*arguments, **keywords):
        return lambda: (arguments, keywords)

    found = {ctypes.c_uint64.from_address(id(function) + offset).value for function in (one, two, two())}
    if len(found) != 1:
        raise Unavailable("function objects are laid out in an unknown way")
    address = found.pop()
    for line in maps():
        span, permissions = line.split(" ", 2)[:2]
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= address < last and "x" in permissions:
            return address
    raise Unavailable("function objects are laid out in an unknown way")


def maps():
    """The lines of this process's memory map."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        return file.readlines()
