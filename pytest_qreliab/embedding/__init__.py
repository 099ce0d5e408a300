"""Images and prompts, encoded by a model once and kept as arrays."""
