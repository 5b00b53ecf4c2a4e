"""A target with known objects: prints their addresses as JSON, then waits until its standard input is closed."""
import collections, enum, functools, json, sys, threading, types

sys.setrecursionlimit(3000)
__version__ = "1.2.3+test"
LIMIT = 77


class Plain:
    def __init__(self, n):
        self.number = n
        self.negative = -5
        self.big = 2**63 - 1
        self.text = "request-%d" % n
        self.items = [1, 2, 3]
        self.table = {"alpha": 1, "beta": -2}
        self.unset_later = 1
        self.pair = (10, 20)
        self.child = None

    def method(self, first, second=2, *, only=None):
        return self.number + first

    @staticmethod
    def static(a, b):
        return a

    @classmethod
    def klass(cls, a):
        return a

    @property
    def prop(self):
        return self.number

    async def coroutine(self):
        return 1

    def generator(self):
        yield self.number

    class Nested:
        def deep(self):
            return 1


class Child(Plain):
    def other(self):
        return self.child


class Slotted:
    __slots__ = ("block_id", "ref_cnt")

    def __init__(self, block_id):
        self.block_id = block_id
        self.ref_cnt = 1


class State(enum.IntEnum):
    WAITING = 3


def decorate(function):
    count = 0

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        nonlocal count
        count += 1
        return function(*args, **kwargs)

    return wrapper


class Decorated:
    @decorate
    def execute(self, scheduler_output, other=None):
        return scheduler_output

    @decorate
    @decorate
    def twice(self, inner_name):
        return inner_name


def free_function(alpha, beta=1):
    return alpha.some_attribute_only_here if beta else LIMIT


plain, child, slotted = Plain(7), Child(8), Slotted(4)
held = {"type_deque": collections.deque, "blocks": [Slotted(i) for i in range(5)]}
for i in range(300):
    plain.method(i)
    Plain(i).method(1)
    Plain.static(i, 1)
    Decorated().execute(i)
    try:
        free_function(plain)
    except AttributeError:
        pass


class Result:
    def __init__(self):
        self.total = 123
        self.counts = {"request-1": 5, "request-2": 70000000000}
        self.ids = {"a-1"}
        self.blocks = held["blocks"]
        self.plains = [Plain(i) for i in range(4)]
        self.slotted = slotted
        self.ratio = 2.5
        self.flag = True
        self.nothing = None
        self.pair = (1, Plain(42))
        self.queue = collections.deque([1, 2, 3])
        self.text = "hello"
        self.raw = b"bytes"
        self.huge = 2**70
        self.state = State.WAITING
        self.single = {"only": Plain(77)}
        self.cut = Slotted(9)
        del self.cut.ref_cnt


class Shuffled(Plain):
    """Its instance loses the layout that it shares with others."""


class Wide:
    """More attributes than shared keys can hold, set from outside and in another order."""

    def __init__(self, order):
        for index in order:
            setattr(self, "wide_%d" % index, index)


result = Result()
result.wide = [Wide(range(60)), Wide(range(59, -1, -1))]
shuffled = Shuffled(91)
del shuffled.table
shuffled.__dict__["added_late"] = 1
shuffled.table = {"alpha": 11}
result.shuffled = shuffled
result.sub = Child(55)
# As the interpreter lays out a call: positional arguments, then those by keyword, whose names stand in a tuple.
call = (plain, child, 5, result)
keywords = (sys.intern("only"),)


def names(*words):
    return {word: id(sys.intern(word)) for word in words}


facts = {
    "version": list(sys.version_info[:3]),
    "hexversion": sys.hexversion,
    "functions": {
        "Plain.method": [id(Plain.method), id(Plain.method.__code__), Plain.method.__code__.co_firstlineno],
        "Plain.static": [id(Plain.static), id(Plain.static.__code__), Plain.static.__code__.co_firstlineno],
        "Plain.klass": [id(Plain.klass.__func__), id(Plain.klass.__code__), Plain.klass.__code__.co_firstlineno],
        "Plain.prop": [id(Plain.prop.fget), id(Plain.prop.fget.__code__), Plain.prop.fget.__code__.co_firstlineno],
        "Plain.coroutine": [id(Plain.coroutine), id(Plain.coroutine.__code__), Plain.coroutine.__code__.co_firstlineno],
        "Plain.generator": [id(Plain.generator), id(Plain.generator.__code__), Plain.generator.__code__.co_firstlineno],
        "Plain.Nested.deep": [id(Plain.Nested.deep), id(Plain.Nested.deep.__code__), Plain.Nested.deep.__code__.co_firstlineno],
        "Child.method": [id(Child.method), id(Child.method.__code__), Child.method.__code__.co_firstlineno],
        "Child.other": [id(Child.other), id(Child.other.__code__), Child.other.__code__.co_firstlineno],
        "Decorated.execute": [id(Decorated.execute), id(Decorated.execute.__code__), Decorated.execute.__code__.co_firstlineno],
        "Decorated.twice": [id(Decorated.twice), id(Decorated.twice.__code__), Decorated.twice.__code__.co_firstlineno],
        "free_function": [id(free_function), id(free_function.__code__), free_function.__code__.co_firstlineno],
    },
    "classes": {"Plain": id(Plain), "Child": id(Child), "Slotted": id(Slotted)},
    "objects": {"plain": id(plain), "child": id(child), "slotted": id(slotted), "blocks": id(held["blocks"]),
                "held": id(held), "plain_dict_values": id(plain.table), "state": id(State.WAITING)},
    "strings": {word: id(word) for word in ["ascii", "caf\u00e9 \u00fc", "\u4f60\u597d", "\U0001f600 smile", "", "x" * 4000]},
    "ints": {str(n): id(n) for n in [0, 1, -1, 2**30 - 1, 2**30, -(2**30), 2**60, 2**63 - 1, -(2**63), 2**63, 2**64, 2**200]},
    "interned": names("number", "block_id", "some_attribute_only_here", "name", "__init__", "alpha", "LIMIT", "method", "wide_57"),
    "deque": id(collections.deque),
    "none": id(None),
    "call": id(call),
    "keywords": id(keywords),
    "result": id(result),
    "big_dict": None,
}
big = {"key%d" % i: i for i in range(70000)}
for i in range(0, 70000, 3):
    del big["key%d" % i]
mixed = {1: "one", "two": 2, (3,): 3, None: 4}
facts["big_dict"], facts["mixed"] = id(big), id(mixed)
print(json.dumps(facts), flush=True)
keep = [facts]
sys.stdin.read()
