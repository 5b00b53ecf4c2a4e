"""Loads ProfileMate's helper into the Python programs that `profilemate trace -- CMD` starts.

The folder of this file stands on PYTHONPATH there, so every interpreter imports it at its start: it has to be cheap,
and it must never disturb the program. A `sitecustomize` that was there before is loaded as if this were not here.
"""

import os
import sys


def _start_helper():
    # Both are set by the tracer; "0" is the user's way to forbid it.
    if "PROFILEMATE_PAGE" not in os.environ or os.environ.get("VLLM_ENABLE_PROFILING") == "0":
        return
    try:
        import profilemate_helper

        profilemate_helper.start()
    except BaseException:
        # Whatever it is, it is not the program's business.
        pass


def _load_shadowed():
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    elsewhere = [folder for folder in sys.path if os.path.abspath(folder) != here]
    spec = PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        # Not guarded: if it raises, the program shall see what it would have seen without us.
        spec.loader.exec_module(module)


_start_helper()
_load_shadowed()
