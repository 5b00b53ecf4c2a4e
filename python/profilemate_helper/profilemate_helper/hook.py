"""Notices when a module of the plan has been imported.

A finder in front of `sys.meta_path` lets the others find the module, and puts itself between the import system and
the module's loader for the one moment in which the module is executed. Afterwards nothing of it can be seen.
"""

import sys


def install(plan, forced):
    """Waits for the plan's modules, and takes those that are there already."""
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    finder = Finder(plan, forced)
    sys.meta_path.insert(0, finder)
    for name in list(finder.watched):
        module = sys.modules.get(name)
        # A module that is still being executed has not got its classes yet; its import was not ours to see.
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            finder.imported(name, module)


class Finder:
    """Finds nothing by itself."""

    def __init__(self, plan, forced):
        self.plan = plan
        self.binder = None
        # Until vLLM is imported nothing is touched, unless the user says so: every Python program that the server
        # starts comes by here.
        self.active = forced
        self.waiting = {}
        self.watched = set(plan.methods) | {"vllm"}

    def find_spec(self, name, path=None, target=None):
        if name not in self.watched:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = Loader(self, spec.loader)
                return spec
        return None

    def imported(self, name, module):
        """A watched module is complete. Never raises."""
        try:
            if not self.active and name.partition(".")[0] == "vllm":
                self.active = True
                waiting, self.waiting = self.waiting, {}
                for other, known in waiting.items():
                    self._bind(other, known)
            if self.active:
                self._bind(name, module)
            else:
                self.waiting[name] = module
        except BaseException as error:
            self.plan.report(module=name, qualname=None, slot=None, reason="the helper failed: %r" % (error,))

    def _bind(self, name, module):
        if self.binder is None:
            # Only now: most programs come by here without needing it, and it is slow to import.
            from .bind import Binder

            self.binder = Binder(self.plan)
        for qualname in self.plan.methods.get(name, ()):
            self.binder.bind(name, module, qualname)


class Loader:
    """Stands in for a loader while a module is executed."""

    def __init__(self, finder, real):
        self._finder = finder
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
        self._finder.imported(spec.name, sys.modules.get(spec.name, module))
