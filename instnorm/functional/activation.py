"""Activations, and softmax."""

from __future__ import annotations

from instnorm import _primitives as ops
from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor


def relu(input: Input) -> Tensor:
    """``max(0, x)`` of each element; its gradient at 0 is 0."""
    return ops.LeakyReLU.apply(as_tensor(input, "input"), 0.0)


def leaky_relu(input: Input, negative_slope: float = 0.01) -> Tensor:
    """``x`` of each element above 0, ``negative_slope * x`` of the others."""
    return ops.LeakyReLU.apply(as_tensor(input, "input"), float(negative_slope))


def tanh(input: Input) -> Tensor:
    """Hyperbolic tangent of each element."""
    return as_tensor(input, "input").tanh()


def sigmoid(input: Input) -> Tensor:
    """``1 / (1 + exp(-x))`` of each element."""
    return as_tensor(input, "input").sigmoid()


def log_softmax(input: Input, dim: int) -> Tensor:
    """``x - log(sum(exp(x)))`` along an axis, computed without overflow."""
    return as_tensor(input, "input").log_softmax(dim)


def softmax(input: Input, dim: int) -> Tensor:
    """``exp(x) / sum(exp(x))`` along an axis, computed without overflow."""
    return as_tensor(input, "input").softmax(dim)
