"""Starts the helper in a program that runs already.

The tracer has the program run this in a thread of its own, with a call of `begin` and the helper's files behind it. The
files are not read from a disk: in a container the tracer's are not there. What stays is what stays of a helper that was
there from the start: its modules, and the thread that waits.
"""

import sys

PACKAGE = "profilemate_helper"


def begin(files):
    """Makes the helper resident, whose files' texts are given by name. Raises nothing: what fails is told as a state."""
    try:
        helper = sys.modules.get(PACKAGE)
        if not hasattr(helper, "load"):
            helper = import_from(files)
        helper.load()
    except BaseException as error:
        refuse("%s: %s" % (type(error).__name__, error))


def import_from(files):
    """Imports the package from texts. Its own file is the last: what it defines tells that all are there."""
    made = sys.modules[PACKAGE] = type(sys)(PACKAGE)
    made.__path__ = []
    made.__package__ = PACKAGE
    texts = dict(files)
    last = texts.pop("__init__")
    for name in ("plan", "hook", "page", "bind", "routing", "resident"):
        module = type(sys)(PACKAGE + "." + name)
        module.__package__ = PACKAGE
        sys.modules[module.__name__] = module
        setattr(made, name, module)
        run(texts[name], name, module)
    run(last, "__init__", made)
    return made


def run(text, name, module):
    exec(compile(text, "<profilemate helper>/%s.py" % name, "exec"), vars(module))


def refuse(reason):
    """Tells why there is no helper, where the tracer looks for one, and for as long as it looks."""
    try:
        import json
        import os
        import time

        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        fd = os.memfd_create("profilemate-helper", flags)
        state = {
            "helper": 1,
            "fd": fd,
            "pipe": 0,
            "python": "%d.%d.%d" % sys.version_info[:3],
            "state": "failed",
            "serial": 0,
            "reason": reason,
            "methods": [],
        }
        os.write(fd, json.dumps(state).encode())
        time.sleep(6)
        os.close(fd)
    except BaseException:
        # Then the tracer sees that nothing has come.
        pass
