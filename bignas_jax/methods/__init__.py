"""A training step: children, losses, update, compiled programs."""
