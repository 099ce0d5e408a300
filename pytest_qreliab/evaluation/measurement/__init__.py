"""Metrics of one model, and their changes between two, from arrays alone."""
