"""Cycles an element of the kernels' hot loops, on processors that need not be at hand."""
