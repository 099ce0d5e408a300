"""Paired statistics: both models see the same samples, so every interval is on the difference. Pure functions."""
