"""Quantizers that belong to other libraries, and their files."""
