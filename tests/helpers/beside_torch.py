"""What the tests that hold instnorm to PyTorch share: data, leaves and comparisons."""

import numpy as np
import torch

import instnorm
from instnorm import Tensor

# On arrays as small as the tests', threads would only wait for each other.
torch.set_num_threads(1)


def normal(*shape, seed=0):
    """Random numbers that depend on nothing but the arguments."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def leaf(array):
    """A Tensor of its own memory, in the layout of the array."""
    return Tensor(np.copy(array, order="K"), requires_grad=True)


def torch_tensor(array):
    return torch.tensor(np.ascontiguousarray(array))


def torch_leaf(array):
    return torch_tensor(array).requires_grad_()


def in_torch(value):
    """The same in torch: arrays become its tensors, all else stays."""
    return torch_tensor(value) if isinstance(value, np.ndarray) else value


# --- memory layouts -----------------------------------------------------------


def channels_last(array):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def strided(array):
    """Every other element of a larger array, backwards."""
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    view = wide[..., ::-2]
    view[...] = array
    return view


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    "channels last": channels_last,
    "fortran": np.asfortranarray,
    "strided": strided,
}


def memory_order(array):
    """The axes longer than 1, from the largest stride to the smallest."""
    axes = [axis for axis, size in enumerate(array.shape) if size > 1]
    return sorted(axes, key=lambda axis: -array.strides[axis])


# --- comparisons --------------------------------------------------------------


def assert_close(ours, theirs, eps=20):
    """Equal in shape and dtype, and in value to `eps` machine epsilons of the largest entry."""
    ours = ours.data if isinstance(ours, Tensor) else np.asarray(ours)
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    scale = max(1, np.abs(theirs).max(initial=0, where=np.isfinite(theirs)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=eps * np.finfo(ours.dtype).eps * scale)


def assert_same(ours, theirs, our_leaves=(), their_leaves=(), eps=20):
    """Equal in value, and after a backward pass from a random cotangent in the gradients."""
    assert_close(ours, theirs, eps)
    cotangent = normal(*ours.shape, seed=99).astype(ours.dtype)
    ours.backward(cotangent)
    theirs.backward(torch.tensor(cotangent))
    for our_leaf, their_leaf in zip(our_leaves, their_leaves, strict=True):
        assert_close(our_leaf.grad, their_leaf.grad, eps)


def assert_create_graph_changes_nothing(y, leaves):
    """Gradients are the same by the kernels and, where these are differentiable, by the graph."""
    cotangent = Tensor(normal(*y.shape, seed=1).astype(y.dtype))
    graphs = instnorm.grad(y, leaves, cotangent, create_graph=True)
    for with_graph, plain in zip(graphs, instnorm.grad(y, leaves, cotangent), strict=True):
        assert with_graph.dtype == plain.dtype
        scale = max(1, np.abs(plain.data).max())
        np.testing.assert_allclose(with_graph.data, plain.data, rtol=0, atol=2e-14 * scale)
