"""ProfileMate's helper: lets chosen Python methods pass through a marker page, from inside the process.

It is for CPython 3.11, which calls Python functions without looking at their `vectorcall`, so that they cannot be
redirected from outside. Standard library only. Nothing here ever raises into the program.
"""

import os


def start():
    """Reads the plan that PROFILEMATE_PAGE names, and waits for the modules in it. Safe to call again."""
    from . import hook, plan

    try:
        found = plan.read(os.environ["PROFILEMATE_PAGE"])
    except (KeyError, OSError, ValueError, TypeError):
        # Without a plan there is no file to say so in. The tracer sees that there is no page.
        return
    if found.wants_this_python():
        hook.install(found, forced=os.environ.get("VLLM_ENABLE_PROFILING") == "1")
