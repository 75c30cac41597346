"""Deployment of a child: its package, its exports and its HTTP service."""
