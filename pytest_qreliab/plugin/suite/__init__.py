"""The reliability tests that the plugin ships."""
