"""Pooling: the largest or the mean of each window."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from instnorm import _primitives as ops
from instnorm._layouts import Array
from instnorm._runtime.simd import layers
from instnorm.autograd import is_recorded
from instnorm.functional import windows as win
from instnorm.functional._buffers import (
    as_dtype,
    dense_planes,
    empty_beside,
    plane_maps,
    wide_dtype,
)
from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor

# --- largest -------------------------------------------------------------------------


def max_pool1d(
    input: Input,
    kernel_size: win.Numbers,
    stride: win.Numbers | None = None,
    padding: win.Numbers = 0,
    dilation: win.Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Pool series (N, C, L) or (C, L); see `max_pool2d`."""
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool(input, *window, return_indices, axes=1)


def max_pool2d(
    input: Input,
    kernel_size: win.Numbers,
    stride: win.Numbers | None = None,
    padding: win.Numbers = 0,
    dilation: win.Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window; the first one where several are.

    `max_pool1d` and `max_pool3d` do the same with one and three spatial axes.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, H, W) or (C, H, W)
    kernel_size : int or (int, int)
        Size of the window, in pixels.
    stride : int or (int, int), optional
        Step of the window; by default its size.
    padding : int or (int, int), default 0
        At most half the window. Padding never wins.
    dilation : int or (int, int), default 1
        Spacing of the window's elements.
    ceil_mode : bool, default False
        Whether a last window may reach beyond the padded input.
    return_indices : bool, default False
        Whether to return where the largest elements are as well, as numbers of the
        elements of an image, row by row.

    Returns
    -------
    Tensor of shape (N, C, H', W') or (C, H', W'), or two of them

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> instnorm.functional.max_pool2d(x, 2)
    tensor([[[[4.]]]])
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool(input, *window, return_indices, axes=2)


def max_pool3d(
    input: Input,
    kernel_size: win.Numbers,
    stride: win.Numbers | None = None,
    padding: win.Numbers = 0,
    dilation: win.Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Pool volumes (N, C, D, H, W) or (C, D, H, W); see `max_pool2d`."""
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool(input, *window, return_indices, axes=3)


def _max_pool(
    input: Input,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
    axes: int,
) -> Any:
    input = as_tensor(input, "input")
    if input.ndim == axes + 1:
        batch = input.reshape(1, *input.shape)
        arguments = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        pooled = _max_pool(batch, *arguments, axes)
        return (pooled[0][0], pooled[1][0]) if return_indices else pooled[0]
    kernel, steps, border = _window(input, kernel_size, stride, padding, axes)
    spacing = win.per_axis(dilation, axes, "dilation", 1)
    lengths = win.output_lengths(input.shape[2:], kernel, steps, border, spacing, ceil_mode)
    window = tuple([n for one in zip(kernel, steps, spacing, border, strict=True) for n in one])
    shape, dtype = input.shape, input.dtype
    wide = wide_dtype(dtype)
    large = dense_planes(as_dtype(input.data, wide))
    small = empty_beside(large, (*shape[:2], *lengths), wide)
    if not is_recorded(input) and not return_indices:
        layers.pool("largest", large, small, None, window)
        return Tensor(as_dtype(small, dtype))
    winners = empty_beside(large, small.shape, np.dtype(np.int32))
    layers.pool("largest", large, small, winners, window)

    maps = plane_maps(shape, lengths, dtype, ("pick", "put"), winners)
    result = ops.linear(input, *maps, result=as_dtype(small, dtype))
    return (result, Tensor(winners.astype(np.int64))) if return_indices else result


# --- mean ----------------------------------------------------------------------------


def avg_pool1d(
    input: Input,
    kernel_size: win.Numbers,
    stride: win.Numbers | None = None,
    padding: win.Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Pool series (N, C, L) or (C, L); see `avg_pool2d`."""
    return _avg_pool(input, kernel_size, stride, padding, ceil_mode, count_include_pad, axes=1)


def avg_pool2d(
    input: Input,
    kernel_size: win.Numbers,
    stride: win.Numbers | None = None,
    padding: win.Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window.

    `avg_pool1d` and `avg_pool3d` do the same with one and three spatial axes.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, H, W) or (C, H, W)
    kernel_size : int or (int, int)
        Size of the window, in pixels.
    stride : int or (int, int), optional
        Step of the window; by default its size.
    padding : int or (int, int), default 0
        At most half the window.
    ceil_mode : bool, default False
        Whether a last window may reach beyond the padded input.
    count_include_pad : bool, default True
        Whether zeros of the padding count as elements.

    Returns
    -------
    Tensor of shape (N, C, H', W') or (C, H', W')

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> instnorm.functional.avg_pool2d(x, 2)
    tensor([[[[2.5]]]])
    """
    return _avg_pool(input, kernel_size, stride, padding, ceil_mode, count_include_pad, axes=2)


def avg_pool3d(
    input: Input,
    kernel_size: win.Numbers,
    stride: win.Numbers | None = None,
    padding: win.Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Pool volumes (N, C, D, H, W) or (C, D, H, W); see `avg_pool2d`."""
    return _avg_pool(input, kernel_size, stride, padding, ceil_mode, count_include_pad, axes=3)


def _avg_pool(
    input: Input,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    axes: int,
) -> Tensor:
    input = as_tensor(input, "input")
    if input.ndim == axes + 1:
        batch = input.reshape(1, *input.shape)
        args = (kernel_size, stride, padding, ceil_mode, count_include_pad)
        return _avg_pool(batch, *args, axes)[0]
    kernel, steps, border = _window(input, kernel_size, stride, padding, axes)
    spacing = (1,) * axes
    lengths = win.output_lengths(input.shape[2:], kernel, steps, border, spacing, ceil_mode)
    ranges = _window_ranges(
        input.shape[2:], lengths, kernel, steps, border, bool(count_include_pad)
    )
    return _means(input, lengths, ranges)


def adaptive_avg_pool1d(input: Input, output_size: win.AdaptiveSize) -> Tensor:
    """Pool series (N, C, L) or (C, L); see `adaptive_avg_pool2d`."""
    return _adaptive_avg_pool(input, output_size, axes=1)


def adaptive_avg_pool2d(input: Input, output_size: win.AdaptiveSize) -> Tensor:
    """Mean of windows that are as large as a result of `output_size` needs.

    `adaptive_avg_pool1d` and `adaptive_avg_pool3d` do the same with one and three spatial axes.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, H, W) or (C, H, W)
    output_size : int, None or a pair of these
        Place i of H' takes the rows from floor(i H / H') up to ceil((i + 1) H / H'). None
        leaves an axis as long as it is.

    Returns
    -------
    Tensor of shape (N, C, H', W') or (C, H', W')

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> instnorm.functional.adaptive_avg_pool2d(x, 1)
    tensor([[[[2.5]]]])
    """
    return _adaptive_avg_pool(input, output_size, axes=2)


def adaptive_avg_pool3d(input: Input, output_size: win.AdaptiveSize) -> Tensor:
    """Pool volumes (N, C, D, H, W) or (C, D, H, W); see `adaptive_avg_pool2d`."""
    return _adaptive_avg_pool(input, output_size, axes=3)


def _adaptive_avg_pool(input: Input, output_size: Any, axes: int) -> Tensor:
    input = as_tensor(input, "input")
    if input.ndim == axes + 1:
        return _adaptive_avg_pool(input.reshape(1, *input.shape), output_size, axes)[0]
    _check_axes(input, axes)
    sizes = output_size if isinstance(output_size, tuple | list) else (output_size,) * axes
    given = [n if s is None else s for s, n in zip(sizes, input.shape[2:], strict=False)]
    lengths = win.per_axis(given if len(given) == len(sizes) else sizes, axes, "output_size", 1)
    return _means(input, lengths, _adaptive_ranges(input.shape[2:], lengths))


def _means(input: Tensor, lengths: tuple[int, ...], ranges: Array) -> Tensor:
    """Means over the ranges of each axis: see `_layers.pool`."""
    maps = plane_maps(input.shape, lengths, input.dtype, ("mean", "spread"), ranges)
    return ops.linear(input, *maps)


@functools.lru_cache(maxsize=256)
def _window_ranges(
    lengths: tuple[int, ...],
    places: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    count_padding: bool,
) -> Array:
    """(low, high, count) for each place of three axes; count: by how much its sum is divided."""
    rows = [(0, 1, 1)] * (3 - len(lengths))
    for n, count, k, s, p in zip(lengths, places, kernel, stride, padding, strict=True):
        for start in range(-p, -p + count * s, s):
            low, high = max(start, 0), min(start + k, n)
            rows.append((low, high, min(start + k, n + p) - start if count_padding else high - low))
    return np.array(rows, np.intp)


@functools.lru_cache(maxsize=256)
def _adaptive_ranges(lengths: tuple[int, ...], places: tuple[int, ...]) -> Array:
    rows = [(0, 1, 1)] * (3 - len(lengths))
    for n, count in zip(lengths, places, strict=True):
        for i in range(count):
            low, high = i * n // count, -(-(i + 1) * n // count)
            rows.append((low, high, high - low))
    return np.array(rows, np.intp)


# --- checks --------------------------------------------------------------------------


def _window(
    input: Tensor, kernel_size: Any, stride: Any, padding: Any, axes: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    _check_axes(input, axes)
    kernel = win.per_axis(kernel_size, axes, "kernel_size", 1)
    steps = kernel if stride is None else win.per_axis(stride, axes, "stride", 1)
    border = win.per_axis(padding, axes, "padding", 0)
    if any(2 * p > k for p, k in zip(border, kernel, strict=True)):
        raise ValueError(f"padding must be at most half of kernel_size {kernel}, got {border}")
    return kernel, steps, border


def _check_axes(input: Tensor, axes: int) -> None:
    if input.ndim != axes + 2:
        spatial = {1: "L", 2: "H, W", 3: "D, H, W"}[axes]
        raise ValueError(
            f"input has shape {input.shape}, expected (N, C, {spatial}) or (C, {spatial})"
        )
