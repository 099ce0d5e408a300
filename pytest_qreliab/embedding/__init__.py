"""Images and prompts through a model, through the cache, into arrays."""
