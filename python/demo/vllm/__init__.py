"""A small stand-in for vLLM: same names and shapes, none of its code, no GPU.

It exists so that a tracer can be shown and tested where vLLM is not installed. It is a working
continuous-batching engine with paged key-value memory; only the model is a toy.
"""

from .version import __version__, __version_tuple__

__all__ = ["__version__", "__version_tuple__"]
