"""Lets ProfileMate's helper wait in every Python program whose PYTHONPATH holds the folder of this file.

It has to be cheap, and it must never disturb the program. A `sitecustomize` that was there before is loaded as if
this were not here.
"""

import os
import sys


def _load_shadowed():
    # As they are in every interpreter: `importlib.util` would take longer to import than all of the helper.
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import PathFinder

    here = os.path.dirname(os.path.abspath(__file__))
    elsewhere = [folder for folder in sys.path if os.path.abspath(folder) != here]
    spec = PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        # Not guarded: if it raises, the program shall see what it would have seen without us.
        spec.loader.exec_module(module)


try:
    import profilemate_helper

    profilemate_helper.start()
except BaseException:
    # Whatever it is, it is not the program's business.
    pass
_load_shadowed()
