"""Architectures as data; without JAX."""
