"""Search algorithms over plain functions, without a network and without JAX."""
