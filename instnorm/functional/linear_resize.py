"""Resizing by the mean of neighbours, weighed by their distances, one axis after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from instnorm import _primitives as ops
from instnorm._layouts import Array
from instnorm.tensor import Tensor

#: How many spatial axes each mode is for.
LINEAR_MODES = {"linear": 1, "bilinear": 2, "trilinear": 3}


def linear_resize(
    input: Tensor,
    lengths: tuple[int, ...],
    factors: tuple[float, ...] | None,
    mode: str,
    align_corners: bool,
) -> Tensor:
    """Give the spatial axes new lengths; `factors` are what these were computed from, if any."""
    if input.ndim != 2 + LINEAR_MODES[mode]:
        raise ValueError(
            f"input has shape {input.shape}, expected {LINEAR_MODES[mode]} spatial axes after "
            f"(N, C) for mode {mode!r}"
        )
    # PyTorch computes the positions in the precision of the input.
    real = np.dtype(np.float64 if input.dtype == np.float64 else np.float32)
    for i, new in enumerate(lengths):
        axis = 2 + i
        length = input.shape[axis]
        step = length / new if factors is None else 1 / factors[i]
        if align_corners:
            step = (length - 1) / (new - 1) if new > 1 else 0
        input = _resized(input, axis, _positions(new, step, align_corners, real))
    return input


def _positions(new: int, step: float, align_corners: bool, dtype: np.dtype[Any]) -> Array:
    """Where on the old axis the elements of the new one lie."""
    index = np.arange(new, dtype=dtype)
    if align_corners:
        return np.asarray(index * dtype.type(step))
    half = dtype.type(0.5)
    return np.asarray(np.maximum((index + half) * dtype.type(step) - half, 0))


def _resized(input: Tensor, axis: int, positions: Array) -> Tensor:
    length = input.shape[axis]
    before = np.minimum(positions.astype(np.intp), length - 1)
    after = np.minimum(before + 1, length - 1)
    along = (-1, *(1 for _ in input.shape[axis + 1 :]))
    share = (positions - before).astype(input.dtype).reshape(along)
    rest = 1 - share

    def mean(array: Array) -> Array:
        mixed: Array = _taken(array, before, axis) * rest + _taken(array, after, axis) * share
        return mixed

    def adjoint(gradient: Array) -> Array:
        first = _given_back(gradient * rest, before, length, axis)
        first += _given_back(gradient * share, after, length, axis)
        return first

    return ops.linear(input, mean, adjoint)


def _taken(array: Array, places: Array, axis: int) -> Array:
    """Elements at `places` of an axis, in the memory layout of the array."""
    by_stride = sorted(range(array.ndim), key=lambda i: -abs(array.strides[i]))
    taken = np.take(array.transpose(by_stride), places, axis=by_stride.index(axis))
    return taken.transpose(np.argsort(by_stride))


def _given_back(array: Array, places: Array, length: int, axis: int) -> Array:
    """The adjoint of `_taken`, for places in ascending order: sums of runs."""
    used, starts = np.unique(places, return_index=True)
    result = np.zeros_like(array, shape=(*array.shape[:axis], length, *array.shape[axis + 1 :]))
    index: Any = (*(slice(None),) * axis, used)
    result[index] = np.add.reduceat(array, starts, axis=axis)
    return result
