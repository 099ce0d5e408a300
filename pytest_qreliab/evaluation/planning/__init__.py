"""The plan of a run: its cases, gates and data. Needs no torch."""
