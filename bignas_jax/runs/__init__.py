"""One run: its config, its directory, its checkpoints and its records."""
