"""The pytest side: hooks, session, collection, fixtures, summary."""
