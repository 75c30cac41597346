"""A training step as data: children, losses, update, compiled programs."""
