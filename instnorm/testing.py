"""Gradient checks (being written)."""
