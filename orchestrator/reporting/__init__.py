"""Shows what a run found: the report, its plots, and the tables of the terminal."""
