"""Shaped like vLLM's model runner and graph wrapper: frames with known locals above calls of a C function.

Each line of standard input is a call to make; it is answered by `done`.
"""

import collections
import ctypes
import dataclasses
import enum
import functools
import json
import sys
import threading

LIBRARY = sys.argv[1]
RELEASED = ctypes.CDLL(LIBRARY)
HELD = ctypes.PyDLL(LIBRARY)
for library in (RELEASED, HELD):
    for name in ("anchor", "hold", "foreign"):
        getattr(library, name).argtypes = [ctypes.c_long]


class Mode(enum.Enum):
    NONE = 0
    PIECEWISE = 1
    FULL = 2
    FULL_DECODE_ONLY = (2, 0)


@dataclasses.dataclass(frozen=True)
class Frozen:
    num_tokens: int
    num_reqs: "int | None" = None
    uniform: bool = False


class Named(collections.namedtuple("Named", "num_tokens num_reqs uniform")):
    pass


@dataclasses.dataclass
class Scheduled:
    total_num_scheduled_tokens: int
    num_scheduled_tokens: dict
    other: object = None


def descriptor(form, tokens, requests):
    if form == "named":
        return Named(tokens, requests, True)
    made = Frozen(tokens, requests, True)
    if form == "dict":
        assert made.__dict__["num_tokens"] == tokens
    return made


class Wrapper:
    """Stands for `CUDAGraphWrapper`."""

    def __init__(self):
        self.runtime_mode = Mode.FULL

    def __call__(self, *args, **kwargs):
        context = kwargs["context"]
        batch_descriptor = context["descriptor"]
        gone = 1
        del gone
        entry = context["entry"]
        entry(args[0])
        return batch_descriptor


def inference_mode(function):
    """As `torch.inference_mode`: one code object for every function that it decorates."""

    @functools.wraps(function)
    def decorate_context(*args, **kwargs):
        return function(*args, **kwargs)

    return decorate_context


class Runner:
    """Stands for `GPUModelRunner`."""

    def __init__(self):
        self.model = Wrapper()

    @inference_mode
    def execute_model(self, scheduler_output, intermediate_tensors=None, *, depth, context):
        return self.forward(depth, scheduler_output.total_num_scheduled_tokens, context)

    @inference_mode
    def captured(self, scheduler_output, depth, context):
        """An inner function uses the argument, so a cell holds it."""
        tokens = [item for item in (lambda: [scheduler_output.total_num_scheduled_tokens])()]
        return self.forward(depth, tokens[0], context)

    def forward(self, depth, value, context):
        if depth > 0:
            return self.forward(depth - 1, value, context)
        return self.model(value, context=context)

    def stream(self, scheduler_output, depth, context):
        """A generator: its frame lies in its own object."""
        yield self.forward(depth, scheduler_output.total_num_scheduled_tokens, context)


RUNNER = Runner()
# Not buffered: `hold` reads from it too.
INPUT = open(0, "rb", buffering=0)


def main():
    print(json.dumps({"ready": True}), flush=True)
    for line in iter(INPUT.readline, b""):
        what = json.loads(line)
        library = HELD if what["held"] else RELEASED
        context = {
            "descriptor": descriptor(what["form"], what["tokens"], what["requests"]),
            "entry": getattr(library, what["entry"]),
        }
        output = Scheduled(what["total"], {str(n): 1 for n in range(what["requests"])})
        method = getattr(RUNNER, what["method"])

        def call():
            result = method(output, depth=what["depth"], context=context)
            if what["method"] == "stream":
                list(result)

        if what["thread"]:
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
        else:
            call()
        print("done", flush=True)


main()
