"""Paired intervals, power and multiple testing, as pure functions on arrays."""
