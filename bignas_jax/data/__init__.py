"""Input data, from encoded images to batches; independent of architectures."""
