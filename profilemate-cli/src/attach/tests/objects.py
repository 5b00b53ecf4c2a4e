"""Makes objects, prints their addresses, and passes the probe site with the registers that it is told."""

import collections
import ctypes
import dataclasses
import enum
import json
import mmap
import sys


class Plain:
    def __init__(self, n, name):
        self.n = n
        self.name = name
        self.child = None


class Sub(Plain):
    def __init__(self, n):
        self.extra = 1
        super().__init__(n, "sub")


class Many:
    def __init__(self):
        for i in range(60):
            setattr(self, f"a{i}", i * 10)


class Slots:
    __slots__ = ("x", "y")


@dataclasses.dataclass
class Data:
    first: int
    second: str


class Color(enum.IntEnum):
    RED = 7


class Shape(enum.Enum):
    ROUND = 11


class Text(str):
    pass


class Queue(collections.deque):
    pass


class Queue2(Queue):
    pass


class MyDict(dict):
    pass


class MyList(list):
    pass


class Flag(ValueError):
    pass


class Root:
    pass


root = Root()
put = root.__dict__.__setitem__
values = {
    "zero": 0, "one": 1, "negative": -5, "two30": 2**30, "negative31": -(2**31), "large": 123456789012345678,
    "max63": 2**63 - 1, "min63": -(2**63), "over": 2**63, "under": -(2**63) - 1, "huge": 10**100,
    "yes": True, "no": False, "nothing": None, "pi": 3.25, "text": "hello", "long_text": "x" * 200,
    "accents": "h\u00e9llo", "wide": "\u4f60\u597d", "empty_text": "", "sub_text": Text("subclass"), "data": b"abc\x00d",
    "long_data": b"z" * 80, "list": [1, -2, 300000000000], "empty_list": [], "my_list": MyList([5]),
    "tuple": (4, 5, 6), "texts": ("alpha", "beta", "x" * 70), "dict": {"a": 1, "b": 2}, "empty_dict": {},
    "my_dict": MyDict(a=9), "set": {10, 20, 30}, "frozen": frozenset([7]), "empty_set": set(),
    "deque": collections.deque([1, 2]), "deque2": Queue2([1, 2, 3]), "ordered": collections.OrderedDict(a=1, b=2),
    "bools": [True, False], "nones": [None], "mixed": [1, "no"], "floats": [0.5, -1.5], "big_list": list(range(3000)),
    "color": Color.RED, "colors": [Color.RED, 3], "shape": Shape.ROUND,
    "plain": Plain(42, "plain"), "sub": Sub(43), "many": Many(), "fields": Data(5, "five"), "opened": Data(6, "six"),
    "error": Flag("x"), "type": Root, "requests": [Plain(1, "r1"), Sub(2), Plain(-3, "r3")],
    "big_dict": {sys.intern(f"key{i}"): i for i in range(1000)}, "general": {1: 2, "k": 7, (3,): 4}, "lists": [[1, 2], [], [3]],
    "gappy": {sys.intern(f"r{i}"): i * 1000 for i in range(20)}, "numbers": {f"s{i}": 1 for i in range(2)},
    "many_pairs": {f"p{i}": i for i in range(1400)},
}
for key in list(values):
    put(sys.intern(key), values[key])
for i in (0, 3, 4, 19):
    del values["gappy"][f"r{i}"]
values["set"].add(40)
values["set"].discard(20)
values["plain"].child = values["sub"]
values["sub"].child = values["plain"]
opened = values["opened"].__dict__
slots = Slots()
slots.x = 77
put("slots", slots)
gone = Plain(1, "gone")
del gone.n
put("gone", gone)

names = list(values) + ["slots", "gone", "missing", "n", "name", "child", "a0", "a35", "a59", "first", "second", "a", "b"]
names += ["key777", "k", "_value_", "x", "kw1", "kw2", "args", "r1", "r5", "extra"]
types = [int, float, str, bytes, list, tuple, dict, set, frozenset, collections.deque, Plain, Sub, Slots, Data, Root]
args = (values["plain"], values["one"], values["text"], values["list"])
kwnames = (sys.intern("kw1"), sys.intern("kw2"))
addresses = {t.__name__: id(t) for t in types}
addresses.update({"None": id(None), "True": id(True), "False": id(False), "root": id(root), "args": id(args), "kwnames": id(kwnames)})
addresses.update({"list_object": id(values["list"]), "alpha": id(values["texts"][0]), "plain_object": id(values["plain"])})
addresses.update({"gappy:" + key: id(key) for key in values["gappy"]})

if len(sys.argv) > 1:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    page = open(sys.argv[1], "rb")
    code = libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, page.fileno(), 0)
    routine = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code)

print(json.dumps({
    "minor": sys.version_info[1],
    "addresses": addresses,
    "names": {name: id(sys.intern(name)) for name in names},
    "keep": [sys.intern(name) for name in names],
}), flush=True)
keep = [sys.intern(name) for name in names]

for line in sys.stdin:
    registers = (ctypes.c_uint64 * 8)(*map(int, line.split()))
    routine(ctypes.addressof(registers))
    print("passed", flush=True)
