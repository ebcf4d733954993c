"""Activations, and softmax.

`inplace` is taken for PyTorch's sake: the result is always a new Tensor, as an input that was
overwritten would be lost to whatever else needs it.
"""

from __future__ import annotations

import math

from instnorm import _primitives as ops
from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor


def relu(input: Input, inplace: bool = False) -> Tensor:
    """``max(0, x)`` of each element; its gradient at 0 is 0."""
    return ops.LeakyReLU.apply(as_tensor(input, "input"), 0.0)


def leaky_relu(input: Input, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``x`` of each element above 0, ``negative_slope * x`` of the others."""
    return ops.LeakyReLU.apply(as_tensor(input, "input"), float(negative_slope))


def prelu(input: Input, weight: Input) -> Tensor:
    """``x`` of each element above 0, ``weight * x`` of the others.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, ...)
    weight : Tensor or ndarray of shape (1,) or (C,)

    Raises
    ------
    ValueError
        If `weight` has another shape.
    """
    input, weight = as_tensor(input, "input"), as_tensor(weight, "weight")
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.shape not in ((), (1,), (channels,)):
        raise ValueError(f"weight has shape {weight.shape}, expected (1,) or ({channels},)")
    if weight.shape == (channels,) and input.ndim > 1:
        weight = weight.reshape(-1, *(1 for _ in input.shape[2:]))
    return input.where(input.data > 0, input * weight)


def gelu(input: Input, approximate: str = "none") -> Tensor:
    """``x`` times the probability that a standard normal variable is less than x.

    Parameters
    ----------
    input : Tensor or ndarray
    approximate : {'none', 'tanh'}, default 'none'
        Whether to compute it by the error function, or approximately by tanh.

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", 2016,
    https://arxiv.org/abs/1606.08415
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    x = as_tensor(input, "input")
    if approximate == "none":
        return ops.GELU.apply(x)
    return x * 0.5 * (((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)).tanh() + 1)


def silu(input: Input, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)`` of each element."""
    return ops.SiLU.apply(as_tensor(input, "input"))


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


def softplus(input: Input) -> Tensor:
    """``log(1 + exp(x))`` of each element, computed without overflow."""
    return ops.Softplus.apply(as_tensor(input, "input"))
