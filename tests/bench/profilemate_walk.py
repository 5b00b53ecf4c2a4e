"""A worker shaped like vLLM's, which calls a function of the CUDA driver so many frames below `execute_model`.

Takes lines `FRAMES TIMES` on its stdin and answers each with `{"ns": nanoseconds a call}`.
"""
import ctypes
import enum
import json
import sys
from dataclasses import dataclass
from types import SimpleNamespace


class Mode(enum.Enum):
    FULL = 2


@dataclass(frozen=True)
class BatchDescriptor:
    num_tokens: int
    num_reqs: int
    uniform: bool = True
    has_lora: bool = False
    num_active_loras: int = 0


class Wrapper:
    def __init__(self, call):
        self.runtime_mode = Mode.FULL
        self.call = call

    def __call__(self, times):
        batch_descriptor = BatchDescriptor(8, 8)
        return self.call(times), batch_descriptor


class Runner:
    def __init__(self, call):
        self.model = Wrapper(call)

    def deeper(self, frames, times):
        if frames > 0:
            return self.deeper(frames - 1, times)
        return self.model(times)

    def execute_model(self, scheduler_output, frames, times):
        return self.deeper(frames, times)[0]


def main():
    library, repeat = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(sys.argv[2]).repeat
    repeat.restype, repeat.argtypes = ctypes.c_double, [ctypes.c_void_p, ctypes.c_long]
    function = ctypes.cast(library.cuGraphLaunch, ctypes.c_void_p)
    runner = Runner(lambda times: repeat(function, times))
    output = SimpleNamespace()
    output.total_num_scheduled_tokens, output.num_scheduled_tokens = 8, dict.fromkeys(range(8), 1)
    output.scheduled_new_reqs, output.scheduled_cached_reqs = [], SimpleNamespace(num_computed_tokens=[20] * 8)
    print("{}", flush=True)
    for line in sys.stdin:
        frames, times = map(int, line.split())
        print(json.dumps({"ns": runner.execute_model(output, frames, times)}), flush=True)
