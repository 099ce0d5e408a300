"""From the plan of a run to the verdict of every gate."""
