"""Metrics as pure functions on arrays, and the grammar of their names."""
