"""Threads that are stuck at known lines, for `where`: the lines are told on stdout."""

import sys
import threading
import time


class Server:
    def serve(self, depth):
        if depth:
            # A call through C in the middle of the stack.
            return list(map(self.serve, [depth - 1]))
        return self.wait()

    def wait(self):
        told = ("a statement",
                "of several lines")
        print("line", sys._getframe().f_lineno + 1, flush=True)
        time.sleep(120)
        return told


def other():
    event = threading.Event()
    for _ in range(3):
        event.wait(120)


def main():
    threading.Thread(target=other, name="other", daemon=True).start()
    time.sleep(0.2)
    Server().serve(2)


main()
