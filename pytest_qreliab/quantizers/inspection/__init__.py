"""Inspection of quantized models: coverage, size, errors of weights."""
