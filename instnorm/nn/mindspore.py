"""InstanceNorm1d, 2d and 3d with MindSpore's names and defaults, over the same functions.

They differ from PyTorch's in that `gamma` and `beta` are always there, learned by
default, and that the input's own statistics are used in evaluation too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from numbers import Real
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from instnorm import arrays
from instnorm import functional as F
from instnorm.nn import init
from instnorm.nn.module import Module, array_from
from instnorm.nn.parameter import Parameter
from instnorm.tensor import Tensor

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]

Initializer: TypeAlias = (
    "str | float | Tensor | npt.NDArray[Any] | Callable[[npt.NDArray[Any]], object]"
)

_NORMAL = partial(init.normal_, std=0.01)

_INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": init.zeros_,
    "zero": init.zeros_,
    "ones": init.ones_,
    "one": init.ones_,
    "normal": _NORMAL,
    "uniform": partial(init.uniform_, a=-0.07, b=0.07),
    # MindSpore truncates at -2 and 2, which is at 200 standard deviations: nothing is cut off.
    "truncatednormal": _NORMAL,
}

# MindSpore's other initializers, which need a matrix and so fail for gamma and beta.
_OF_MATRICES = {
    "xaviernormal",
    "xavieruniform",
    "henormal",
    "heuniform",
    "identity",
    "sparse",
    "dirac",
    "orthogonal",
    "variancescaling",
}


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
        gamma_init: Initializer = "ones",
        beta_init: Initializer = "zeros",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        # In MindSpore's order: where two arguments are wrong, the same error is raised as there.
        self._check_type("num_features", num_features, int)
        self._check_type("eps", eps, float)
        self._check_type("momentum", momentum, float)
        self._check_type("affine", affine, bool)
        self._check_initializer("gamma_init", gamma_init)
        self._check_initializer("beta_init", beta_init)
        self._check_range("num_features", num_features, num_features >= 1, "at least 1")
        self._check_range("momentum", momentum, 0 <= momentum <= 1, "in [0, 1]")
        dtype = self._checked_dtype(dtype)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.gamma = self._new_parameter("gamma_init", gamma_init, dtype)
        self.beta = self._new_parameter("beta_init", beta_init, dtype)
        self.register_buffer("moving_mean", Tensor(np.zeros(num_features, dtype)))
        self.register_buffer("moving_variance", Tensor(np.ones(num_features, dtype)))
        self._check_range("eps", eps, 0 < eps <= 1, "in (0, 1]")

    def _check_type(self, name: str, value: object, expected: type) -> None:
        # In Python a bool is an int; MindSpore refuses it as one.
        if not isinstance(value, expected) or (expected is not bool and isinstance(value, bool)):
            raise TypeError(
                f"For '{type(self).__name__}', the type of '{name}' must be {expected.__name__}, "
                f"got {type(value).__name__}"
            )

    def _check_range(self, name: str, value: object, fits: bool, expected: str) -> None:
        if not fits:
            raise ValueError(
                f"For '{type(self).__name__}', '{name}' must be {expected}, got {value}"
            )

    def _check_initializer(self, name: str, value: object) -> None:
        if isinstance(value, type) or not (
            isinstance(value, str | Real | Tensor | np.ndarray) or callable(value)
        ):
            raise TypeError(
                f"For '{type(self).__name__}', {name} must be an initializer's name, a number, an "
                f"array, a Tensor or an initializer, got {type(value).__name__}"
            )
        if isinstance(value, Tensor) and value.dtype != np.float32:
            raise TypeError(
                f"For '{type(self).__name__}', {name} must be of dtype float32 where it is a "
                f"Tensor, got {value.dtype}"
            )

    def _checked_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        self._check_range("dtype", dtype, dtype is not None, "a floating point type")
        result = np.dtype(dtype)
        if not arrays.is_float_dtype(result):
            raise TypeError(
                f"For '{type(self).__name__}', 'dtype' must be a floating point type, got {result}"
            )
        return result

    def _new_parameter(self, name: str, value: Initializer, dtype: np.dtype[Any]) -> Parameter:
        parameter = Parameter(np.empty(self.num_features, dtype), self.affine)
        if isinstance(value, str):
            self._initializer(name, value)(parameter)
        elif isinstance(value, Tensor | np.ndarray):
            if value.shape != parameter.shape:
                raise ValueError(f"{name} has shape {value.shape}, expected {parameter.shape}")
            parameter.data[...] = array_from(value)
        elif callable(value):
            value(parameter.data)
        else:
            init.constant_(parameter, value)
        return parameter

    def _initializer(self, argument: str, name: str) -> Callable[[Tensor], Tensor]:
        if name.lower().replace("_", "") in _OF_MATRICES:
            raise ValueError(f"{argument}={name!r} cannot initialize a vector: it needs more axes")
        if name.lower() not in _INITIALIZERS:
            raise ValueError(
                f"{argument} must be one of {', '.join(_INITIALIZERS)}, a number or an array, "
                f"got {name!r}"
            )
        return _INITIALIZERS[name.lower()]

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
        return self.train(bool(mode))

    # MindSpore's lists have the moving statistics too. `expand` and `recurse` ask for what is in
    # the layers inside, of which there are none.

    def parameters_and_names(
        self, name_prefix: str = "", expand: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and moving statistics with the names of the attributes."""
        for name in ("moving_mean", "moving_variance", "gamma", "beta"):
            yield f"{name_prefix}.{name}" if name_prefix else name, getattr(self, name)

    def get_parameters(self, expand: bool = True) -> Iterator[Tensor]:
        """Yield parameters and moving statistics."""
        return (tensor for _, tensor in self.parameters_and_names())

    def parameters_dict(self, recurse: bool = True) -> OrderedDict[str, Tensor]:
        """Return parameters and moving statistics under the names of the state dict."""
        return OrderedDict((self._state_name("", n), t) for n, t in self.parameters_and_names())

    def trainable_params(self, recurse: bool = True) -> list[Tensor]:
        """Return the parameters that require gradients."""
        return [tensor for tensor in self.get_parameters() if tensor.requires_grad]

    def untrainable_params(self, recurse: bool = True) -> list[Tensor]:
        """Return the moving statistics, and the parameters that require no gradients."""
        return [tensor for tensor in self.get_parameters() if not tensor.requires_grad]

    def extra_repr(self) -> str:
        """Return the constructor's arguments and the tensors' shapes and dtypes."""
        tensors = ", ".join(
            f"{name}={_described(getattr(self, name), self._state_name('', name))}"
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (
            f"num_features={self.num_features}, eps={self.eps}, momentum={self.momentum}, {tensors}"
        )


def _described(tensor: Tensor, name: str) -> str:
    """Describe a Tensor as MindSpore describes its parameters."""
    dtype = tensor.dtype.name.replace("float", "Float").replace("bF", "BF")
    return (
        f"Parameter (name={name}, shape={tensor.shape}, dtype={dtype}, "
        f"requires_grad={tensor.requires_grad})"
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
    gamma_init, beta_init : str, number, array or callable, default 'ones' and 'zeros'
        First values: an initializer's name in either case ('zeros', 'ones', 'normal':
        of standard deviation 0.01, 'truncatedNormal': the same, 'uniform': from -0.07 to
        0.07), one number for all, a Tensor of float32 or an array of shape (C,), or what
        fills an array, as MindSpore's own initializers do.
    dtype : dtype, default float32
        Of parameters and moving statistics.

    Shape
    -----
    Input and output: {shapes}.

    Raises
    ------
    TypeError
        If `num_features` is no int, `eps` or `momentum` no float, `affine` no bool,
        `dtype` no floating point type, or a first value none of what it may be.
    ValueError
        If an argument is out of range, an initializer's name is unknown or one that
        needs more axes ('XavierNormal', 'HeUniform', ...), or the input's rank or
        channel count does not fit.

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
