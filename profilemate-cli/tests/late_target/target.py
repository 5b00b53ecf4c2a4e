"""Works, checks its own work, and tells at its end whether all of it was right. Given to `python -c`.

Arguments: what it does meanwhile. Ends when its input ends.
"""

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time

modes = set(sys.argv[1].split(","))
# What each mode counts: it goes on until it has done all of them.
COUNTED = {"forks": "children", "signals": "handled", "raising": "raised"}
wanted = [COUNTED[mode] for mode in sorted(modes) if mode in COUNTED]
asked = False
count = {"works": 0, "children": 0, "handled": 0, "raised": 0, "caught": 0}
wrong = []


class Alarm(Exception):
    pass


class Thing:
    def __init__(self, number):
        self.number = number

    # Slots and keys are called from C: the eval loop is entered for them on every version.
    def __len__(self):
        return self.number

    def __lt__(self, other):
        return self.number < other.number


@contextlib.contextmanager
def doubled(number):
    try:
        yield number * 2
    except KeyError as error:
        assert error.args == (number,)


def fail(number):
    raise ValueError(number)


def depth(number):
    return 0 if number == 0 else 1 + depth(number - 1)


def work(seed):
    assert sorted(range(60), key=lambda value: value * 7919 % 61) == ORDER
    assert [len(thing) for thing in sorted(Thing(number * 31 % 37) for number in range(37))] == list(range(37))
    assert sum(1 / number for number in range(1, 200)) == HARMONIC
    assert 3 ** (seed % 50 + 100) % 1000003 == pow(3, seed % 50 + 100, 1000003)
    assert sum(value * value for value in range(100)) == 328350
    try:
        list(map(fail, [seed]))
        wrong.append("no ValueError")
    except ValueError as error:
        assert error.args == (seed,)
    with doubled(seed) as double:
        assert double == 2 * seed
        raise KeyError(seed)
    assert depth(50) == 50
    count["works"] += 1


ORDER = sorted(range(60), key=lambda value: value * 7919 % 61)
HARMONIC = sum(1 / number for number in range(1, 200))


def checked(seed):
    """Works. What a signal's handler raises must come out here, and nothing else."""
    try:
        work(seed)
    except Alarm:
        count["caught"] += 1
    except BaseException as error:
        wrong.append(repr(error))


def aside():
    seed = 0
    while not ended:
        checked_aside(seed)
        seed += 1


def checked_aside(seed):
    try:
        work(seed)
    except BaseException as error:
        wrong.append(repr(error))


def on_alarm(number, frame):
    count["handled"] += 1
    if "raising" in modes and count["handled"] % 50 == 0:
        count["raised"] += 1
        raise Alarm


def fork():
    pid = os.fork()
    if pid == 0:
        before = len(wrong)
        for seed in range(5):
            checked_aside(seed)
        os._exit(0 if len(wrong) == before else 1)
    if os.waitpid(pid, 0)[1]:
        wrong.append("a child failed")
    count["children"] += 1


ended = False
threads = [threading.Thread(target=aside) for _ in range(3 if "threads" in modes else 0)]
for thread in threads:
    thread.start()
if "signals" in modes:
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
names = set(globals())
print("ready", flush=True)
if "blocked" in modes:
    sys.stdin.readline()
seed = 0
input_ended = False
# Two loops: a handler may run, and raise, at the inner one's jump back too.
while not input_ended:
    try:
        while not input_ended:
            checked(seed)
            if "forks" in modes:
                fork()
            seed += 1
            asked = asked or bool(select.select([0], [], [], 0)[0])
            if asked and all(count[name] for name in wanted):
                modes.discard("raising")
                input_ended = True
    except Alarm:
        count["caught"] += 1
signal.setitimer(signal.ITIMER_REAL, 0)
ended = True
for thread in threads:
    thread.join()
# Names of ours that are there now; Python itself warns of forks beside threads.
left = sorted(set(globals()) - names - {"names", "seed", "input_ended", "__warningregistry__"})
print(json.dumps({"count": count, "wrong": wrong[:5], "left": left}), flush=True)
