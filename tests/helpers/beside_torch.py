"""What the tests that hold instnorm to PyTorch share: tensors of both, and comparisons."""

import numpy as np
import pytest

from helpers.tensors import normal
from instnorm import Tensor

# Where it is not installed, a file of tests that imports it from here is skipped as a whole.
torch = pytest.importorskip("torch")

# On arrays as small as the tests', threads would only wait for each other.
torch.set_num_threads(1)


def torch_tensor(array):
    return torch.tensor(np.ascontiguousarray(array))


def torch_leaf(array):
    return torch_tensor(array).requires_grad_()


def in_torch(value):
    """The same in torch: arrays become its tensors, all else stays."""
    return torch_tensor(value) if isinstance(value, np.ndarray) else value


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
