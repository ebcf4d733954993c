"""Images of another size: interpolate and pad."""

from __future__ import annotations

from collections.abc import Sequence

from instnorm import _primitives as ops
from instnorm._layouts import Array
from instnorm.functional import windows as win
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
    if mode != "nearest":
        lengths, factors = win.nearest_lengths(input.shape[2:], size, scale_factor)
        return linear_resize(input, lengths, factors, mode, bool(align_corners))
    if align_corners is not None:
        raise ValueError("align_corners has no meaning in mode 'nearest'")
    for axis, source in win.nearest_sources(input.shape, size, scale_factor):
        input = _repeated(input, axis, source)
    return input


def _repeated(input: Tensor, axis: int, source: Array) -> Tensor:
    length = input.shape[axis]
    return ops.linear(
        input,
        lambda a: win.take(a, source, axis),
        lambda a: win.sum_runs(a, source, length, axis),
    )


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
    mode : {'constant', 'reflect'}, default 'constant'
        Whether to add `value`, or the elements mirrored at the edge element, which is
        not itself repeated.
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
        If `pad` has an odd length, is negative, or, to reflect, as long as the axis.

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([[[1.0, 2.0, 3.0]]])
    >>> instnorm.functional.pad(x, (2, 1), mode="reflect")
    tensor([[[3., 2., 1., 2., 3., 2.]]])
    """
    input = as_tensor(input, "input")
    if mode not in ("constant", "reflect"):
        raise NotImplementedError(
            f"mode={mode!r} is not supported by pad, expected 'constant' or 'reflect'"
        )
    if mode == "reflect" and value is not None:
        raise ValueError(f"value={value} has no meaning in mode 'reflect'")
    axes = win.padded_axes(input.shape, pad, mode)
    if not axes:
        return input.clone()
    for axis, before, after in axes:
        input = _padded(input, axis, before, after, mode)
        if value:
            input = input + win.border(input.shape, axis, before, after, value, input.dtype)
    return input


def _padded(input: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    return ops.linear(
        input,
        lambda a: win.pad_axis(a, axis, before, after, mode),
        lambda a: win.unpad_axis(a, axis, before, after, mode),
    )
