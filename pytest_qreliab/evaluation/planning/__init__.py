"""What a run will do: its cases, gates and data. Needs no torch."""
