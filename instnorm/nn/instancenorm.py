"""InstanceNorm1d, 2d and 3d, and the lazy three: PyTorch's layers."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from instnorm import arrays
from instnorm import functional as F
from instnorm.nn import init
from instnorm.nn.lazy import LazyModuleMixin
from instnorm.nn.module import Module
from instnorm.nn.parameter import (
    Parameter,
    UninitializedBuffer,
    UninitializedParameter,
    checked_dtype,
    is_lazy,
)
from instnorm.tensor import Tensor


def _parameter(name: str) -> property:
    """An attribute that is found at once: by way of Module.__getattr__ it takes ten times as long.

    Where there is no such parameter, Python goes on to ask `__getattr__`, which knows what to say.
    """

    def get(module: Module) -> Parameter | None:
        try:
            return module._parameters[name]
        except KeyError:
            raise AttributeError from None

    return property(get)


class _InstanceNorm(Module):
    """What the three ranks share; they differ in the input that they accept."""

    weight, bias = _parameter("weight"), _parameter("bias")

    _unbatched_ndim: ClassVar[int]
    _version = 2  # as in PyTorch, whose state dicts of version 1 have no num_batches_tracked

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
        *,
        bias: bool = True,
        activation: str | None = None,
        negative_slope: float | npt.ArrayLike = 0.01,
        inplace: bool = False,
    ) -> None:
        super().__init__()
        self.num_features = _checked_num_features(num_features)
        self.eps = eps
        arrays.checked_eps(eps)
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        dtype = checked_dtype(device, dtype)
        self.activation = activation
        self.inplace = inplace
        self._set_slope(negative_slope, dtype)
        self._make_state(dtype, bias)
        self.reset_parameters()

    def _set_slope(self, negative_slope: Any, dtype: np.dtype[Any]) -> None:
        """A number stays one; an array is a PReLU's slope, which is learned."""
        if isinstance(negative_slope, Tensor):
            negative_slope = negative_slope.data
        channels = self.num_features or np.size(negative_slope)  # a lazy layer knows none yet
        slope, given = arrays.checked_slope(self.activation, negative_slope, channels)
        if given is not None and self.activation == "leaky_relu":
            self.negative_slope = Parameter(slope.astype(dtype))
        else:
            self.negative_slope = negative_slope

    def _make_state(self, dtype: np.dtype[Any], bias: bool) -> None:
        affine, tracked = self.affine, self.track_running_stats
        self.register_parameter("weight", self._new_parameter(dtype) if affine else None)
        self.register_parameter("bias", self._new_parameter(dtype) if affine and bias else None)
        self.register_buffer("running_mean", self._new_buffer(dtype) if tracked else None)
        self.register_buffer("running_var", self._new_buffer(dtype) if tracked else None)
        # State dicts of PyTorch's layer hold this counter. It stays 0, as it does there.
        self.register_buffer(
            "num_batches_tracked", Tensor(np.zeros((), np.int64)) if tracked else None
        )

    def _new_parameter(self, dtype: np.dtype[Any]) -> Parameter:
        return Parameter(np.empty(self.num_features, dtype))

    def _new_buffer(self, dtype: np.dtype[Any]) -> Tensor:
        return Tensor(np.empty(self.num_features, dtype))

    def reset_running_stats(self) -> None:
        """Set the running mean to 0 and the running variance to 1."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0, and reset the running statistics."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(
        self,
        input: Tensor | npt.NDArray[Any],
        mask: Tensor | npt.NDArray[np.bool_] | None = None,
        residual: Tensor | npt.NDArray[Any] | None = None,
    ) -> Tensor:
        """Normalize a batch, or a single sample without the axis N."""
        if not isinstance(input, Tensor):
            input = F.as_tensor(input, "input")
        shape = input.data.shape
        dim = len(shape) - self._unbatched_ndim
        if dim not in (0, 1) or shape[dim] != self.num_features:
            self._refuse(shape)
        if dim == 1:
            return self._normalized(input, mask, residual)
        if mask is not None:
            mask = F.as_tensor(mask, "mask").reshape(1, *mask.shape)
        if residual is not None:
            residual = F.as_tensor(residual, "residual").reshape(1, *residual.shape)
        return self._normalized(input.reshape(1, *shape), mask, residual).reshape(shape)

    def _normalized(self, input: Tensor, mask: Any, residual: Any) -> Tensor:
        # Read from the tables, as an attribute found by Module.__getattr__ takes a microsecond.
        parameters, buffers = self._parameters, self._buffers
        arguments = (
            input,
            buffers["running_mean"],
            buffers["running_var"],
            parameters["weight"],
            parameters["bias"],
            self.training or not self.track_running_stats,
            self.momentum,
            self.eps,
        )
        if mask is None and residual is None and self.activation is None and not self.inplace:
            return F.instance_norm(*arguments)
        return F.instance_norm(
            *arguments,
            mask=mask,
            residual=residual,
            activation=self.activation,
            negative_slope=self.negative_slope,
            inplace=self.inplace,
        )

    def _refuse(self, shape: tuple[int, ...]) -> None:
        """Tell what is wrong with the shape of an input; a warning where it does not matter."""
        dim = self._channel_dim(shape)
        if self.affine or self.track_running_stats:
            raise ValueError(
                f"expected input's size at dim={dim} to match num_features ({self.num_features}), "
                f"but got: {shape[dim]}."
            )
        warnings.warn(
            f"input's size at dim={dim} does not match num_features: got {shape[dim]}, "
            f"expected {self.num_features}. Nothing else depends on num_features here, because "
            "affine=False and track_running_stats=False",
            UserWarning,
            stacklevel=4,
        )

    def _channel_dim(self, shape: tuple[int, ...]) -> int:
        """Where C is in an input of this shape; ValueError if its rank does not fit."""
        ndim = len(shape)
        dim = ndim - self._unbatched_ndim
        if dim not in (0, 1):
            raise ValueError(
                f"expected {self._unbatched_ndim}D or {self._unbatched_ndim + 1}D input "
                f"(got {ndim}D input): its shape is {shape}"
            )
        return dim

    def _added_since(self, version: int | None) -> tuple[str, ...]:
        return ("num_batches_tracked",) if version is None or version < 2 else ()

    def _state_advice(self, prefix: str, unexpected: list[str]) -> str:
        names = [prefix + name for name in ("running_mean", "running_var")]
        found = [f'"{name}"' for name in names if name in unexpected]
        if self.track_running_stats or not found:
            return ""
        kind = type(self).__name__
        return (
            f"Unexpected running stats buffer(s) {' and '.join(found)} for {kind} with "
            "track_running_stats=False, which is the default (and was not before PyTorch 0.4). "
            f"Create the {kind} with track_running_stats=True to use them, delete them from the "
            "state dict, or load with strict=False to skip them."
        )

    def extra_repr(self) -> str:
        """Return the constructor's arguments; of what follows the norm, where something does."""
        text = (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )
        if self.activation is not None:
            text += f", activation={self.activation!r}"
        if self.activation == "leaky_relu":
            slope = self.negative_slope
            text += f", negative_slope={slope.shape if isinstance(slope, Parameter) else slope}"
        return text + (", inplace=True" if self.inplace else "")


_DOCSTRING = """Instance normalization of {what} inputs.

    Each channel of each sample is normalized by its own mean and biased variance:

    .. math::
        y = \\frac{{x - \\mathrm{{mean}}}}{{\\sqrt{{\\mathrm{{var}} + \\epsilon}}}}
            \\cdot weight + bias

    Parameters
    ----------
    num_features : int
        C, the number of channels.
    eps : float, default 1e-5
        Added to the variance; finite and not negative.
    momentum : float or None, default 0.1
        Share of the new value in the running statistics; None freezes them.
    affine : bool, default False
        Whether to learn `weight` and `bias`, which start at 1 and 0.
    track_running_stats : bool, default False
        Whether to keep running statistics, and normalize by them in evaluation.
    device : {{None, 'cpu'}}, optional
        For PyTorch's sake.
    dtype : dtype, optional
        Of parameters and buffers; float32 by default.
    bias : bool, default True
        Whether `affine` includes a bias.
    activation : {{None, "relu", "leaky_relu"}}, default None
        Applied to the result, in the same pass.
    negative_slope : float or array_like of shape (1,) or (C,), default 0.01
        What the leaky ReLU multiplies negative numbers by. An array holds the initial
        values of a parameter that is learned, as a PReLU's.
    inplace : bool, default False
        Whether the output takes the input's memory: see `functional.instance_norm`.

    Shape
    -----
    Input and output: {shapes}; at least two spatial elements where the input's own
    statistics are used. `forward` takes a `mask` of bool as well, of the input's shape without
    C, and a `residual` of the input's shape, which is added before the activation.

    Raises
    ------
    TypeError
        If the input is not of a float dtype.
    ValueError
        If the input's rank or channel count does not fit, or it has just one spatial
        element; from the constructor, if an argument is out of range.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing
    Ingredient for Fast Stylization", 2016, https://arxiv.org/abs/1607.08022;
    torch.nn.InstanceNorm{rank}d of PyTorch 2.13

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> layer = instnorm.nn.InstanceNorm{rank}d(3, affine=True)
    >>> y = layer(np.random.default_rng(0).normal(5, 2, {example}))
    >>> y.shape, bool(abs(y.mean()) < 1e-12)
    ({example}, True)
    """


class InstanceNorm1d(_InstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(
        what="sequence", rank=1, shapes="(N, C, L) or (C, L)", example="(2, 3, 8)"
    )
    _unbatched_ndim = 2


class InstanceNorm2d(_InstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(
        what="image", rank=2, shapes="(N, C, H, W) or (C, H, W)", example="(2, 3, 8, 8)"
    )
    _unbatched_ndim = 3


class InstanceNorm3d(_InstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(
        what="volume", rank=3, shapes="(N, C, D, H, W) or (C, D, H, W)", example="(2, 3, 4, 4, 4)"
    )
    _unbatched_ndim = 4


class _LazyInstanceNorm(LazyModuleMixin, _InstanceNorm):
    """What the three lazy ranks share."""

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
        *,
        bias: bool = True,
        **epilogue: Any,
    ) -> None:
        super().__init__(
            0, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, **epilogue
        )

    def _new_parameter(self, dtype: np.dtype[Any]) -> Parameter:
        return UninitializedParameter(dtype=dtype)

    def _new_buffer(self, dtype: np.dtype[Any]) -> Tensor:
        return UninitializedBuffer(dtype=dtype)

    def reset_parameters(self) -> None:
        """Reset what is initialized: all or nothing."""
        if not self.has_uninitialized_params():
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor | npt.NDArray[Any]) -> None:
        """Take num_features from the input, or from what a state dict has initialized."""
        input = F.as_tensor(input, "input")
        self._channel_dim(input.shape)
        state = {
            init.ones_: (self.weight, self.running_var),
            init.zeros_: (self.bias, self.running_mean),
        }
        known = [t.shape[0] for tensors in state.values() for t in tensors if _has_axes(t)]
        self.num_features = (known or [input.shape[input.ndim - self._unbatched_ndim]])[0]
        for fill, tensors in state.items():
            for tensor in tensors:
                if is_lazy(tensor):
                    tensor.materialize(self.num_features)
                    fill(tensor)


_LAZY_DOCSTRING = """InstanceNorm{rank}d that takes `num_features` from the first input.

    Until then `weight`, `bias`, `running_mean` and `running_var` are uninitialized. The
    first call makes the layer an `InstanceNorm{rank}d`, in place.

    Parameters
    ----------
    eps, momentum, device, dtype, bias, activation, negative_slope, inplace
        As those of `InstanceNorm{rank}d`.
    affine, track_running_stats : bool, default True
        As those of `InstanceNorm{rank}d`, but for the default.

    Shape
    -----
    Input and output: {shapes}.

    Raises
    ------
    ValueError
        If the input's rank does not fit: the layer stays as it was.

    References
    ----------
    torch.nn.LazyInstanceNorm{rank}d of PyTorch 2.13, which takes L, H or D for C where the
    input is unbatched, and fails after loading a state dict

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> layer = instnorm.nn.LazyInstanceNorm{rank}d()
    >>> layer.weight
    <UninitializedParameter>
    >>> y = layer(np.ones({example}))
    >>> type(layer).__name__, layer.weight.shape
    ('InstanceNorm{rank}d', (3,))
    """


class LazyInstanceNorm1d(_LazyInstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _LAZY_DOCSTRING.format(rank=1, shapes="(N, C, L) or (C, L)", example="(2, 3, 8)")
    _unbatched_ndim = 2
    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyInstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _LAZY_DOCSTRING.format(
        rank=2, shapes="(N, C, H, W) or (C, H, W)", example="(2, 3, 8, 8)"
    )
    _unbatched_ndim = 3
    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyInstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _LAZY_DOCSTRING.format(
        rank=3, shapes="(N, C, D, H, W) or (C, D, H, W)", example="(2, 3, 4, 4, 4)"
    )
    _unbatched_ndim = 4
    cls_to_become = InstanceNorm3d


def _has_axes(tensor: Tensor | None) -> bool:
    """Whether it has a length: a state dict may have brought a scalar."""
    return tensor is not None and not is_lazy(tensor) and tensor.ndim > 0


def _checked_num_features(num_features: int) -> int:
    if isinstance(num_features, bool) or not isinstance(num_features, int | np.integer):
        raise TypeError(f"num_features must be an integer, got {type(num_features).__name__}")
    if num_features < 0:
        raise ValueError(f"num_features must not be negative, got {num_features}")
    return int(num_features)
