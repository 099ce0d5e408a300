"""The pytest side: hooks, the session, collection, fixtures and the summary."""
