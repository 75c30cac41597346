"""From bytes to batches; nothing here knows an architecture."""
