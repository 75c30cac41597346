"""Search algorithms over functions; they know no network and no JAX."""
