"""Quantizers that are trained for a short while."""
