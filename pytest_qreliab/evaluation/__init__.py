"""The plan of a run, its measurements, and the verdict of every gate."""
