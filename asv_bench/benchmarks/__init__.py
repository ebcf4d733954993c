"""Benchmarks that asv tracks over commits: `make bench`."""
