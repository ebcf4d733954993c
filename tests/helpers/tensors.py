"""Random numbers, leaves of the graph, and gradients by the kernels and by the graph."""

import numpy as np

import instnorm
from instnorm import Tensor


def normal(*shape, seed=0):
    """Random numbers that depend on nothing but the arguments."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def leaf(array):
    """A Tensor of its own memory, in the layout of the array."""
    return Tensor(np.copy(array, order="K"), requires_grad=True)


def assert_create_graph_changes_nothing(y, leaves):
    """Gradients are the same by the kernels and, where these are differentiable, by the graph."""
    cotangent = Tensor(normal(*y.shape, seed=1).astype(y.dtype))
    graphs = instnorm.grad(y, leaves, cotangent, create_graph=True)
    for with_graph, plain in zip(graphs, instnorm.grad(y, leaves, cotangent), strict=True):
        assert with_graph.dtype == plain.dtype
        scale = max(1, np.abs(plain.data).max())
        np.testing.assert_allclose(with_graph.data, plain.data, rtol=0, atol=2e-14 * scale)
