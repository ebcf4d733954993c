"""Layers of toy models: convolution, linear, pooling, resizing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from instnorm import functional as F
from instnorm.nn import init
from instnorm.nn.module import Module
from instnorm.nn.parameter import Parameter
from instnorm.tensor import Tensor


class _Affine(Module):
    """A layer with a weight and a bias."""

    def _make_parameters(
        self,
        shape: tuple[int, ...],
        bias: bool,
        dtype: npt.DTypeLike | None,
        out_channels: int,
    ) -> None:
        dtype = np.float32 if dtype is None else dtype
        self.weight = Parameter(np.empty(shape, dtype))
        self.register_parameter("bias", Parameter(np.empty(out_channels, dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly from ±1 / sqrt(fan_in), as PyTorch does."""
        fan_in, _ = init.fans(self.weight)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)


class Linear(_Affine):
    """``x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool, default True
    dtype : dtype, optional
        Of the parameters; float32 by default.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self._make_parameters((out_features, in_features), bias, dtype, out_features)

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Map the last axis."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Unflatten(Module):
    """One axis in another shape: what undoes a `Flatten`.

    Parameters
    ----------
    dim : int
    unflattened_size : tuple of int
        One of them may be -1.
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        """Reshape."""
        axis = self.dim % input.ndim
        shape = input.shape
        return input.reshape(*shape[:axis], *self.unflattened_size, *shape[axis + 1 :])

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Identity(Module):
    """The input itself; any arguments are accepted and ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Return the input."""
        return F.as_tensor(input, "input")


class Flatten(Module):
    """Join the axes from `start_dim` to `end_dim`; by default all but the first."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Flatten."""
        return F.as_tensor(input, "input").flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Upsample(Module):
    """Resize to `size` or by `scale_factor`; parameters as those of `functional.interpolate`."""

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.scale_factor = (
            tuple(map(float, scale_factor))
            if isinstance(scale_factor, tuple)
            else scale_factor and float(scale_factor)
        )
        self.mode = mode
        self.align_corners = align_corners

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Resize the spatial axes."""
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        what = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{what}, mode={self.mode!r}"


class ReflectionPad2d(Module):
    """Pad images by reflection; `padding` is one width or (left, right, top, bottom)."""

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        super().__init__()
        self.padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pad the last two axes."""
        return F.pad(input, self.padding, mode="reflect")

    def extra_repr(self) -> str:
        """Return the widths."""
        return str(self.padding)
