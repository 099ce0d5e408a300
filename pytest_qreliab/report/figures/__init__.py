"""Curves and figures of a case."""
