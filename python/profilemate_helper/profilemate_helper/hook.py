"""Notices when a module has been imported.

A finder in front of `sys.meta_path` lets the others find the module, and puts itself between the import system and
the module's loader for the one moment in which the module is executed. Afterwards nothing of it can be seen.
"""

import sys

# How often what failed is tried again while nothing is imported.
TRIES = 25


def install(listener):
    """Tells `listener` of the modules that it watches, also of those that are there already. One of a kind."""
    if any(isinstance(finder, Finder) and type(finder.listener) is type(listener) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, Finder(listener))
    for name in list(listener.watched):
        module = sys.modules.get(name)
        # A module that is still being executed has not got its classes yet; its loader tells when it has.
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            listener.imported(name, module)


def remove(listener):
    """Tells it of no more modules."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "listener", None) is not listener]


class Arrival:
    """Waits for vLLM, and then makes the helper resident."""

    def __init__(self, forced):
        self.watched = {"vllm"}
        if forced:
            self.imported("", None)

    def imported(self, name, module):
        """vLLM is there. Never raises."""
        try:
            from . import resident

            resident.settle()
        except Exception as error:
            from . import say

            say("not resident: %r" % (error,))


class Methods:
    """Binds the methods of a plan as their modules come."""

    def __init__(self, plan, forced, binder=None):
        self.plan = plan
        self.binder = binder
        # Until vLLM is imported nothing is touched, unless the user says so: every Python program that the server
        # starts comes by here.
        self.active = forced
        self.waiting = {}
        self.watched = set(plan.methods) | {"vllm"}
        # What was not there when its module came, or failed: (module's name, name) and the module.
        self.failed = {}
        self.tries = TRIES

    def imported(self, name, module):
        """A watched module is complete. Never raises."""
        try:
            if not self.active and name.partition(".")[0] == "vllm":
                self.active = True
                waiting, self.waiting = self.waiting, {}
                for other, known in waiting.items():
                    self._bind(other, known)
            if self.active:
                self._again()
                self._bind(name, module)
            else:
                self.waiting[name] = module
        except BaseException as error:
            self.plan.report(module=name, qualname=None, slot=None, reason="the helper failed: %r" % (error,))

    def _bind(self, name, module):
        if self.binder is None:
            # Only now: most programs come by here without needing it, and it is slow to import.
            from .bind import Binder

            self.binder = Binder()
        for qualname in self.plan.methods.get(name, ()):
            if self.binder.bind(self.plan, name, module, qualname):
                self.failed[name, qualname] = module

    def _again(self):
        for (name, qualname), module in list(self.failed.items()):
            if not self.binder.bind(self.plan, name, module, qualname):
                self.failed.pop((name, qualname), None)

    def retry(self):
        """Tries again what was not there or failed, a few times. Gives whether anything was tried."""
        if not self.failed or self.tries == 0:
            return False
        self.tries -= 1
        self._again()
        return True


class Finder:
    """Finds nothing by itself."""

    def __init__(self, listener):
        self.listener = listener

    def find_spec(self, name, path=None, target=None):
        if name not in self.listener.watched:
            return None
        for finder in list(sys.meta_path):
            # Another finder of ours wraps what this one has found, and the other way round: each asks only those
            # that come after it.
            if finder is self or not hasattr(finder, "find_spec") or self._is_before(finder):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = Loader(self.listener, spec.loader)
                return spec
        return None

    def _is_before(self, finder):
        if not isinstance(finder, Finder):
            return False
        ours = [other for other in sys.meta_path if isinstance(other, Finder)]
        return self in ours and finder in ours and ours.index(finder) < ours.index(self)


class Loader:
    """Stands in for a loader while a module is executed."""

    def __init__(self, listener, real):
        self._listener = listener
        self._real = real

    def __getattr__(self, name):
        return getattr(self._real, name)

    def create_module(self, spec):
        create = getattr(self._real, "create_module", None)
        return None if create is None else create(spec)

    def exec_module(self, module):
        # The module shall see its own loader, also while it is executed.
        spec = module.__spec__
        spec.loader = self._real
        try:
            if module.__loader__ is self:
                module.__loader__ = self._real
        except AttributeError:
            pass
        self._real.exec_module(module)
        # A module may put another object in its place.
        self._listener.imported(spec.name, sys.modules.get(spec.name, module))
