"""Puts C callables in the place of Python functions: each enters the marker page, which calls the function.

A method becomes a `method_descriptor`, as the methods of built-in types are. Calls, keywords, exceptions, subclasses,
`super()`, bound methods and pickling work as before, and there is no additional frame in tracebacks. What a
descriptor cannot do is look like a Python function: it has no `__code__`, `__globals__`, `__defaults__`,
`__annotations__`, `__wrapped__`, no `__func__` once bound, and `inspect` does not take it for a function. A function
for which that is known to matter is left alone.
"""

import _thread
import ctypes
import inspect
import types

from .page import Absent, Page, Unavailable

METH_FASTCALL_KEYWORDS = 0x80 | 0x02
# Attributes that a wrapper has by being one, and that no caller asks for.
HARMLESS = {"__wrapped__"}
SPECIAL = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


class MethodDef(ctypes.Structure):
    """`PyMethodDef` of the C interface."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


class Binder:
    """Binds methods to slots, and keeps alive for ever what the page points to."""

    def __init__(self):
        self.page = None
        self.unavailable = None
        self.kept = []
        # By function: its slot and the callable that stands in for it. They serve again after they were taken out.
        self.made = {}
        # What stands in a class or module now: (holder, name, function, callable).
        self.standing = []
        self.forked()

    def forked(self):
        """Another thread that was at work when this process was forked is not in it."""
        self.lock = _thread.allocate_lock()

    def bind(self, plan, name, module, qualname):
        """Binds one method if that is safe, and reports it by its name. Whether it is worth to try again later."""
        slot = reason = None
        again = False
        # The thread that waits for tracers and one that imports may come at the same time. Not for ever: rather a
        # method less than a server that stands.
        held = self.lock.acquire(timeout=5)
        try:
            holder, last = find_holder(module, qualname)
            slot = self._slot_of(holder, last)
            if slot is None:
                function = check(holder, last)
                slot = self._replace(plan, holder, last, function)
        except Unavailable as error:
            again = isinstance(error, Absent)
            reason = str(error)
        except Exception as error:
            again = True
            reason = "the helper failed: %r" % (error,)
        finally:
            if held:
                self.lock.release()
        plan.report(module=name, qualname=qualname, slot=slot, reason=reason)
        return again

    def release(self):
        """Puts the functions back. What somebody else has replaced since then is left alone."""
        for holder, last, function, callable_ in self.standing:
            if vars(holder).get(last) is callable_:
                put(holder, last, function)
        self.standing = []

    def _slot_of(self, holder, last):
        found = vars(holder)[last]
        for _, _, function, callable_ in self.standing:
            if callable_ is found:
                return self.made[id(function)][0]
        return None

    def _replace(self, plan, holder, last, function):
        slot, callable_ = self.made.get(id(function)) or self._make(plan, holder, last, function)
        put(holder, last, callable_)
        self.standing.append((holder, last, function, callable_))
        return slot

    def _make(self, plan, holder, last, function):
        page = self._page(plan)
        slot, entry = page.take_slot(function)
        name = last.encode()
        doc = documentation(function, isinstance(holder, type))
        definition = MethodDef(name, entry, METH_FASTCALL_KEYWORDS, doc)
        self.kept.append((function, definition, name, doc))
        if isinstance(holder, type):
            make = ctypes.pythonapi.PyDescr_NewMethod
            make.restype, make.argtypes = ctypes.py_object, [ctypes.py_object, ctypes.POINTER(MethodDef)]
            made = make(holder, ctypes.byref(definition))
        else:
            make = ctypes.pythonapi.PyCFunction_NewEx
            make.restype = ctypes.py_object
            make.argtypes = [ctypes.POINTER(MethodDef), ctypes.c_void_p, ctypes.py_object]
            # No `self`: that is how the page's code tells a function from a method.
            made = make(ctypes.byref(definition), None, function.__module__)
        self.made[id(function)] = slot, made
        return slot, made

    def _page(self, plan):
        if self.unavailable is not None:
            raise Unavailable(self.unavailable)
        if self.page is None:
            try:
                self.page = Page(plan)
            except (Unavailable, OSError, AttributeError) as error:
                self.unavailable = str(error)
                raise Unavailable(self.unavailable)
        return self.page


def put(holder, last, value):
    """Sets an attribute of a class or module, past what a metaclass may make of it."""
    if isinstance(holder, type):
        type.__setattr__(holder, last, value)
    else:
        setattr(holder, last, value)


def find_holder(module, qualname):
    """The class or module that holds a name, and the last part of the name."""
    *path, last = qualname.split(".")
    holder = module
    for part in path:
        holder = vars(holder).get(part)
        if not isinstance(holder, type):
            raise Absent("there is no class `%s` in the module" % part)
    if last not in vars(holder):
        raise Absent("there is no `%s` in it" % qualname)
    return holder, last


def check(holder, last):
    """The function behind a name, if a C callable can stand in for it."""
    found = vars(holder)[last]
    if not isinstance(found, types.FunctionType):
        raise Unavailable("it is a %s, not a plain function" % type(found).__name__)
    if found.__code__.co_flags & SPECIAL:
        raise Unavailable("it is a generator or a coroutine")
    extra = sorted(set(vars(found)) - HARMLESS)
    if extra:
        raise Unavailable("the function has attributes of its own: %s" % ", ".join(extra))
    return found


def documentation(function, is_method):
    """The doc string, with a signature in the form that `inspect` reads from C callables, where there is one."""
    doc = function.__doc__ or ""
    try:
        signature = inspect.signature(function, follow_wrapped=True)
        parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
        plain = (bool, int, float, str, type(None), type(inspect.Parameter.empty))
        if all(isinstance(p.default, plain) for p in parameters):
            text = str(inspect.Signature(parameters))
            if is_method:
                text = "($" + text[1:]
            doc = "%s%s\n--\n\n%s" % (function.__name__, text, doc)
    except (ValueError, TypeError):
        pass
    # Null bytes would end it; what cannot be encoded is no reason to fail.
    return doc.replace("\0", "").encode("utf-8", "replace")
