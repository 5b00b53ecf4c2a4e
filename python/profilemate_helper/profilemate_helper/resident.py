"""The helper in a process that serves: it waits for a tracer, and touches nothing until one comes.

How a tracer finds it: the process has a memfd named `profilemate-helper`, in which stands a JSON object, the state:

    helper     version of this protocol
    fd         the memfd's own number in this process; another number means a copy, to be passed over
    pipe       number of the pipe on which the tracer speaks
    python     "3.11.7"
    state      waiting | bound | failed
    serial     grows with each plan that was read
    reason     why it failed
    sampling   why routers are not sampled any longer, if that failed
    methods    one object for each method of the plan: module, qualname, slot, reason

How it speaks: it locks the memfd (flock), so that there is one tracer only, and writes `PMH1`, the length (four bytes,
little endian) and the plan (see `plan`) to the pipe. The methods are bound for as long as the tracer keeps the lock.
When it lets go of it, or dies, the functions are put back. A plan that comes while another is bound adds to it.

A plan with `sample` has routers sampled as well (see `routing`), until a message `{"sampling": "end"}` comes, or the
lock is let go of: then the last sums are published, and the routers are put back.

The thread that waits is one more in the process: CPython 3.12 and newer warn (DeprecationWarning, hidden by default) of
a fork in a process with several threads. vLLM's processes have several anyway.

Both files are opened through /proc/PID/fd, which only root and the process's own user can do, and only they could
as well write into its memory.
"""

import fcntl
import json
import os
import select
import struct
import sys
import time
import _thread

PROTOCOL = 1
MEMFD = "profilemate-helper"
HEAD = struct.Struct("<4sI")
MAGIC = b"PMH1"
LONGEST = 1 << 20
# How soon a tracer that has gone is noticed. Only while methods are bound.
LOOK_MS = 200
# How often sampled routers are told of.
TELL_SEC = 1.0

_resident = None


def settle():
    """Makes the helper resident in this process, once."""
    global _resident
    if _resident is None:
        _resident = Resident()
        os.register_at_fork(after_in_child=_after_fork)
        _resident.begin()


def _after_fork():
    """A forked child has copies of what was bound, but not the thread that waits."""
    try:
        _resident.begin_again()
    except Exception:
        # Then nobody can be served in it.
        pass


class Resident:
    """The state of this process."""

    def __init__(self):
        self.binder = None
        self.listener = None
        self.sampler = self.routers = None
        self.serial = 0
        self.memfd = self.reader = self.writer = -1
        self.sample_failure = None
        # Where the tracer's lock is: the process in which it found us, whose copy this one may be.
        self.lock = -1

    def begin(self):
        self.reader, self.writer = os.pipe()
        self.memfd = os.memfd_create(MEMFD, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.identity = [os.fstat(fd).st_ino for fd in (self.reader, self.memfd)]
        if self.listener is None:
            self.watch_own_lock()
        self.tell("bound" if self.listener else "waiting")
        _thread.start_new_thread(self.serve, ())

    def begin_again(self):
        if not self.same_files():
            # The program has closed them before: the numbers are somebody else's.
            return
        for fd in (self.reader, self.writer, self.memfd):
            os.close(fd)
        if self.binder is not None:
            self.binder.forked()
        self.begin()

    def watch_own_lock(self):
        """A forked child of a bound process watches its parent's lock, until that tracer has gone."""
        if self.lock >= 0:
            os.close(self.lock)
        # Opened anew, because a lock belongs to what was opened, not to the file.
        self.lock = os.open("/proc/self/fd/%d" % self.memfd, os.O_RDWR | os.O_CLOEXEC)

    def serve(self):
        """The thread. It holds no lock while it waits, and ends quietly when something is wrong."""
        try:
            poll = select.poll()
            poll.register(self.reader, select.POLLIN)
            while True:
                ready = poll.poll(None if self.listener is None else LOOK_MS)
                if not self.same_files():
                    # The program has closed what it did not open.
                    return
                if ready:
                    self.receive()
                elif self.listener is not None and self.is_free():
                    self.release()
                elif self.sampler is not None and time.monotonic() >= self.due:
                    self.due = time.monotonic() + TELL_SEC
                    self.tell_samples()
                elif self.listener is not None and self.listener.retry():
                    self.tell("bound", lines=self.listener.plan.said.values())
        except BaseException:
            # The interpreter ends, or is out of memory. Functions stay as they are: that is safe.
            return

    def same_files(self):
        """Whether the numbers still mean our files."""
        try:
            return [os.fstat(fd).st_ino for fd in (self.reader, self.memfd)] == self.identity
        except OSError:
            return False

    def is_free(self):
        """Whether no tracer holds the lock."""
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        fcntl.flock(self.lock, fcntl.LOCK_UN)
        return True

    def receive(self):
        """Reads a plan and binds its methods."""
        self.serial += 1
        try:
            text = self.message()
            if self.is_free():
                # Its sender has gone meanwhile, or is none.
                self.tell("bound" if self.listener else "waiting")
                return
            self.bind(text)
        except Exception as error:
            self.tell("failed", "%s: %s" % (type(error).__name__, error))
        else:
            self.tell("bound", lines=self.listener.plan.said.values())

    def message(self):
        magic, length = HEAD.unpack(self.exactly(HEAD.size))
        if magic != MAGIC or length > LONGEST:
            while select.select([self.reader], [], [], 0)[0]:
                os.read(self.reader, 1 << 16)
            raise ValueError("what was written to the pipe is no plan")
        return self.exactly(length).decode()

    def exactly(self, length):
        parts = []
        while length:
            if not select.select([self.reader], [], [], 5)[0]:
                raise ValueError("the plan ends early")
            part = os.read(self.reader, length)
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def bind(self, text):
        from . import hook, plan, say
        from .bind import Binder

        if self.listener is not None and json.loads(text).get("sampling") == "end":
            self.end_sampling()
            return
        found = plan.Plan(text)
        if self.binder is None:
            self.binder = Binder()
        if self.listener is not None:
            hook.remove(self.listener)
        self.listener = hook.Methods(found, forced=True, binder=self.binder)
        hook.install(self.listener)
        say("%d methods bound" % len(self.binder.standing))
        if found.sample is not None:
            self.sample(found.sample)

    def sample(self, wish):
        """Has every Nth call of routers counted from now on."""
        from . import hook, routing

        self.end_sampling()
        self.due = time.monotonic() + TELL_SEC
        self.sampler = routing.Sampler(max(1, int(wish["every"])))
        self.routers = routing.Routers(self.sampler, wish["routers"])
        hook.install(self.routers)

    def tell_samples(self):
        """Publishes the sums. What fails here is no reason to let the methods be."""
        try:
            self.sampler.tell()
        except Exception as error:
            self.sampler.fail(error)
        if self.sampler.failure != self.sample_failure:
            self.sample_failure = self.sampler.failure
            self.tell("bound", lines=self.listener.plan.said.values())

    def end_sampling(self):
        """Tells the last sums, and puts the routers back."""
        from . import hook

        if self.sampler is None:
            return
        hook.remove(self.routers)
        self.sampler.restore()
        self.tell_samples()
        self.sampler = self.routers = None

    def release(self):
        from . import hook, say

        self.end_sampling()
        hook.remove(self.listener)
        self.listener = None
        if self.binder is not None:
            self.binder.release()
        self.watch_own_lock()
        self.tell("waiting")
        say("the tracer has gone, methods are as they were")

    def tell(self, state, reason=None, lines=()):
        text = json.dumps(
            {
                "helper": PROTOCOL,
                "fd": self.memfd,
                "pipe": self.reader,
                "python": "%d.%d.%d" % sys.version_info[:3],
                "state": state,
                "serial": self.serial,
                "reason": reason,
                "sampling": self.sample_failure,
                "methods": list(lines),
            }
        ).encode()
        # The length first: a reader that comes in between finds no whole JSON, and looks again.
        os.ftruncate(self.memfd, 0)
        os.pwrite(self.memfd, text, 0)
