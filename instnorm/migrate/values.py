"""What conversion does to single arrays: NumPy's, and the tensors of the frameworks.

PyTorch's tensors stay tensors; all others become ndarrays where they are changed.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from instnorm._layouts import Array
from instnorm.migrate._flavours import comparable, is_torchs


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Return the shape of an array of any kind, None where it has none."""
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def holds_numbers(value: Any) -> bool:
    """Whether this is no array of text, times, records or raw bytes."""
    dtype = getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype):
        return True
    return dtype.kind not in "SUMm" and dtype.type is not np.void


def filled_like(value: Any, fill: float) -> Any:
    """Return an array of the same shape and dtype that holds one number."""
    if is_torchs(value):
        return value.detach().new_full(tuple(value.shape), fill)
    array = comparable(value)
    return np.full(array.shape, fill, array.dtype)


def with_axis(value: Any) -> Any:
    """Turn the weight of a convolution from (O, I, k) into (O, I, 1, k)."""
    return comparable(value)[:, :, None]


def without_axis(value: Any) -> Any:
    """Turn the weight of a convolution from (O, I, 1, k) into (O, I, k)."""
    return comparable(value)[:, :, 0]


def product(g: Any, v: Any) -> Any:
    """Return what weight norm computes, g v / norm(v): over the axes in which g has one element."""
    if is_torchs(v):
        wide_g, wide_v = g.detach().double(), v.detach().double()
        squares = (wide_v * wide_v).sum(_summed(g, v), keepdim=g.ndim > 0)
        return (wide_g * wide_v / squares.sqrt()).to(v.dtype)
    wide_g, wide_v = (np.asarray(comparable(a), np.float64) for a in (g, v))
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN and inf are what PyTorch has too
        weight = (
            wide_g * wide_v / np.sqrt((wide_v * wide_v).sum(_summed(g, v), keepdims=g.ndim > 0))
        )
    return weight.astype(comparable(v).dtype)


def length(weight: Any, shape: tuple[int, ...]) -> Any:
    """Return the g of this shape with which weight norm gives the weight back, for v = weight."""
    axes = tuple(axis for axis in range(len(weight.shape)) if not shape or shape[axis] == 1)
    if is_torchs(weight):
        wide = weight.detach().double()
        return (wide * wide).sum(axes, keepdim=bool(shape)).sqrt().to(weight.dtype)
    array = comparable(weight)
    wide = np.asarray(array, np.float64)
    norm = np.sqrt((wide * wide).sum(axes, keepdims=bool(shape)))
    return np.asarray(norm, array.dtype)


def is_normed(g: Any, v: Any) -> bool:
    """Whether the shapes are those of weight norm's g and v."""
    small, large = shape_of(g), shape_of(v)
    if small is None or large is None or not (_is_float(g) and _is_float(v)):
        return False
    return not small or (
        len(small) == len(large)
        and all(a in (1, b) for a, b in zip(small, large, strict=True))
        and any(a == 1 for a in small)
    )


def _is_float(value: Any) -> bool:
    if is_torchs(value):
        return bool(value.is_floating_point())
    dtype = comparable(value).dtype
    return bool(np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16")


def _summed(g: Any, v: Any) -> tuple[int, ...]:
    shape = tuple(g.shape)
    return tuple(axis for axis in range(len(v.shape)) if not shape or shape[axis] == 1)


def array_of(value: Any) -> Array:
    """Return the values of a tensor of any framework, in its dtype."""
    if hasattr(value, "asnumpy"):
        is_bfloat16 = str(value.dtype).lower() == "bfloat16"
        array: Array = (value.float() if is_bfloat16 else value).asnumpy()
        return array.astype(_bfloat16()) if is_bfloat16 else array
    if hasattr(value, "detach"):
        is_bfloat16 = str(value.dtype) == "torch.bfloat16"
        tensor = value.detach()
        array = np.array((tensor.float() if is_bfloat16 else tensor).numpy(force=True))
        return array.astype(_bfloat16()) if is_bfloat16 else array
    return np.asarray(value)


def _bfloat16() -> Any:
    return importlib.import_module("ml_dtypes").bfloat16
