"""Image sets, their sources, corruptions, preprocessing and recordings."""
