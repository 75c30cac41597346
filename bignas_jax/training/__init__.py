"""The training loop, its recovery and its monitoring."""
