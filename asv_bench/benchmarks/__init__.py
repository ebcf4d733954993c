"""Benchmarks that asv tracks."""
