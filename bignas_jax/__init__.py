"""BigNAS in JAX: train one supernet, slice networks of any size from it."""

__version__ = '0.1.0'
