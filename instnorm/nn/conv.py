"""Convolutions and transposed convolutions, in one, two and three dimensions."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from instnorm import functional as F
from instnorm.functional import windows
from instnorm.nn.layers import _Affine
from instnorm.tensor import Tensor


class _Conv(_Affine):
    """What the convolutions have in common; `_axes` is how many spatial axes there are."""

    _axes: int
    _transposed = False
    output_padding: tuple[int, ...] = ()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: windows.Numbers,
        stride: windows.Numbers = 1,
        padding: windows.Numbers | str = 0,
        dilation: windows.Numbers = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(
                f"padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', "
                f"got {padding_mode!r}"
            )
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if groups < 1 or channels % groups:
                raise ValueError(f"groups={groups} does not divide {name}={channels}")
        axes = self._axes
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = windows.per_axis(kernel_size, axes, "kernel_size", 1)
        self.stride = windows.per_axis(stride, axes, "stride", 1)
        self.dilation = windows.per_axis(dilation, axes, "dilation", 1)
        self.padding: str | tuple[int, ...] = (
            padding if isinstance(padding, str) else windows.per_axis(padding, axes, "padding", 0)
        )
        if isinstance(padding, str):
            windows.check_named_padding(padding, self.stride)
        self.groups = groups
        self.padding_mode = padding_mode
        first, second = out_channels, in_channels // groups
        if self._transposed:
            first, second = in_channels, out_channels // groups
        self._make_parameters((first, second, *self.kernel_size), bias, dtype, out_channels)

    def _padded(self, input: Tensor) -> tuple[Tensor, str | tuple[int, ...]]:
        """The input with the border that the convolution does not make, and what is left."""
        if self.padding_mode == "zeros" or self.padding == "valid":
            return input, self.padding
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        widths: list[int] = []
        for axis in reversed(range(self._axes)):
            if self.padding == "same":
                widths += [reach[axis] // 2, reach[axis] - reach[axis] // 2]
            else:
                widths += [self.padding[axis]] * 2  # type: ignore[list-item]
        return F.pad(input, widths, mode=self.padding_mode), (0,) * self._axes

    def _arguments(self, input: Tensor | npt.NDArray[Any]) -> tuple[Any, ...]:
        """What the function takes."""
        padded, padding = self._padded(F.as_tensor(input, "input"))
        return padded, self.weight, self.bias, self.stride, padding, self.dilation, self.groups

    def extra_repr(self) -> str:
        """Return the arguments that are not PyTorch's defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts.append(f"stride={self.stride}")
        if self.padding != (0,) * self._axes:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self._axes:
            parts.append(f"dilation={self.dilation}")
        if self._transposed and any(self.output_padding):
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class Conv1d(_Conv):
    """Convolution of series (N, C, L) or (C, L); parameters as `Conv2d`."""

    _axes = 1

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Convolve."""
        return F.conv1d(*self._arguments(input))


class Conv2d(_Conv):
    """Two-dimensional convolution.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (int, int)
    stride, padding, dilation : int or (int, int), default 1, 0, 1
        padding may be 'same', for stride 1, or 'valid'.
    groups : int, default 1
        Each of so many parts of the output channels sees its part of the input channels.
    bias : bool, default True
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, default 'zeros'
    dtype : dtype, optional
        Of the parameters; float32 by default.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> conv = instnorm.nn.Conv2d(3, 8, kernel_size=3, padding=1)
    >>> conv(np.zeros((2, 3, 16, 16), np.float32)).shape
    (2, 8, 16, 16)
    """

    _axes = 2

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Convolve (N, C, H, W) or (C, H, W)."""
        return F.conv2d(*self._arguments(input))


class Conv3d(_Conv):
    """Convolution of volumes (N, C, D, H, W) or (C, D, H, W); parameters as `Conv2d`."""

    _axes = 3

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Convolve."""
        return F.conv3d(*self._arguments(input))


class _ConvTranspose(_Conv):
    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: windows.Numbers,
        stride: windows.Numbers = 1,
        padding: windows.Numbers = 0,
        output_padding: windows.Numbers = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: windows.Numbers = 1,
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(
                f"padding_mode must be 'zeros' for {type(self).__name__}, got {padding_mode!r}"
            )
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias),
            dtype=dtype,
        )
        self.output_padding = windows.per_axis(output_padding, self._axes, "output_padding", 0)

    def _transposed_arguments(
        self, input: Tensor | npt.NDArray[Any], output_size: Any
    ) -> tuple[Any, ...]:
        """What the function takes."""
        input = F.as_tensor(input, "input")
        extra = self._output_padding(input, output_size)
        measures = (self.stride, self.padding, extra, self.groups, self.dilation)
        return input, self.weight, self.bias, *measures

    def _output_padding(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        if output_size is None:
            return self.output_padding
        sizes = tuple(output_size)[-self._axes :]
        assert isinstance(self.padding, tuple)
        least = F.transposed_lengths(
            *(input.shape[-self._axes :], self.kernel_size, self.stride, self.padding),
            *((0,) * self._axes, self.dilation),
        )
        extra = tuple([size - n for size, n in zip(sizes, least, strict=True)])
        if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            raise ValueError(
                f"output_size {sizes} cannot be reached, expected from {least}, and less than "
                f"the stride {self.stride} more"
            )
        return extra


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution of series; parameters as `ConvTranspose2d`."""

    _axes = 1

    def forward(self, input: Tensor | npt.NDArray[Any], output_size: Any = None) -> Tensor:
        """Apply the adjoint of the convolution to (N, C, L) or (C, L)."""
        return F.conv_transpose1d(*self._transposed_arguments(input, output_size))


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution: the adjoint of `Conv2d`, which makes images larger.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (int, int)
    stride, padding : int or (int, int), default 1, 0
        Those of the convolution whose adjoint it is.
    output_padding : int or (int, int), default 0
        Rows and columns that the result has more on one side.
    groups : int, default 1
    bias : bool, default True
    dilation : int or (int, int), default 1
    padding_mode : {'zeros'}
    dtype : dtype, optional
        Of the parameters; float32 by default.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> up = instnorm.nn.ConvTranspose2d(8, 4, kernel_size=2, stride=2)
    >>> up(np.zeros((1, 8, 5, 5), np.float32)).shape
    (1, 4, 10, 10)
    """

    _axes = 2

    def forward(self, input: Tensor | npt.NDArray[Any], output_size: Any = None) -> Tensor:
        """Apply the adjoint of the convolution to (N, C, H, W) or (C, H, W)."""
        return F.conv_transpose2d(*self._transposed_arguments(input, output_size))


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution of volumes; parameters as `ConvTranspose2d`."""

    _axes = 3

    def forward(self, input: Tensor | npt.NDArray[Any], output_size: Any = None) -> Tensor:
        """Apply the adjoint of the convolution to (N, C, D, H, W) or (C, D, H, W)."""
        return F.conv_transpose3d(*self._transposed_arguments(input, output_size))
