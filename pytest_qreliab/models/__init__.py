"""What a CLIP is here, where it comes from, and how to look inside."""
