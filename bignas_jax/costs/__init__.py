"""What an architecture costs: MACs, parameters, latency, limits; no JAX."""
