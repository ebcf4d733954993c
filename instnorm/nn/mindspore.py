"""InstanceNorm1d, 2d and 3d with MindSpore's names and defaults, over the same functions.

They differ from PyTorch's in that `gamma` and `beta` are always there, learned by
default, and that the input's own statistics are used in evaluation too.
"""

from __future__ import annotations

from numbers import Number
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from instnorm import functional as F
from instnorm.nn.module import Module, Parameter
from instnorm.tensor import Tensor

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]

_INITIALIZERS = {"zeros": 0.0, "zero": 0.0, "ones": 1.0, "one": 1.0}


class _InstanceNorm(Module):
    """What the three ranks share; each accepts inputs of exactly one rank."""

    _ndim: ClassVar[int]
    _state_names = {"moving_mean": "mean", "moving_variance": "variance"}  # noqa: RUF012

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        gamma_init: Any = "ones",
        beta_init: Any = "zeros",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _check_type(name, "num_features", num_features, int)
        _check_type(name, "eps", eps, float)
        _check_type(name, "momentum", momentum, float)
        _check_type(name, "affine", affine, bool)
        if num_features < 1:
            raise ValueError(f"For '{name}', 'num_features' must be at least 1, got {num_features}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"For '{name}', 'momentum' must be in [0, 1], got {momentum}")
        if not 0 < eps <= 1:
            raise ValueError(f"For '{name}', 'eps' must be in (0, 1], got {eps}")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.gamma = Parameter(_initial(gamma_init, "gamma_init", num_features, dtype), affine)
        self.beta = Parameter(_initial(beta_init, "beta_init", num_features, dtype), affine)
        self.register_buffer("moving_mean", Tensor(np.zeros(num_features, dtype)))
        self.register_buffer("moving_variance", Tensor(np.ones(num_features, dtype)))

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Normalize a batch by its own statistics, in training and in evaluation."""
        input = F.as_tensor(input, "input")
        name = type(self).__name__
        if input.ndim != self._ndim:
            raise ValueError(
                f"For '{name}', the input must have {self._ndim} axes, got shape {input.shape}"
            )
        if input.shape[1] != self.num_features:
            raise ValueError(
                f"For '{name}', the input must have num_features ({self.num_features}) channels, "
                f"got shape {input.shape}"
            )
        return F.instance_norm(input, weight=self.gamma, bias=self.beta, eps=self.eps)

    def set_train(self, mode: bool = True) -> _InstanceNorm:
        """Set training mode, and return the layer."""
        return self.train(mode)

    def trainable_params(self, recurse: bool = True) -> list[Parameter]:
        """Return the parameters that require gradients."""
        return [p for p in self.parameters(recurse) if p.requires_grad]

    def extra_repr(self) -> str:
        """Return the constructor's arguments and the parameters' values."""
        return (
            f"num_features={self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}"
        )


_DOCSTRING = """Instance normalization of {what} inputs, with MindSpore's names and defaults.

    .. math::
        y = \\frac{{x - \\mathrm{{mean}}}}{{\\sqrt{{\\mathrm{{var}} + \\epsilon}}}}
            \\cdot \\gamma + \\beta

    Parameters
    ----------
    num_features : int
        C, the number of channels; at least 1.
    eps : float, default 1e-5
        Added to the variance; in (0, 1].
    momentum : float, default 0.1
        In [0, 1]. It has no effect: the moving statistics stay as they are.
    affine : bool, default True
        Whether `gamma` and `beta` require gradients; they are applied in either case.
    gamma_init, beta_init : str, number or array, default 'ones' and 'zeros'
        First values: an initializer's name, one number for all, or one for each channel.
    dtype : dtype, default float32
        Of parameters and moving statistics.

    Shape
    -----
    Input and output: {shapes}.

    Raises
    ------
    TypeError
        If `num_features` is no int, `eps` or `momentum` no float, `affine` no bool, or
        a first value none of what it may be.
    ValueError
        If an argument is out of range, or the input's rank or channel count does not fit.

    References
    ----------
    mindspore.nn.InstanceNorm{rank}d of MindSpore 2.10

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> layer = instnorm.nn.mindspore.InstanceNorm{rank}d(3)
    >>> list(layer.state_dict())
    ['gamma', 'beta', 'mean', 'variance']
    """


class InstanceNorm1d(_InstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(what="sequence", rank=1, shapes="(N, C, L)")
    _ndim = 3


class InstanceNorm2d(_InstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(what="image", rank=2, shapes="(N, C, H, W)")
    _ndim = 4


class InstanceNorm3d(_InstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(what="volume", rank=3, shapes="(N, C, D, H, W)")
    _ndim = 5


def _check_type(layer: str, name: str, value: object, expected: type) -> None:
    # bool is an int to Python, and not to MindSpore.
    if not isinstance(value, expected) or (expected is not bool and isinstance(value, bool)):
        raise TypeError(
            f"For '{layer}', the type of '{name}' must be {expected.__name__}, "
            f"got {type(value).__name__}"
        )


def _initial(value: Any, name: str, channels: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    if isinstance(value, str):
        if value.lower() not in _INITIALIZERS:
            raise ValueError(
                f"{name} must be one of {', '.join(_INITIALIZERS)}, a number or an array, "
                f"got {value!r}"
            )
        value = _INITIALIZERS[value.lower()]
    if not isinstance(value, Tensor | np.ndarray | Number):
        raise TypeError(
            f"{name} must be an initializer's name, a number or an array, "
            f"got {type(value).__name__}"
        )
    array = np.asarray(value.data if isinstance(value, Tensor) else value, dtype)
    if array.shape not in ((), (channels,)):
        raise ValueError(f"{name} has shape {array.shape}, expected ({channels},)")
    return np.broadcast_to(array, (channels,)).copy()
