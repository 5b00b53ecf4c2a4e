"""The Python target of the bench: methods that differ only in what is done to them, called in hot or paced loops.

Started as `python -c "import profilemate_bench; profilemate_bench.main()"`. It takes commands on stdin, one a line,
and answers each with one JSON line on stdout:

  run NAME N       calls Engine.NAME N times; {"cpu_ns": thread CPU time of the loop}
  start RATE       a thread calls Engine.step RATE times a second (0: as often as it can); {}
  stop             ends that thread; {"calls": so many, "wall_ns": in that time}
  wander MS        the main thread calls Python functions from C now and then, for so long; {}
"""
import csv
import json
import sys
import tempfile
import threading
import time

# Each gets a method of its own, so that nothing that the interpreter caches is shared between two of them.
NAMES = [
    "plain", "off", "counted", "logged", "traced_0", "traced_4", "traced_8", "to_list", "to_csv", "to_csv_4", "step",
]


class Pool:
    def __init__(self):
        self.num_gpu_blocks = 1024
        self.num_free_blocks = 900


class Manager:
    def __init__(self):
        self.block_pool = Pool()


class Output:
    def __init__(self):
        self.total_num_scheduled_tokens = 16
        self.num_scheduled_tokens = {"request-%d" % i: 1 for i in range(16)}
        self.preempted_req_ids = []
        self.finished_req_ids = [1, 2]


class Engine:
    def __init__(self):
        self.running = list(range(16))
        self.waiting = list(range(4))
        self.manager = Manager()
        self.output = Output()


METHOD = """
def {name}(self, request):
    return self.output
"""

LOOP = """
def loop(engine, count):
    request = object()
    begin = thread_time_ns()
    for _ in range(count):
        engine.{name}(request)
    return thread_time_ns() - begin
"""

ROWS = []
CSV = csv.writer(tempfile.TemporaryFile("w", newline=""))


def to_list(function):
    """What a tracer inside the server does at least: a tuple for each call."""
    def wrapper(self, request):
        begin = time.perf_counter_ns()
        result = function(self, request)
        ROWS.append((begin, time.perf_counter_ns() - begin, "step"))
        return result
    return wrapper


def to_csv(function):
    """One that writes a row for each call."""
    def wrapper(self, request):
        begin = time.perf_counter_ns()
        result = function(self, request)
        CSV.writerow((begin, time.perf_counter_ns() - begin, "step"))
        return result
    return wrapper


def to_csv_4(function):
    """One that writes four fields besides: those of `traced_4`."""
    def wrapper(self, request):
        begin = time.perf_counter_ns()
        result = function(self, request)
        CSV.writerow((
            begin, time.perf_counter_ns() - begin, "step", len(self.running), len(self.waiting),
            result.total_num_scheduled_tokens, len(result.num_scheduled_tokens),
        ))
        return result
    return wrapper


def make():
    """Gives Engine its methods, and a loop for each."""
    loops = {}
    for name in NAMES:
        scope = {"__name__": __name__, "thread_time_ns": time.thread_time_ns}
        exec(METHOD.format(name=name) + LOOP.format(name=name), scope)
        function = scope[name]
        function.__qualname__ = "Engine." + name
        wrap = {"to_list": to_list, "to_csv": to_csv, "to_csv_4": to_csv_4}.get(name)
        setattr(Engine, name, wrap(function) if wrap else function)
        loops[name] = scope["loop"]
    return loops


class Caller(threading.Thread):
    """Calls Engine.step at a rate: every millisecond what is due by then."""

    def __init__(self, engine, rate):
        super().__init__(daemon=True)
        self.engine, self.rate, self.ending, self.calls, self.wall_ns = engine, rate, False, 0, 0

    def run(self):
        engine, request, begin = self.engine, object(), time.monotonic_ns()
        while not self.ending:
            due = 1000
            if self.rate:
                due = (time.monotonic_ns() - begin) * self.rate // 1_000_000_000 - self.calls
                # In pieces, so that the end does not wait for what cannot be caught up with.
                due = min(due, 5000)
            for _ in range(due):
                engine.step(request)
            self.calls += due
            if self.rate and due < 5000:
                time.sleep(0.001)
        self.wall_ns = time.monotonic_ns() - begin


def main():
    loops = make()
    engine, caller = Engine(), None
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command, *rest = line.split()
        answer = {}
        if command == "run":
            del ROWS[:]
            answer["cpu_ns"] = loops[rest[0]](engine, int(rest[1]))
        elif command == "start":
            caller = Caller(engine, int(rest[0]))
            caller.start()
        elif command == "stop":
            caller.ending = True
            caller.join()
            answer = {"calls": caller.calls, "wall_ns": caller.wall_ns}
        elif command == "wander":
            until = time.monotonic() + int(rest[0]) / 1000
            while time.monotonic() < until:
                sorted(range(9), key=lambda number: -number)
                time.sleep(0.001)
        print(json.dumps(answer), flush=True)
