"""How parameters get their first values, under the names of torch.nn.init.

All draws come from the generator that `manual_seed` restarts. The functions fill
Tensors, and ndarrays such as ``layer.weight.data``, in place, and return them.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from instnorm.creation import generator, manual_seed
from instnorm.tensor import Tensor

__all__ = [
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "manual_seed",
    "normal_",
    "ones_",
    "uniform_",
    "xavier_uniform_",
    "zeros_",
]

_T = TypeVar("_T", Tensor, npt.NDArray[Any])


def uniform_(tensor: _T, a: float = 0.0, b: float = 1.0) -> _T:
    """Fill with draws from the uniform distribution on [a, b)."""
    return _fill(tensor, generator().uniform(a, b, tensor.shape))


def normal_(tensor: _T, mean: float = 0.0, std: float = 1.0) -> _T:
    """Fill with draws from the normal distribution."""
    return _fill(tensor, generator().normal(mean, std, tensor.shape))


def constant_(tensor: _T, val: float) -> _T:
    """Fill with one value."""
    return _fill(tensor, np.asarray(val))


def ones_(tensor: _T) -> _T:
    """Fill with ones."""
    return constant_(tensor, 1)


def zeros_(tensor: _T) -> _T:
    """Fill with zeros."""
    return constant_(tensor, 0)


def kaiming_uniform_(tensor: _T, a: float = 0.0) -> _T:
    """Fill uniformly with variance 2 / ((1 + a^2) fan_in), for leaky ReLU of slope `a`.

    References
    ----------
    K. He et al., "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852
    """
    bound = math.sqrt(6 / ((1 + a * a) * fans(tensor)[0]))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: _T, a: float = 0.0) -> _T:
    """Fill normally with variance 2 / ((1 + a^2) fan_in), for leaky ReLU of slope `a`."""
    return normal_(tensor, 0, math.sqrt(2 / ((1 + a * a) * fans(tensor)[0])))


def xavier_uniform_(tensor: _T, gain: float = 1.0) -> _T:
    """Fill uniformly with variance 2 gain^2 / (fan_in + fan_out).

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", 2010
    """
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def fans(tensor: Tensor | npt.NDArray[Any]) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight of shape (out, in, kernel...)."""
    if tensor.ndim < 2:
        raise ValueError(f"a weight needs at least 2 axes, (out, in), got shape {tensor.shape}")
    kernel = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


def _fill(tensor: _T, values: npt.NDArray[np.float64]) -> _T:
    if isinstance(tensor, Tensor):
        tensor.data[...] = values
        tensor.mark_changed()
    else:
        tensor[...] = values
    return tensor
