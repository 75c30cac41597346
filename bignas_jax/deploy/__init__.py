"""A child on its own: its package, its exports, its service."""
