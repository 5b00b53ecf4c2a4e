"""A target that calls one method in every way that Python knows, and counts what it did.

Writes one JSON object to the file given, at its end: how often each method was called, and what went wrong.
"""

import asyncio
import json
import os
import sys
import threading
import time


class Box:
    def __init__(self):
        self.n = 0
        self.queue = list(range(7))
        self.inner = {"key": 41}

    def plain(self, value, *, word=0):
        self.n += 1
        return value + word

    def fails(self, value):
        raise ValueError(value)

    def recurses(self, depth):
        return 0 if depth == 0 else 1 + self.recurses(depth - 1)

    def generates(self, count):
        yield from range(count)

    async def awaits(self, value):
        await asyncio.sleep(0)
        return value

    @classmethod
    def of_class(cls, value):
        return value

    @staticmethod
    def of_none(value):
        return value


class Sub(Box):
    def plain(self, value, *, word=0):
        return super().plain(value, word=word)


def function(value, other=2):
    return value * other


def main(seconds, path):
    box, sub = Box(), Sub()
    calls = dict.fromkeys(["plain", "fails", "recurses", "generates", "of_class", "of_none", "function"], 0)
    lock, wrong = threading.Lock(), []
    end = time.monotonic() + seconds

    def count(name, times=1):
        with lock:
            calls[name] += times

    def check(name, got, expected):
        if got != expected:
            with lock:
                wrong.append([name, repr(got), repr(expected)])

    def work(number):
        i = 0
        while time.monotonic() < end:
            i += 1
            check("plain", box.plain(i, word=3), i + 3)
            check("sub", sub.plain(i), i)
            check("star", box.plain(*[i], **{"word": 1}), i + 1)
            bound = box.plain
            check("map", list(map(bound, [1, 2])), [1, 2])
            count("plain", 5)
            try:
                box.fails(i)
                wrong.append(["fails", "no exception", ""])
            except ValueError as error:
                check("fails", error.args, (i,))
            count("fails")
            check("recurses", box.recurses(5), 5)
            count("recurses", 6)
            check("generates", sum(box.generates(4)), 6)
            count("generates")
            check("of_class", Sub.of_class(i), i)
            count("of_class")
            check("of_none", box.of_none(i), i)
            count("of_none")
            check("function", function(i, other=4), 4 * i)
            count("function")
            time.sleep(0.001)

    def fork():
        while time.monotonic() < end:
            child = os.fork()
            if child == 0:
                good = all(box.plain(i, word=2) == i + 2 for i in range(50)) and box.recurses(3) == 3
                os._exit(0 if good else 3)
            _, status = os.waitpid(child, 0)
            count("forks")
            if status:
                with lock:
                    wrong.append(["child", status, 0])
            time.sleep(0.005)

    calls["forks"] = 0
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)] + [threading.Thread(target=fork)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check("awaits", asyncio.run(box.awaits(5)), 5)
    with open(path, "w") as file:
        json.dump({"calls": calls, "wrong": wrong[:5]}, file)
    # A daemon thread is in a probed call when the interpreter ends.
    threading.Thread(target=spin, args=(box,), daemon=True).start()
    time.sleep(0.05)


def spin(box):
    while True:
        box.recurses(50)


if __name__ == "__main__":
    print("ready", flush=True)
    main(float(sys.argv[1]), sys.argv[2])
