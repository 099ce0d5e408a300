"""Recipes that quantize a CLIP, and how they work."""
