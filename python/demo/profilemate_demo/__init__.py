"""Runs the stand-in for vLLM as a server that serves itself requests."""
