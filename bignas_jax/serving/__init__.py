"""The HTTP service of a child: limits, counters, an orderly end; a client."""
