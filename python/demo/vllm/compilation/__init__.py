"""Graphs of the model."""
