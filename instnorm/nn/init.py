"""How parameters get their first values, under the names of torch.nn.init.

All draws come from one generator, which `manual_seed` restarts.
"""

from __future__ import annotations

import math

import numpy as np

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

_generator = np.random.default_rng()


def manual_seed(seed: int) -> None:
    """Restart the generator that initializes parameters, for reproducible models.

    Parameters
    ----------
    seed : int
        Not negative.

    Examples
    --------
    >>> import instnorm
    >>> instnorm.manual_seed(0)
    >>> first = instnorm.nn.Linear(2, 1)
    >>> instnorm.manual_seed(0)
    >>> second = instnorm.nn.Linear(2, 1)
    >>> bool((first.weight.data == second.weight.data).all())
    True
    """
    global _generator
    _generator = np.random.default_rng(seed)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with draws from the uniform distribution on [a, b)."""
    return _fill(tensor, _generator.uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with draws from the normal distribution."""
    return _fill(tensor, _generator.normal(mean, std, tensor.shape))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value."""
    return _fill(tensor, np.asarray(val))


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0)


def kaiming_uniform_(tensor: Tensor, a: float = 0.0) -> Tensor:
    """Fill uniformly with variance 2 / ((1 + a^2) fan_in), for leaky ReLU of slope `a`.

    References
    ----------
    K. He et al., "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852
    """
    bound = math.sqrt(6 / ((1 + a * a) * fans(tensor)[0]))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0) -> Tensor:
    """Fill normally with variance 2 / ((1 + a^2) fan_in), for leaky ReLU of slope `a`."""
    return normal_(tensor, 0, math.sqrt(2 / ((1 + a * a) * fans(tensor)[0])))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill uniformly with variance 2 gain^2 / (fan_in + fan_out).

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", 2010
    """
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def fans(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight of shape (out, in, kernel...)."""
    if tensor.ndim < 2:
        raise ValueError(f"a weight needs at least 2 axes, (out, in), got shape {tensor.shape}")
    kernel = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


def _fill(tensor: Tensor, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
    tensor.data[...] = values
    tensor.mark_changed()
    return tensor
