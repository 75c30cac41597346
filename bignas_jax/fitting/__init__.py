"""From images and a time to chosen children: a config, a run, its artifacts."""
