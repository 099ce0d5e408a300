"""Quantizers that need no training."""
