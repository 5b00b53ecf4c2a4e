"""What the memory images hold: objects of every kind that field paths read, and what the interpreter says they are.

Prints one line of JSON, then waits until its standard input is closed. Run with `-c`, so that no path is in memory.
"""
import collections, dataclasses, enum, json, sys, typing

LIMIT = 77


class Plain:
    def __init__(self, number, text="request"):
        self.number = number
        self.text = text
        self.table = {"alpha": number, "beta": -2}
        self._stored = number + 1

    def method(self, first, second=2, *, only=None):
        return self.number

    @property
    def stored(self):
        return self._stored


class Child(Plain):
    pass


class Slotted:
    __slots__ = ("block_id", "ref_cnt")

    def __init__(self, block_id):
        self.block_id = block_id
        self.ref_cnt = 1


@dataclasses.dataclass
class Data:
    tokens: int
    name: str
    ratio: float = 0.5


@dataclasses.dataclass
class SlottedData:
    __slots__ = ("tokens", "name")
    tokens: int
    name: str


class Named(typing.NamedTuple):
    tokens: int
    name: str


class State(enum.IntEnum):
    WAITING = 3


class Colour(enum.Enum):
    RED = 5


class Text(str):
    pass


class Wide:
    """More attributes than shared keys hold."""

    def __init__(self):
        for index in range(60):
            setattr(self, "wide_%d" % index, index)


class Result:
    pass


def kinds(result):
    """Values by attribute."""
    result.zero, result.one_digit, result.two_digits, result.three_digits = 0, 1234567, 2**40 + 3, 2**62 + 7
    result.minus_one_digit, result.minus_two_digits, result.minus_three_digits = -5, -(2**40) - 3, -(2**63)
    result.largest, result.too_big, result.far_too_big = 2**63 - 1, 2**63, 2**200
    result.yes, result.no, result.nothing = True, False, None
    result.ratio, result.small = 2.5, -1e-300
    result.ascii, result.empty, result.long = "request-7", "", "0123456789" * 10
    result.latin, result.wide, result.emoji = "caf\u00e9", "\u4f60\u597d", "\U0001f600"
    result.subclassed = Text("text of a subclass")
    result.raw, result.raw_empty = b"bytes\0here", b""


def containers(result):
    result.items = [1, 2, -3, 2**40]
    result.strings = ["a", "bc", "request-1"]
    result.mixed = [1, "two"]
    result.none_left = []
    result.pair = (10, Plain(42))
    result.named = Named(17, "a name")
    result.table = {"alpha": 5, "beta": 70000000000}
    result.by_number = {7: 1, 8: 2}
    result.many = {sys.intern("key_%d" % index): index for index in range(300)}
    del result.many["key_1"]
    result.ids, result.frozen = {"only"}, frozenset({4})
    result.numbers = set(range(40, 60)) - {41, 42}
    result.queue = collections.deque([1, 2, 3])
    result.plains = [Plain(index) for index in range(4)]
    result.blocks = [Slotted(index) for index in range(5)]


def instances(result):
    result.plain, result.child, result.slotted = Plain(91), Child(92, "a child"), Slotted(4)
    result.data, result.slotted_data = Data(12, "some data"), SlottedData(13, "in slots")
    result.cut = Slotted(9)
    del result.cut.ref_cnt
    result.state, result.colour = State.WAITING, Colour.RED
    result.wide_object = Wide()
    # Its dictionary exists, and has lost the order that it would share with others.
    result.shuffled = Plain(93)
    del result.shuffled.table
    result.shuffled.__dict__["added_late"] = 6
    # Its dictionary exists, and still shares its keys.
    result.looked_at = Plain(94)
    held.append(result.looked_at.__dict__)


held = []
plain, child, result = Plain(7, "a plain one"), Child(8, "a child"), Result()
# Made often enough for the interpreter to settle how instances are laid out; called often enough to have a version.
for index in range(300):
    Plain(index).method(1)
    Data(index, "")
kinds(result), containers(result), instances(result)

# As the interpreter lays out a call: positional arguments, then those by keyword, whose names stand in a tuple.
call = (plain, child, 5, result)
keywords = (sys.intern("only"),)

# What `path` gives: a value, or why there is none.
cases = []


def read(path, value, classes=None):
    cases.append({"path": path, "classes": classes or {}, "value": value})


def absent(path, why):
    cases.append({"path": path, "classes": {}, "absent": why})


def scalars():
    for name in """zero one_digit two_digits three_digits minus_one_digit minus_two_digits minus_three_digits
                   largest state yes""".split():
        read("ret." + name, int(getattr(result, name)))
    for name in "too_big far_too_big".split():
        absent("ret." + name, "too big")
    read("ret.yes:bool", 1)
    read("ret.no:bool", 0)
    read("ret.nothing:none", 1)
    read("ret.zero:none", 0)
    absent("ret.nothing", "none")
    absent("ret.nothing:str", "none")
    absent("ret.one_digit:bool", "type")
    for name in "ratio small".split():
        read("ret.%s:float" % name, getattr(result, name))
    for name in "ascii empty long subclassed".split():
        text = str(getattr(result, name))
        read("ret.%s:str" % name, text[:63])
        read("ret.%s:len" % name, len(text))
    for name in "latin wide emoji".split():
        absent("ret.%s:str" % name, "type")
        read("ret.%s:len" % name, len(getattr(result, name)))
    read("ret.raw:bytes", result.raw.decode())
    read("ret.raw:len", len(result.raw))
    read("ret.raw_empty:bytes", "")
    absent("ret.ascii", "type")
    absent("ret.one_digit:len", "type")
    absent("ret.ratio", "type")
    absent("ret.raw:str", "type")
    read("ret:addr", id(result))


def collections_():
    for name in """items strings mixed none_left pair named table by_number many ids frozen numbers queue
                   plains""".split():
        read("ret.%s:len" % name, len(getattr(result, name)))
    read("ret.items:ints", result.items)
    read("ret.strings:strs", result.strings)
    absent("ret.mixed:ints", "type")
    read("ret.none_left:ints", [])
    read("ret.by_number:ints", list(result.by_number))
    read("ret.table:strs", list(result.table))
    read("ret.table:items", [[id(key), value] for key, value in result.table.items()])
    read("ret.many:items", [[id(key), value] for key, value in result.many.items()])
    read("ret.ids:strs", list(result.ids))
    read("ret.frozen:ints", list(result.frozen))
    read("ret.numbers:ints", list(result.numbers))
    absent("ret.queue:ints", "type")
    absent("ret.nothing:ints", "none")
    read("ret.pair[0]", 10)
    read("ret.pair[1].number", 42)
    absent("ret.pair[2]", "range")
    read("ret.named[0]", 17)
    read("ret.named[1]:str", "a name")
    read("ret.items[list:3]", result.items[3])
    absent("ret.items[list:4]", "range")
    absent("ret.pair[list:0]", "type")
    absent("ret.items[0]", "type")
    read("ret.table['beta']", 70000000000)
    read("ret.many['key_299']", 299)
    absent("ret.many['key_1']", "unset")
    absent("ret.items['beta']", "type")
    read("ret.plains[*].number", [0, 1, 2, 3])
    read("ret.plains[*].text:strs", ["request"] * 4, {"ret.plains[*]": "__main__:Plain"})
    read("ret.blocks[*].block_id", [0, 1, 2, 3, 4], {"ret.blocks[*]": "__main__:Slotted"})


def attributes():
    plain_class = "__main__:Plain"
    for name, number in {"plain": 91, "child": 92, "shuffled": 93, "looked_at": 94}.items():
        for classes in [{}, {"ret." + name: plain_class}]:
            read("ret.%s.number" % name, number, classes)
            read("ret.%s._stored" % name, number + 1, classes)
    read("ret.child.text:str", "a child")
    read("ret.shuffled.added_late", 6)
    absent("ret.shuffled.table:len", "unset")
    absent("ret.plain.added_late", "unset")
    absent("ret.one_digit.number", "type")
    absent("ret.slotted.number", "type")
    read("ret.plain.table['alpha']", 91)
    for data in ["ret.data"]:
        for classes in [{}, {data: "__main__:Data"}]:
            read(data + ".tokens", 12, classes)
            read(data + ".name:str", "some data", classes)
            read(data + ".ratio:float", 0.5, classes)
    slots = {"ret.slotted": "__main__:Slotted", "ret.cut": "__main__:Slotted", "ret.slotted_data": "__main__:SlottedData"}
    read("ret.slotted.block_id", 4, slots)
    read("ret.cut.block_id", 9, slots)
    cases.append({"path": "ret.cut.ref_cnt", "classes": slots, "absent": "unset"})
    read("ret.slotted_data.tokens", 13, slots)
    read("ret.slotted_data.name:str", "in slots", slots)
    read("ret.colour._value_", 5)
    read("ret.wide_object.wide_0", 0)
    read("ret.wide_object.wide_57", 57)


def calls():
    read("self.number", 7)
    read("self.text:str", "a plain one")
    read("self._stored", 8)
    # A property: reading it would run code.
    cases.append({"path": "self.stored", "classes": {}, "refused": True})
    read("first.number", 8)
    read("second", 5)
    read("arg.2", 5)
    read("only.one_digit", result.one_digit)
    absent("arg.7", "not passed")
    read("global.LIMIT", 77)
    read("sys::hexversion", sys.hexversion)


scalars(), collections_(), attributes(), calls()
classes = [type(value) for value in vars(result).values()] + [Plain, Child, Data, Slotted, SlottedData, Named, Wide, Result]
facts = {
    "version": "%d.%d.%d" % sys.version_info[:3],
    "hexversion": sys.hexversion,
    "call": id(call),
    "keywords": id(keywords),
    "result": id(result),
    "deque": id(collections.deque),
    "hexversion_at": id(sys.hexversion),
    "module_spec": id(type(sys.__spec__)),
    "classes": sorted({id(each) for each in classes}),
    "objects": sorted({id(each) for each in [plain, child, result, *vars(result).values()]}),
    "cases": cases,
}
print(json.dumps(facts), flush=True)
sys.stdin.read()
