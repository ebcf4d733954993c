"""Pooling, in one, two and three dimensions."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from instnorm import functional as F
from instnorm.functional import windows
from instnorm.nn.module import Module
from instnorm.tensor import Tensor


class _MaxPool(Module):
    def __init__(
        self,
        kernel_size: windows.Numbers,
        stride: windows.Numbers | None = None,
        padding: windows.Numbers = 0,
        dilation: windows.Numbers = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Largest element of each window; parameters as `functional.max_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Any:
        """Pool (N, C, L) or (C, L)."""
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool1d(input, *window, self.ceil_mode, self.return_indices)


class MaxPool2d(_MaxPool):
    """Largest element of each window; parameters as `functional.max_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Any:
        """Pool (N, C, H, W) or (C, H, W)."""
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool2d(input, *window, self.ceil_mode, self.return_indices)


class MaxPool3d(_MaxPool):
    """Largest element of each window; parameters as `functional.max_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Any:
        """Pool (N, C, D, H, W) or (C, D, H, W)."""
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool3d(input, *window, self.ceil_mode, self.return_indices)


class _AvgPool(Module):
    def __init__(
        self,
        kernel_size: windows.Numbers,
        stride: windows.Numbers | None = None,
        padding: windows.Numbers = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """Mean of each window; parameters as `functional.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: windows.Numbers,
        stride: windows.Numbers | None = None,
        padding: windows.Numbers = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        # As PyTorch does for this one alone.
        self.kernel_size = windows.per_axis(kernel_size, 1, "kernel_size", 1)
        self.stride = windows.per_axis(self.stride, 1, "stride", 1)
        self.padding = windows.per_axis(padding, 1, "padding", 0)

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pool (N, C, L) or (C, L)."""
        args = (self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool1d(input, self.kernel_size, self.stride, *args)


class AvgPool2d(_AvgPool):
    """Mean of each window; parameters as `functional.avg_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pool (N, C, H, W) or (C, H, W)."""
        args = (self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool2d(input, self.kernel_size, self.stride, *args)


class AvgPool3d(_AvgPool):
    """Mean of each window; parameters as `functional.avg_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pool (N, C, D, H, W) or (C, D, H, W)."""
        args = (self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool3d(input, self.kernel_size, self.stride, *args)


class _AdaptiveAvgPool(Module):
    def __init__(self, output_size: windows.AdaptiveSize) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        """Return the constructor's argument."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means that make a result of `output_size`; see `functional.adaptive_avg_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pool (N, C, L) or (C, L)."""
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means that make a result of `output_size`; see `functional.adaptive_avg_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pool (N, C, H, W) or (C, H, W)."""
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Means that make a result of `output_size`; see `functional.adaptive_avg_pool2d`."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pool (N, C, D, H, W) or (C, D, H, W)."""
        return F.adaptive_avg_pool3d(input, self.output_size)
