"""Version of the vLLM whose names and shapes this package has."""

__version__ = "0.32.0+demo"
__version_tuple__ = (0, 32, 0, "demo")
