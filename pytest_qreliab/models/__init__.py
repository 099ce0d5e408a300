"""A CLIP, where it comes from, and how to look inside."""
