"""How parameters get their first values, under the names of torch.nn.init.

All draws come from the generator that `manual_seed` restarts. The functions fill
Tensors, and ndarrays such as ``layer.weight.data``, in place, and return them.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from instnorm._missing import missing
from instnorm.creation import generator, manual_seed
from instnorm.tensor import Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "manual_seed",
    "normal_",
    "ones_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

# What PyTorch has and this package has not: what is nearest.
_INSTEAD = {
    "orthogonal_": "nearest: tensor.copy_(numpy.linalg.qr(numpy.random.randn(n, n))[0])",
    "eye_": "write tensor.copy_(instnorm.eye(*tensor.shape)) in a `with no_grad():` block",
    "dirac_": "instnorm does not have it; nearest: kaiming_normal_",
    "_calculate_fan_in_and_fan_out": "nearest: fans",
}

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


def trunc_normal_(
    tensor: _T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> _T:
    """Fill with draws from a normal distribution, those of them that lie in [a, b].

    Raises
    ------
    ValueError
        If next to none do: `mean` is more than 2 `std` away from them all.
    """
    if not a - 2 * std <= mean <= b + 2 * std or not a < b:
        raise ValueError(
            f"mean={mean} must be within 2 std={std} of the interval from a={a} to b={b}"
        )
    values = generator().normal(mean, std, tensor.shape)
    while True:
        outside = (values < a) | (values > b)
        if not outside.any():
            return _fill(tensor, values)
        values[outside] = generator().normal(mean, std, int(outside.sum()))


def ones_(tensor: _T) -> _T:
    """Fill with ones."""
    return constant_(tensor, 1)


def zeros_(tensor: _T) -> _T:
    """Fill with zeros."""
    return constant_(tensor, 0)


def kaiming_uniform_(
    tensor: _T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> _T:
    """Fill uniformly with variance gain^2 / fan.

    Parameters
    ----------
    tensor : Tensor or ndarray of shape (out, in, kernel...)
    a : float, default 0
        The slope of leaky ReLU.
    mode : {'fan_in', 'fan_out'}, default 'fan_in'
        Whether to keep the spread of what goes forwards, or of the gradients.
    nonlinearity : str, default 'leaky_relu'
        What comes after the layer; see `calculate_gain`.

    References
    ----------
    K. He et al., "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: _T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> _T:
    """Fill normally with variance gain^2 / fan; parameters as those of `kaiming_uniform_`."""
    return normal_(tensor, 0, _kaiming_std(tensor, a, mode, nonlinearity))


def xavier_uniform_(tensor: _T, gain: float = 1.0) -> _T:
    """Fill uniformly with variance 2 gain^2 / (fan_in + fan_out).

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", 2010
    """
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: _T, gain: float = 1.0) -> _T:
    """Fill normally with variance 2 gain^2 / (fan_in + fan_out); see `xavier_uniform_`."""
    return normal_(tensor, 0, gain * math.sqrt(2 / sum(fans(tensor))))


def calculate_gain(nonlinearity: str, param: float = 0.01) -> float:
    """Return the factor that makes up for what a nonlinearity takes from the spread.

    Parameters
    ----------
    nonlinearity : {'linear', 'sigmoid', 'tanh', 'relu', 'leaky_relu'}
    param : float, default 0.01
        The slope of leaky ReLU.
    """
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + param * param)),
    }
    if nonlinearity not in gains:
        raise ValueError(f"nonlinearity must be one of {', '.join(gains)}, got {nonlinearity!r}")
    return gains[nonlinearity]


def _kaiming_std(
    tensor: Tensor | npt.NDArray[Any], a: float, mode: str, nonlinearity: str
) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


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


def __getattr__(name: str) -> NoReturn:
    raise missing("instnorm.nn.init", name, __all__, _INSTEAD)
