"""Mistakes and how commands end, types and ranges, stored JSON."""
