"""Memory layouts: in which order of axes the kernels can walk an array, and arrays to walk.

The kernels walk C-contiguous memory, as (N, C, spatial...) or as (N, spatial..., C), of
float16, bfloat16, float32 or float64. The order of the spatial axes is nothing to them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from instnorm._runtime import memory

Array: TypeAlias = npt.NDArray[Any]


class Walk(NamedTuple):
    """How to walk an array of shape (N, C, spatial...)."""

    # The permutation of the axes that makes memory C-contiguous; None where no one is needed.
    order: tuple[int, ...] | None
    channels_last: bool

    def view(self, array: Array) -> Array | None:
        """Return the array as the kernels take it, without a copy; None if it is not so laid out.

        bfloat16, which NumPy's C interface does not know, goes as the bits.
        """
        view = array if self.order is None else array.transpose(self.order)
        flags = view.flags
        if not (flags.c_contiguous and flags.aligned and array.dtype.isnative):
            return None
        if array.dtype.char in "efd":
            return view
        return view.view(np.uint16) if array.dtype.name == "bfloat16" else None


ROWS = Walk(None, False)


def array_of(value: Any) -> Array:
    """The memory of an array_like, without a copy where it can be had by any protocol."""
    shows_memory = isinstance(value, np.ndarray) or hasattr(value, "__array__")
    if not shows_memory and hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    return np.asarray(value)


def walked(array: Array, walk: Walk | None = None) -> tuple[Array, Walk] | None:
    """Return an array as the kernels take it, and how they walk it; None: a copy is needed.

    With a `walk`, that one or none.
    """
    if walk is None:
        # The stride of an axis of one element is arbitrary, and may point to the wrong layout:
        # the second walk is for those.
        first = ROWS if array.flags.c_contiguous else nearest_walk(array)
        return walked(array, first) or walked(array, Walk((0, *_spatial_axes(array), 1), True))
    view = walk.view(array)
    return None if view is None else (view, walk)


def nearest_walk(array: Array) -> Walk:
    """Return how a copy should be walked: spatial axes, and C after them or not, as in the array.

    The same for a sample by itself as for a batch of them, whatever the order of the samples
    in memory: sums are formed in the same order then, and have the same bits.
    """
    spatial = _spatial_axes(array)
    steps = [abs(array.strides[axis]) for axis in spatial if array.shape[axis] > 1]
    channels_last = bool(steps) and array.shape[1] > 1 and abs(array.strides[1]) < min(steps)
    return Walk((0, *spatial, 1), True) if channels_last else Walk((0, 1, *spatial), False)


def _spatial_axes(array: Array) -> list[int]:
    """The spatial axes, outermost first; those of one element, which have any stride, foremost."""

    def step(axis: int) -> float:
        return abs(array.strides[axis]) if array.shape[axis] > 1 else float("inf")

    return sorted(range(2, array.ndim), key=step, reverse=True)


def dense(array: Array, dtype: np.dtype[Any], walk: Walk | None = None) -> tuple[Array, Walk]:
    """Return a copy as the kernels take it, and how they walk it: as is nearest to its strides."""
    walk = nearest_walk(array) if walk is None else walk
    copy, view = empty(array.shape, dtype, walk)
    # What is beyond the range of a narrower type becomes infinite there; no warning is due.
    with np.errstate(over="ignore"):
        copy[...] = array
    return view, walk


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], walk: Walk) -> tuple[Array, Array]:
    """Return an uninitialized array of shape (N, C, spatial...), and as the kernels take it."""
    if walk.order is None:
        array = memory.empty(shape, dtype)
    else:
        array = memory.empty(tuple(shape[axis] for axis in walk.order), dtype)
        array = array.transpose(np.argsort(walk.order))
    view = walk.view(array)
    assert view is not None  # memory is laid out as the walk wants it
    return array, view
