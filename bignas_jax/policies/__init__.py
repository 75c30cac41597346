"""Policies: which children a training step trains."""
