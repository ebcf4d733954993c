"""Layers of toy models: convolution, linear, pooling, resizing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from instnorm import functional as F
from instnorm.functional import windows
from instnorm.nn import init
from instnorm.nn.module import Module
from instnorm.nn.parameter import Parameter
from instnorm.tensor import Tensor


class _Affine(Module):
    """A layer with a weight of shape (out, in, kernel...) and a bias."""

    def _make_parameters(
        self, shape: tuple[int, ...], bias: bool, dtype: npt.DTypeLike | None
    ) -> None:
        dtype = np.float32 if dtype is None else dtype
        self.weight = Parameter(np.empty(shape, dtype))
        self.register_parameter("bias", Parameter(np.empty(shape[:1], dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly from ±1 / sqrt(fan_in), as PyTorch does."""
        fan_in, _ = init.fans(self.weight)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)


class Conv2d(_Affine):
    """Two-dimensional convolution.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (int, int)
    stride, padding, dilation : int or (int, int), default 1, 0, 1
    groups : int, default 1
        Only 1 is supported.
    bias : bool, default True
    padding_mode : {'zeros', 'reflect'}, default 'zeros'
    dtype : dtype, optional
        Of the parameters; float32 by default.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> conv = instnorm.nn.Conv2d(3, 8, kernel_size=3, padding=1)
    >>> conv(np.zeros((2, 3, 16, 16), np.float32)).shape
    (2, 8, 16, 16)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        if groups != 1:
            raise NotImplementedError(f"groups={groups} is not supported by Conv2d, expected 1")
        if padding_mode not in ("zeros", "reflect"):
            raise NotImplementedError(
                f"padding_mode={padding_mode!r} is not supported by Conv2d, "
                "expected 'zeros' or 'reflect'"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = windows.pair(kernel_size, "kernel_size", 1)
        self.stride = windows.pair(stride, "stride", 1)
        self.padding = windows.pair(padding, "padding", 0)
        self.dilation = windows.pair(dilation, "dilation", 1)
        self.padding_mode = padding_mode
        self._make_parameters((out_channels, in_channels, *self.kernel_size), bias, dtype)

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Convolve (N, C, H, W) or (C, H, W)."""
        input = F.as_tensor(input, "input")
        padding = self.padding
        if self.padding_mode == "reflect":
            (top, left), padding = padding, (0, 0)
            input = F.pad(input, (left, left, top, top), mode="reflect")
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation)

    def extra_repr(self) -> str:
        """Return the arguments that are not PyTorch's defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts.append(f"stride={self.stride}")
        if self.padding != (0, 0):
            parts.append(f"padding={self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={self.dilation}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


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
        self._make_parameters((out_features, in_features), bias, dtype)

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Map the last axis."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


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


class _Pool2d(Module):
    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool2d):
    """Largest element of each window; parameters as `functional.max_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pool (N, C, H, W)."""
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Pool2d):
    """Mean of each window; parameters as `functional.avg_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pool (N, C, H, W)."""
        return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding)


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
