"""Arrays as the compiled loops take them, and arrays for their results."""

from __future__ import annotations

from typing import Any

import numpy as np

from instnorm._layouts import Array, nearest_walk
from instnorm._primitives import ArrayMap
from instnorm._runtime import memory
from instnorm._runtime.simd import layers

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def wide_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What the loops compute in: float64, and float32 for all else."""
    return _FLOAT64 if dtype.char in "dg" or dtype.kind in "iu" else _FLOAT32


def as_dtype(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array itself, or a copy in another dtype."""
    if array.dtype == dtype and array.flags.aligned:
        return array
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def is_channels_last(images: Array) -> bool:
    """Whether channels come last in the memory of (N, C, spatial...)."""
    return not images.flags.c_contiguous and nearest_walk(images).channels_last


def empty_images(shape: tuple[int, ...], dtype: np.dtype[Any], channels_last: bool) -> Array:
    """An uninitialized array (N, C, spatial...)."""
    if not channels_last:
        return memory.empty(shape, dtype)
    result = memory.empty((shape[0], *shape[2:], shape[1]), dtype)
    return result.transpose(0, -1, *range(1, len(shape) - 1))


def empty_beside(like: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialized array (N, C, spatial...), channels last in memory where `like` is so."""
    return empty_images(shape, dtype, is_channels_last(like))


def dense_planes(array: Array) -> Array:
    """The array (N, C, spatial...), copied unless its spatial axes lie densely in memory."""
    expected = 0
    for length, stride in zip(array.shape[:1:-1], array.strides[:1:-1], strict=True):
        if length == 1:
            continue
        if expected not in (0, stride) or stride <= 0:
            return np.ascontiguousarray(array)
        expected = stride * length
    return array


def plane_maps(
    shape: tuple[int, ...],
    lengths: tuple[int, ...],
    dtype: np.dtype[Any],
    tasks: tuple[str, str],
    extra: Array,
) -> tuple[ArrayMap, ArrayMap]:
    """A linear map of planes to planes of other lengths, and its adjoint.

    Parameters
    ----------
    shape : (N, C, spatial...)
        Of what the map takes.
    lengths : tuple of int
        The spatial axes of what it gives.
    dtype : dtype
        Of both.
    tasks : (str, str)
        What `_layers.pool` calls the two.
    extra : ndarray
        What it wants for them.
    """
    wide = wide_dtype(dtype)
    forward, adjoint = tasks

    def to_small(array: Array) -> Array:
        large = dense_planes(as_dtype(array, wide))
        small = empty_beside(large, (*shape[:2], *lengths), wide)
        layers.pool(forward, large, small, extra)
        return as_dtype(small, dtype)

    def to_large(array: Array) -> Array:
        small = dense_planes(as_dtype(array, wide))
        large = empty_beside(small, shape, wide)
        layers.pool(adjoint, large, small, extra)
        return as_dtype(large, dtype)

    return to_small, to_large
