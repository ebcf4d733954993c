"""The kernels inside other frameworks; each module imports its own, and nothing else does."""
