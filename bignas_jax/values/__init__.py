"""Checked values: errors, annotated types and ranges, stored JSON, text."""
