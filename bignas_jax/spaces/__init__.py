"""Architectures as data, and what they cost; without JAX."""
