"""Quantizers: recipes, and how they work."""
