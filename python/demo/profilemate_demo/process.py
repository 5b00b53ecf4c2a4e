"""What every process of the demo does: a name, an end in time, no dying from Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time


def pid() -> int:
    return os.getpid()


def begin(title: str, deadline: float) -> None:
    """Sets up a child process."""
    set_title(title)
    end_by(deadline)
    # Ctrl-C goes to the whole group. The parent takes it and closes the pipes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def set_title(title: str) -> None:
    """Names the process; the kernel keeps 15 bytes."""
    try:
        with open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(title.encode()[:15])
    except OSError:
        pass  # Only a name.


def end_by(deadline: float) -> None:
    """Ends this process at `deadline` (CLOCK_MONOTONIC, seconds), whatever it is doing."""

    def expire() -> None:
        sys.stderr.write(f"profilemate demo: process {os.getpid()} ran past its deadline and ends\n")
        sys.stderr.flush()
        os._exit(4)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), expire)
    timer.name = "deadline"
    timer.daemon = True
    timer.start()


def end_with_stdin() -> None:
    """Ends this process, as SIGTERM would, when whoever started it closes the pipe to it, or dies."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def join_or_kill(child, seconds: float) -> None:
    """Waits for a child of `multiprocessing`, then asks it to end, then makes it."""
    child.join(seconds)
    for stop in (child.terminate, child.kill):
        if child.is_alive():
            stop()
            child.join(1.0)
