"""The kernels inside the real frameworks; each bridge imports its framework, nothing else does."""
