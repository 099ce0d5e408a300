"""The records and the reports of a run."""
