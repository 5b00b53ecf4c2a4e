"""ProfileMate's helper: lets chosen Python methods pass through a marker page, from inside the process.

It is for what cannot be done from outside: CPython 3.11, which calls Python functions without looking at their
`vectorcall`, and hosts on which no process may be traced. Standard library only. Nothing here ever raises into the
program.

Three ways lead to `start`: a `sitecustomize` on PYTHONPATH, a `.pth` line in site-packages, and vLLM's own plugin
entry point (`plugin`). A fourth, `load`, is taken in a program that runs already, if the user asks the tracer for it.
What happens then is the same:

- started by the tracer (PROFILEMATE_PAGE names a plan): the plan's methods are bound as their modules are imported;
- else the helper waits until vLLM is imported, and then for a tracer (`resident`). Until a tracer comes no method is
  touched, and a call costs what it always did.

VLLM_ENABLE_PROFILING=0 forbids all of it, 1 takes any program for vLLM, unset means: where vLLM is imported.
VLLM_PROFILING_VERBOSE=1 says on stderr what is done. VLLM_PROFILING_DIR is the tracer's, not read here.
"""

import os
import sys


def start():
    """Begins to wait for vLLM, or for the modules of the tracer's plan. Safe to call again, never raises."""
    wish = os.environ.get("VLLM_ENABLE_PROFILING")
    if wish == "0":
        return
    try:
        from . import hook

        name = os.environ.get("PROFILEMATE_PAGE")
        if name is None:
            hook.install(hook.Arrival(forced=wish == "1"))
        else:
            _begin(name, wish == "1")
    except Exception as error:
        say("not started: %r" % (error,))


def plugin():
    """vLLM's entry point `vllm.general_plugins`: called in each of its processes, where vLLM is imported already."""
    start()


def load():
    """Makes the helper resident now: a tracer has started it in a program that runs already. May raise."""
    if os.environ.get("VLLM_ENABLE_PROFILING") == "0":
        raise RuntimeError("VLLM_ENABLE_PROFILING=0 forbids it")
    from . import resident

    resident.settle()
    say("started by a tracer")


def say(text):
    """A line on stderr, if the user wants to know."""
    if os.environ.get("VLLM_PROFILING_VERBOSE") == "1":
        try:
            sys.stderr.write("profilemate helper, process %d: %s\n" % (os.getpid(), text))
        except Exception:
            pass


def _begin(name, forced):
    from . import hook, plan

    try:
        found = plan.read(name)
    except (OSError, ValueError, TypeError, KeyError) as error:
        # Without a plan there is no file to say so in. The tracer sees that there is no page.
        say("no plan: %r" % (error,))
        return
    if found.wants_this_python():
        hook.install(hook.Methods(found, forced))
    if found.resident:
        hook.install(hook.Arrival(forced))
