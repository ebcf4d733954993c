"""Images of another size: interpolate and pad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from instnorm import _primitives as ops
from instnorm._layouts import Array
from instnorm.functional import windows as win
from instnorm.functional._buffers import (
    plane_maps,
)
from instnorm.functional._inputs import Input, as_tensor
from instnorm.functional.linear_resize import LINEAR_MODES, linear_resize
from instnorm.tensor import Tensor


def interpolate(
    input: Input,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Resize the spatial axes.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, spatial...)
    size : int or sequence of int, optional
        The new size. Give this or `scale_factor`.
    scale_factor : float or sequence of float, optional
        The new size as a multiple of the old.
    mode : {'nearest', 'linear', 'bilinear', 'trilinear'}, default 'nearest'
        'nearest': element i of the result is element floor(i * old / new) of the input, or
        floor(i / scale_factor) where that is given, in float32 arithmetic as PyTorch's.
        The others, for one, two and three spatial axes, weigh the two neighbours on each
        axis by their distance.
    align_corners : bool, optional
        For the linear modes: whether the centres of the outermost elements stay where they
        are, or the outermost elements' outer edges (the default).

    Returns
    -------
    Tensor of shape (N, C, new spatial...)

    Raises
    ------
    NotImplementedError
        If `mode` is another.
    ValueError
        If not exactly one of `size` and `scale_factor` is given, or an argument does not fit.

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([[[0.0, 1.0]]])
    >>> instnorm.functional.interpolate(x, scale_factor=2, mode="linear")
    tensor([[[0.  , 0.25, 0.75, 1.  ]]])
    """
    input = as_tensor(input, "input")
    if mode != "nearest" and mode not in LINEAR_MODES:
        raise NotImplementedError(
            f"mode={mode!r} is not supported by interpolate, expected 'nearest', "
            + " or ".join(map(repr, LINEAR_MODES))
        )
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"exactly one of size and scale_factor must be given, got size={size} and "
            f"scale_factor={scale_factor}"
        )
    if input.ndim < 3:
        raise ValueError(f"input has shape {input.shape}, expected (N, C, spatial...)")
    spatial = input.shape[2:]
    lengths, factors = win.nearest_lengths(spatial, size, scale_factor)
    if mode != "nearest":
        return linear_resize(input, lengths, factors, mode, bool(align_corners))
    if align_corners is not None:
        raise ValueError("align_corners has no meaning in mode 'nearest'")
    return moved(input, lengths, win.nearest_places(spatial, lengths, factors))


def moved(input: Tensor, lengths: tuple[int, ...], places: Array) -> Tensor:
    """(N, C, `lengths`...), of elements that are at `places` of each axis of the input."""
    maps = plane_maps(input.shape, lengths, input.dtype, ("take", "give_back"), places)
    return ops.linear(input, *maps)


def pad(
    input: Input, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Add elements at the ends of the last axes.

    Parameters
    ----------
    input : Tensor or ndarray
    pad : sequence of int
        (before, after) of the last axis, then of the one before it, and so on: (left,
        right, top, bottom) for images.
    mode : {'constant', 'reflect', 'replicate', 'circular'}, default 'constant'
        Whether to add `value`; the elements mirrored at the edge element, which is not
        itself repeated; the edge element; or those from the other end.
    value : float, optional
        By default 0; only for mode 'constant'.

    Returns
    -------
    Tensor

    Raises
    ------
    NotImplementedError
        If `mode` is another.
    ValueError
        If `pad` has an odd length, is negative, or is too long for the axis: as long as it,
        to reflect, and longer, to go around.

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([[[1.0, 2.0, 3.0]]])
    >>> instnorm.functional.pad(x, (2, 1), mode="reflect")
    tensor([[[3., 2., 1., 2., 3., 2.]]])
    """
    input = as_tensor(input, "input")
    if mode not in win.PAD_MODES:
        raise NotImplementedError(
            f"mode={mode!r} is not supported by pad, expected one of {', '.join(win.PAD_MODES)}"
        )
    if mode != "constant" and value is not None:
        raise ValueError(f"value={value} has no meaning in mode {mode!r}")
    pairs = win.pad_widths(input.shape, pad, mode)
    if not any(map(any, pairs)):
        return input.clone()
    result = _padded(input, pairs, mode)
    if value:
        result = result + _border(result.data, pairs, value)
    return result


def _padded(input: Tensor, pairs: tuple[win.Pad, ...], mode: str) -> Tensor:
    shape = input.shape
    if 3 <= len(shape) <= 5 and pairs[:2] == ((0, 0), (0, 0)):
        return _padded_planes(input, pairs[2:], mode)
    for axis, pair in enumerate(pairs):
        if any(pair):
            input = _padded_axis(input, axis, pair, mode)
    return input


def _padded_axis(input: Tensor, axis: int, pair: win.Pad, mode: str) -> Tensor:
    """Pad one axis of an array of any rank, in NumPy."""
    shape = input.shape
    places = win.pad_places(shape[axis : axis + 1], (pair,), mode)[-shape[axis] - sum(pair) :]
    before: tuple[Any, ...] = (slice(None),) * axis
    inside: Any = (*before, places >= 0)
    sources: Any = (*before, places[places >= 0])

    def forwards(array: Array) -> Array:
        result = np.zeros_like(
            array, shape=(*shape[:axis], len(places), *shape[axis + 1 :]), subok=False
        )
        result[inside] = array[sources]
        return result

    def backwards(array: Array) -> Array:
        result = np.zeros_like(array, shape=shape, subok=False)
        np.add.at(result, sources, array[inside])
        return result

    return ops.linear(input, forwards, backwards)


def _padded_planes(input: Tensor, pairs: tuple[win.Pad, ...], mode: str) -> Tensor:
    spatial = input.shape[2:]
    lengths = tuple([n + sum(pair) for n, pair in zip(spatial, pairs, strict=True)])
    return moved(input, lengths, win.pad_places(spatial, pairs, mode))


def _border(like: Array, pairs: tuple[win.Pad, ...], value: float) -> Array:
    """`value` in the padding, 0 inside."""
    result = np.full_like(like, value)
    inside = zip(like.shape, pairs, strict=True)
    result[tuple([slice(before, n - after) for n, (before, after) in inside])] = 0
    return result
