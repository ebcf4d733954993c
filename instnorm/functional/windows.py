"""Geometry of images in NumPy: sliding windows, padding, nearest neighbours.

Linear maps come in pairs here, a map and its adjoint, from which `functional`
makes differentiable operations.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from instnorm._layouts import Array

Pair: TypeAlias = tuple[int, int]


def pair(value: Any, name: str, least: int) -> Pair:
    """``n`` or ``(n, m)`` as two integers, both at least `least`."""
    values = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value, value)
    if len(values) != 2 or not all(
        isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values
    ):
        raise TypeError(f"{name} must be an integer or two, got {value!r}")
    if min(values) < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return int(values[0]), int(values[1])


def _integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be of integers, got {value!r}") from None


@dataclass(frozen=True)
class Window:
    """A window that slides over images of a fixed shape (N, C, H, W)."""

    shape: tuple[int, int, int, int]
    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    output_size: Pair

    @staticmethod
    def of(
        shape: tuple[int, ...],
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
    ) -> Window:
        """Check the window's measures against the images' shape."""
        n, c, height, width = shape
        kernel = pair(kernel_size, "kernel_size", 1)
        step = pair(stride, "stride", 1)
        border = pair(padding, "padding", 0)
        spacing = pair(dilation, "dilation", 1)
        reach = [s * (k - 1) + 1 for s, k in zip(spacing, kernel, strict=True)]
        padded = [n + 2 * p for n, p in zip((height, width), border, strict=True)]
        if reach[0] > padded[0] or reach[1] > padded[1]:
            raise ValueError(
                f"kernel_size {kernel} with dilation {spacing} spans {tuple(reach)} pixels, more "
                f"than the padded input of {tuple(padded)}"
            )
        rows, columns = (
            (size - r) // s + 1 for size, r, s in zip(padded, reach, step, strict=True)
        )
        return Window((n, c, height, width), kernel, step, border, spacing, (rows, columns))

    # Convolution: windows as the rows of a matrix, and back.

    def unfold(self, images: Array) -> Array:
        """(N, C, H, W) to (N * H' * W', kernel_h * kernel_w * C): one row for each window."""
        n, c = self.shape[:2]
        padded = self._padded_channels_last(images)
        by_sample, by_row, by_column, by_channel = padded.strides
        windows = np.lib.stride_tricks.as_strided(
            padded,
            (n, *self.output_size, *self.kernel_size, c),
            (
                by_sample,
                by_row * self.stride[0],
                by_column * self.stride[1],
                by_row * self.dilation[0],
                by_column * self.dilation[1],
                by_channel,
            ),
            writeable=False,
        )
        return windows.reshape(n * math.prod(self.output_size), math.prod(self.kernel_size) * c)

    def fold(self, matrix: Array) -> Array:
        """The adjoint of `unfold`: elements go back to their pixels, and add up there."""
        n, c, height, width = self.shape
        windows = matrix.reshape(n, *self.output_size, *self.kernel_size, c)
        top, left = self.padding
        padded = np.zeros((n, height + 2 * top, width + 2 * left, c), matrix.dtype)
        for i, j in self._positions():
            rows, columns = self._slices(i, j)
            padded[:, rows, columns] += windows[:, :, :, i, j]
        return padded[:, top : top + height, left : left + width].transpose(0, 3, 1, 2)

    def _padded_channels_last(self, images: Array) -> Array:
        n, c, height, width = self.shape
        top, left = self.padding
        last = images.transpose(0, 2, 3, 1)
        if top == left == 0:
            return np.ascontiguousarray(last)
        padded = np.zeros((n, height + 2 * top, width + 2 * left, c), images.dtype)
        padded[:, top : top + height, left : left + width] = last
        return padded

    def _positions(self) -> Iterator[Pair]:
        return itertools.product(range(self.kernel_size[0]), range(self.kernel_size[1]))

    def _slices(self, i: int, j: int) -> tuple[slice, slice]:
        """Where element (i, j) of every window lies in the padded image."""
        starts = i * self.dilation[0], j * self.dilation[1]
        rows, columns = (
            slice(start, start + step * (count - 1) + 1, step)
            for start, step, count in zip(starts, self.stride, self.output_size, strict=True)
        )
        return rows, columns

    @property
    def adjoint_padding(self) -> Pair | None:
        """Padding with which the adjoint of the convolution is itself one; None if it is not."""
        margins = [
            d * (k - 1) - p
            for d, k, p in zip(self.dilation, self.kernel_size, self.padding, strict=True)
        ]
        return (margins[0], margins[1]) if self.stride == (1, 1) and min(margins) >= 0 else None

    # Pooling. Results keep the memory layout of the argument.

    def max(self, images: Array) -> tuple[Array, Array]:
        """The largest element of each window, and which it is: its number, row by row."""
        padded = self._padded(images, -np.inf)
        elements = [self._at(padded, i, j) for i, j in self._positions()]
        best = elements[0].copy(order="K")
        for element in elements[1:]:
            np.maximum(best, element, out=best)
        winners = np.zeros_like(best, np.uint8 if len(elements) < 256 else np.intp)
        inside = None
        if self.padding != (0, 0) and bool((best == -np.inf).any()):
            inside = self._padded(np.ones_like(images, bool), False)  # so that no padding is chosen
        # From the last position to the first: of equal elements, the first is written last. NaN
        # is unequal to itself, and looked for as such.
        has_nan = bool(np.isnan(best).any())
        for number in range(len(elements) - 1, -1, -1):
            wins = elements[number] == best
            if has_nan:
                wins |= np.isnan(elements[number])
            if inside is not None:
                wins &= self._at(inside, *divmod(number, self.kernel_size[1]))
            np.copyto(winners, number, where=wins, casting="unsafe")
        return best, winners

    def pick(self, images: Array, winners: Array) -> Array:
        """Element `winners` of each window."""
        padded = self._padded(images, -np.inf)
        result = np.empty_like(winners, images.dtype)
        for number, (i, j) in enumerate(self._positions()):
            np.copyto(result, self._at(padded, i, j), where=winners == number)
        return result

    def put(self, values: Array, winners: Array) -> Array:
        """The adjoint of `pick`."""
        padded = self._padded_zeros(values)
        for number, (i, j) in enumerate(self._positions()):
            at = self._at(padded, i, j)
            at += values * (winners == number)
        return self._inside(padded)

    def mean(self, images: Array) -> Array:
        """The mean of each window."""
        padded = self._padded(images, 0)
        total = np.zeros_like(images, shape=(*self.shape[:2], *self.output_size))
        for i, j in self._positions():
            total += self._at(padded, i, j)
        total /= math.prod(self.kernel_size)
        return total

    def spread(self, means: Array) -> Array:
        """The adjoint of `mean`."""
        padded = self._padded_zeros(means)
        share = means / means.dtype.type(math.prod(self.kernel_size))
        for i, j in self._positions():
            at = self._at(padded, i, j)
            at += share
        return self._inside(padded)

    def _at(self, padded: Array, i: int, j: int) -> Array:
        """Element (i, j) of every window, as a view."""
        rows, columns = self._slices(i, j)
        return padded[:, :, rows, columns]

    def _padded(self, images: Array, value: float) -> Array:
        if self.padding == (0, 0):
            return images
        padded = np.full_like(images, value, shape=self._padded_shape)
        self._inside(padded)[...] = images
        return padded

    def _padded_zeros(self, like: Array) -> Array:
        return np.zeros_like(like, shape=self._padded_shape)

    @property
    def _padded_shape(self) -> tuple[int, int, int, int]:
        n, c, height, width = self.shape
        return n, c, height + 2 * self.padding[0], width + 2 * self.padding[1]

    def _inside(self, padded: Array) -> Array:
        (top, left), (height, width) = self.padding, self.shape[2:]
        return padded[:, :, top : top + height, left : left + width]


# --- nearest neighbours -----------------------------------------------------------


def nearest_lengths(
    spatial: tuple[int, ...], size: Any, scale_factor: Any
) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """The new length of each spatial axis, checked; and the factors where these are given."""
    given, name = (size, "size") if size is not None else (scale_factor, "scale_factor")
    values = tuple(given) if isinstance(given, Sequence) else (given,) * len(spatial)
    if len(values) != len(spatial):
        raise ValueError(
            f"{name} has {len(values)} entries, expected one for each of the "
            f"{len(spatial)} spatial axes"
        )
    lengths = tuple(
        [
            _integer(value, "size") if size is not None else _scaled(length, value)
            for value, length in zip(values, spatial, strict=True)
        ]
    )
    for new, length in zip(lengths, spatial, strict=True):
        if new < 1:
            raise ValueError(f"{name}={given} leaves no element of an axis of length {length}")
    return lengths, None if size is not None else values


def nearest_sources(
    shape: tuple[int, ...], size: Any, scale_factor: Any
) -> list[tuple[int, Array]]:
    """For each spatial axis, which element of the input each element of the result is."""
    lengths, factors = nearest_lengths(shape[2:], size, scale_factor)
    sources = []
    for i, (length, new) in enumerate(zip(shape[2:], lengths, strict=True)):
        # In float32, as in PyTorch: exact arithmetic would choose another element now and then.
        exact = np.float32(length) / np.float32(new)
        step = exact if factors is None else np.float32(1 / factors[i])
        source = np.floor(np.arange(new, dtype=np.float32) * step).astype(np.intp)
        sources.append((2 + i, np.minimum(source, length - 1)))
    return sources


def _scaled(length: int, factor: float) -> int:
    if not math.isfinite(factor):
        raise ValueError(f"scale_factor must be finite, got {factor}")
    return math.floor(length * factor)


def take(array: Array, source: Array, axis: int) -> Array:
    """Elements `source` of an axis, in the memory layout of the array."""
    by_stride = sorted(range(array.ndim), key=lambda i: -abs(array.strides[i]))
    taken = np.take(array.transpose(by_stride), source, axis=by_stride.index(axis))
    return taken.transpose(np.argsort(by_stride))


def sum_runs(array: Array, source: Array, length: int, axis: int) -> Array:
    """The adjoint of `take`, for `source` in ascending order."""
    used, starts = np.unique(source, return_index=True)
    result = np.zeros_like(array, shape=(*array.shape[:axis], length, *array.shape[axis + 1 :]))
    result[_along(axis, used)] = np.add.reduceat(array, starts, axis=axis)
    return result


def _along(axis: int, index: Any) -> tuple[Any, ...]:
    return (*(slice(None) for _ in range(axis)), index)


# --- padding -----------------------------------------------------------------------


def padded_axes(
    shape: tuple[int, ...], pad: Sequence[int], mode: str
) -> list[tuple[int, int, int]]:
    """``(axis, before, after)`` for each axis that `pad` lengthens, checked."""
    widths = [_integer(p, "pad") for p in pad]
    if len(widths) % 2 or len(widths) > 2 * len(shape):
        raise ValueError(
            f"pad has {len(widths)} entries, expected 2 for each of the last axes "
            f"of an input of shape {shape}"
        )
    axes = []
    for i in range(len(widths) // 2):
        axis, before, after = len(shape) - 1 - i, widths[2 * i], widths[2 * i + 1]
        if min(before, after) < 0:
            raise ValueError(f"pad must not be negative, got {tuple(widths)}")
        if mode == "reflect" and max(before, after) >= shape[axis]:
            raise ValueError(
                f"pad ({before}, {after}) must be less than the length {shape[axis]} of the axis "
                "that it reflects"
            )
        if before or after:
            axes.append((axis, before, after))
    return axes


def pad_axis(array: Array, axis: int, before: int, after: int, mode: str) -> Array:
    """Pad one axis with zeros or by reflection, in the memory layout of the array."""
    length = array.shape[axis]
    shape = (*array.shape[:axis], before + length + after, *array.shape[axis + 1 :])
    result = np.zeros_like(array, shape=shape)
    result[_along(axis, slice(before, before + length))] = array
    if mode == "reflect":
        ahead = array[_along(axis, slice(1, before + 1))]
        behind = array[_along(axis, slice(length - 1 - after, length - 1))]
        result[_along(axis, slice(0, before))] = np.flip(ahead, axis)
        result[_along(axis, slice(before + length, None))] = np.flip(behind, axis)
    return result


def unpad_axis(array: Array, axis: int, before: int, after: int, mode: str) -> Array:
    """The adjoint of `pad_axis`."""
    length = array.shape[axis] - before - after
    inside: Array = array[_along(axis, slice(before, before + length))]
    if mode == "constant":
        return inside
    result = inside.copy(order="K")
    if before:
        mirrored = np.flip(array[_along(axis, slice(0, before))], axis)
        result[_along(axis, slice(1, before + 1))] += mirrored
    if after:
        mirrored = np.flip(array[_along(axis, slice(before + length, None))], axis)
        result[_along(axis, slice(length - 1 - after, length - 1))] += mirrored
    return result


def border(
    shape: tuple[int, ...],
    axis: int,
    before: int,
    after: int,
    value: float,
    dtype: np.dtype[Any],
) -> Array:
    """`value` in the padding of one axis, 0 inside; broadcasts to `shape`."""
    line = np.full(shape[axis], value, dtype)
    line[before : shape[axis] - after] = 0
    return line.reshape(-1, *(1 for _ in shape[axis + 1 :]))
