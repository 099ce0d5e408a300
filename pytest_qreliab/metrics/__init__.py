"""Metrics: pure functions on NumPy arrays. The conventions are fixed in each docstring."""
