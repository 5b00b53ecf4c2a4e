"""Version of the PyTorch whose memory layout this package has."""

__version__ = "2.13.0+demo"
