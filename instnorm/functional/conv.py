"""Matrix products: linear, convolution and transposed convolution."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from instnorm._layouts import Array
from instnorm._primitives import multiplied
from instnorm._runtime.simd import layers
from instnorm.autograd import Function
from instnorm.functional import windows as win
from instnorm.functional._buffers import as_dtype, empty_images, is_channels_last, wide_dtype
from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor


def linear(input: Input, weight: Input, bias: Input | None = None) -> Tensor:
    """``input @ weight.T + bias``.

    Parameters
    ----------
    input : Tensor or ndarray of shape (..., in_features)
    weight : Tensor or ndarray of shape (out_features, in_features)
    bias : Tensor or ndarray of shape (out_features,), optional

    Returns
    -------
    Tensor of shape (..., out_features)

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    input, weight = as_tensor(input, "input"), as_tensor(weight, "weight")
    if weight.ndim != 2:
        raise ValueError(
            f"weight has shape {weight.shape}, expected 2 axes: (out_features, in_features)"
        )
    if input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"input has shape {input.shape}, expected {weight.shape[1]} features on the last axis"
        )
    if bias is not None:
        bias = as_tensor(bias, "bias")
        _check_bias(bias, weight.shape[0])
    if input.ndim == 2 and input.dtype == weight.dtype and input.dtype.char in "fd":
        return Affine.apply(input, weight, bias)
    output = input @ weight.T
    return output if bias is None else output + bias


class Affine(Function):
    """``input @ weight.T + bias`` of matrices, in one pass."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Array:
        """Multiply, with the bias as what the sums start from."""
        ctx.save_for_backward(input, weight)
        bias_data = None if bias is None else np.ascontiguousarray(bias.data, input.dtype)
        return multiplied(weight.data, input.data.T, bias_data).T

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """The products with the other matrix, and the sum over the rows."""
        input, weight = ctx.saved_tensors
        need_input, need_weight, need_bias = ctx.needs_input_grad
        return (
            grad_output @ weight if need_input else None,
            grad_output.T @ input if need_weight else None,
            grad_output.sum(0) if need_bias else None,
        )


def _check_bias(bias: Tensor, features: int) -> None:
    if bias.shape != (features,):
        raise ValueError(f"bias has shape {bias.shape}, expected ({features},)")


# --- convolution -----------------------------------------------------------------


def conv1d(
    input: Input,
    weight: Input,
    bias: Input | None = None,
    stride: win.Numbers = 1,
    padding: win.Numbers | str = 0,
    dilation: win.Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve series (N, C, L) or (C, L); see `conv2d`."""
    return _convolution(input, weight, bias, stride, padding, dilation, groups, axes=1)


def conv2d(
    input: Input,
    weight: Input,
    bias: Input | None = None,
    stride: win.Numbers = 1,
    padding: win.Numbers | str = 0,
    dilation: win.Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional convolution (cross-correlation).

    `conv1d` and `conv3d` do the same with one and three spatial axes. The result has the
    memory layout of the input, channels first or last.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, H, W) or (C, H, W)
    weight : Tensor or ndarray of shape (out_channels, C / groups, kernel_h, kernel_w)
    bias : Tensor or ndarray of shape (out_channels,), optional
    stride, padding, dilation : int or (int, int), default 1, 0, 1
        Steps of the window, rows and columns of zeros on each side, and spacing of
        the window's elements, in pixels. padding may be 'valid', which is 0, or
        'same', for a result of the input's size, which needs stride 1.
    groups : int, default 1
        Each of so many parts of the output channels sees its part of the input channels.

    Returns
    -------
    Tensor of shape (N, out_channels, H', W') or (out_channels, H', W')

    Raises
    ------
    ValueError
        If the shapes do not fit, the window is larger than the padded input, or
        padding is 'same' and stride is not 1.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> image, weight = np.ones((1, 4, 5, 5), np.float32), np.ones((2, 2, 3, 3), np.float32)
    >>> y = instnorm.functional.conv2d(image, weight, padding="same", groups=2)
    >>> y[0, 1].numpy().max(), y.shape
    (np.float32(18.0), (1, 2, 5, 5))
    """
    return _convolution(input, weight, bias, stride, padding, dilation, groups, axes=2)


def conv3d(
    input: Input,
    weight: Input,
    bias: Input | None = None,
    stride: win.Numbers = 1,
    padding: win.Numbers | str = 0,
    dilation: win.Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve volumes (N, C, D, H, W) or (C, D, H, W); see `conv2d`."""
    return _convolution(input, weight, bias, stride, padding, dilation, groups, axes=3)


def _convolution(
    input: Input,
    weight: Input,
    bias: Input | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    axes: int,
) -> Tensor:
    input, weight = as_tensor(input, "input"), as_tensor(weight, "weight")
    _check_weight(weight, axes, "(out, in / groups, {kernel})")
    filters = weight.shape[0]
    _check_groups(groups, filters, "output channels (weight.shape[0])")
    channels = weight.shape[1] * groups
    if input.ndim == axes + 1:
        batch = input.reshape(1, *input.shape)
        return _convolution(batch, weight, bias, stride, padding, dilation, groups, axes)[0]
    _check_input(input, channels, weight, axes)
    if bias is not None:
        bias = as_tensor(bias, "bias")
        _check_bias(bias, filters)
    steps = win.per_axis(stride, axes, "stride", 1)
    spacing = win.per_axis(dilation, axes, "dilation", 1)
    kernel, lengths = weight.shape[2:], input.shape[2:]
    if isinstance(padding, str):
        border, small = _named_padding(padding, lengths, kernel, steps, spacing)
    else:
        border = win.per_axis(padding, axes, "padding", 0)
        small = win.output_lengths(lengths, kernel, steps, border, spacing)
    window = tuple([n for one in zip(steps, spacing, border, strict=True) for n in one])
    last = is_channels_last(input.data)
    geometry = Geometry(window, groups, lengths, small, weight.shape, last)
    return Convolve.apply(input, weight, bias, geometry)


def _named_padding(
    padding: str,
    lengths: tuple[int, ...],
    kernel: tuple[int, ...],
    steps: tuple[int, ...],
    spacing: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before each axis, and lengths of the result; what is odd goes to the end."""
    win.check_named_padding(padding, steps)
    if padding == "valid":
        none = (0,) * len(lengths)
        return none, win.output_lengths(lengths, kernel, steps, none, spacing)
    return tuple([s * (k - 1) // 2 for s, k in zip(spacing, kernel, strict=True)]), lengths


# --- transposed convolution ---------------------------------------------------------


def conv_transpose1d(
    input: Input,
    weight: Input,
    bias: Input | None = None,
    stride: win.Numbers = 1,
    padding: win.Numbers = 0,
    output_padding: win.Numbers = 0,
    groups: int = 1,
    dilation: win.Numbers = 1,
) -> Tensor:
    """Apply the adjoint of `conv1d` to series (N, C, L) or (C, L); see `conv_transpose2d`."""
    return _transposed(
        input, weight, bias, stride, padding, output_padding, groups, dilation, axes=1
    )


def conv_transpose2d(
    input: Input,
    weight: Input,
    bias: Input | None = None,
    stride: win.Numbers = 1,
    padding: win.Numbers = 0,
    output_padding: win.Numbers = 0,
    groups: int = 1,
    dilation: win.Numbers = 1,
) -> Tensor:
    """Transposed convolution: the adjoint of `conv2d`, which makes images larger by `stride`.

    `conv_transpose1d` and `conv_transpose3d` do the same with one and three spatial axes.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, H, W) or (C, H, W)
    weight : Tensor or ndarray of shape (C, out_channels / groups, kernel_h, kernel_w)
    bias : Tensor or ndarray of shape (out_channels,), optional
    stride, padding, dilation : int or (int, int), default 1, 0, 1
        Those of the convolution.
    output_padding : int or (int, int), default 0
        Rows and columns that the result has more on one side; less than stride or dilation.
    groups : int, default 1

    Returns
    -------
    Tensor of shape (N, out_channels, H', W') or (out_channels, H', W')
        H' is (H - 1) stride - 2 padding + dilation (kernel_h - 1) + output_padding + 1.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the result would have no elements.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> image, weight = np.ones((1, 3, 4, 4), np.float32), np.ones((3, 2, 2, 2), np.float32)
    >>> instnorm.functional.conv_transpose2d(image, weight, stride=2).shape
    (1, 2, 8, 8)
    """
    return _transposed(
        input, weight, bias, stride, padding, output_padding, groups, dilation, axes=2
    )


def conv_transpose3d(
    input: Input,
    weight: Input,
    bias: Input | None = None,
    stride: win.Numbers = 1,
    padding: win.Numbers = 0,
    output_padding: win.Numbers = 0,
    groups: int = 1,
    dilation: win.Numbers = 1,
) -> Tensor:
    """Apply the adjoint of `conv3d` to volumes (N, C, D, H, W); see `conv_transpose2d`."""
    return _transposed(
        input, weight, bias, stride, padding, output_padding, groups, dilation, axes=3
    )


def _transposed(
    input: Input,
    weight: Input,
    bias: Input | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
    axes: int,
) -> Tensor:
    input, weight = as_tensor(input, "input"), as_tensor(weight, "weight")
    _check_weight(weight, axes, "(in, out / groups, {kernel})")
    _check_groups(groups, weight.shape[0], "input channels (weight.shape[0])")
    if input.ndim == axes + 1:
        batch = input.reshape(1, *input.shape)
        return _transposed(
            batch, weight, bias, stride, padding, output_padding, groups, dilation, axes
        )[0]
    _check_input(input, weight.shape[0], weight, axes)
    if bias is not None:
        bias = as_tensor(bias, "bias")
        _check_bias(bias, weight.shape[1] * groups)
    steps = win.per_axis(stride, axes, "stride", 1)
    border = win.per_axis(padding, axes, "padding", 0)
    extra = win.per_axis(output_padding, axes, "output_padding", 0)
    spacing = win.per_axis(dilation, axes, "dilation", 1)
    if any(e >= max(s, d) for e, s, d in zip(extra, steps, spacing, strict=True)):
        raise ValueError(
            f"output_padding must be less than stride or dilation, got {extra} with stride "
            f"{steps} and dilation {spacing}"
        )
    kernel, lengths = weight.shape[2:], input.shape[2:]
    large = transposed_lengths(lengths, kernel, steps, border, extra, spacing)
    if min(large) < 1:
        raise ValueError(
            f"the result would have lengths {large}: padding {border} leaves nothing of it"
        )
    window = tuple([n for one in zip(steps, spacing, border, strict=True) for n in one])
    last = is_channels_last(input.data)
    geometry = Geometry(window, groups, large, lengths, weight.shape, last)
    return Adjoint.apply(input, weight, bias, geometry)


def transposed_lengths(
    lengths: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    output_padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[int, ...]:
    """The lengths of a transposed convolution's result."""
    measures = zip(lengths, kernel, stride, padding, output_padding, dilation, strict=True)
    return tuple([(n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, e, d in measures])


# --- checks --------------------------------------------------------------------------

_SPATIAL = {1: "L", 2: "H, W", 3: "D, H, W"}
_KERNEL = {1: "kernel", 2: "kernel_h, kernel_w", 3: "kernel_d, kernel_h, kernel_w"}


def _check_weight(weight: Tensor, axes: int, wanted: str) -> None:
    if weight.ndim != axes + 2 or 0 in weight.shape[2:]:
        raise ValueError(
            f"weight has shape {weight.shape}, expected {axes + 2} axes: "
            f"{wanted.format(kernel=_KERNEL[axes])}"
        )


def _check_groups(groups: int, channels: int, what: str) -> None:
    if isinstance(groups, bool) or not isinstance(groups, int | np.integer):
        raise TypeError(f"groups must be an integer, got {groups!r}")
    if groups < 1 or channels % groups:
        raise ValueError(f"groups={groups} does not divide the {channels} {what}")


def _check_input(input: Tensor, channels: int, weight: Tensor, axes: int) -> None:
    if input.dtype != weight.dtype:
        raise RuntimeError(
            f"input and weight must have one dtype, got {input.dtype} and {weight.dtype}; cast "
            "one of them, for example by x.float(), or a model by net.double()"
        )
    if input.ndim != axes + 2 or input.shape[1] != channels:
        spatial = _SPATIAL[axes]
        raise ValueError(
            f"input has shape {input.shape}, expected (N, {channels}, {spatial}) or "
            f"({channels}, {spatial}) to fit weight of shape {weight.shape}"
        )


# --- the maps --------------------------------------------------------------------------


class Geometry(NamedTuple):
    """A convolution's measures; `large` is what it takes, `small` what it gives."""

    window: tuple[int, ...]  # stride, dilation and padding of each spatial axis
    groups: int
    large: tuple[int, ...]  # lengths of the spatial axes
    small: tuple[int, ...]
    weight: tuple[int, ...]  # the weight's shape
    channels_last: bool  # in memory, of all results


class Convolve(Function):
    """Convolution. Its adjoint, and the map to the weight's gradient, are the next two classes.

    All three are linear in both of their arguments, and each one's gradients are the others.
    """

    @staticmethod
    def forward(
        ctx: Any, large: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
    ) -> Array:
        """Convolve (N, C, spatial...)."""
        ctx.save_for_backward(large, weight)
        ctx.geometry = geometry
        return _convolved(large, weight, bias, geometry, adjoint=False)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Apply the adjoint, and sum the products of the gradient and what the window sees."""
        large, weight = ctx.saved_tensors
        geometry, (need_large, need_weight, need_bias, _) = ctx.geometry, ctx.needs_input_grad
        grad_large = grad_weight = grad_bias = None
        if need_large:
            grad_large = Adjoint.apply(grad_output, weight, None, geometry)
        if need_weight or need_bias:
            grad_weight, grad_bias = WeightGradient.apply(large, grad_output, geometry)
        return grad_large, grad_weight, grad_bias if need_bias else None, None


class Adjoint(Function):
    """The adjoint of convolution, which is also called transposed convolution."""

    @staticmethod
    def forward(
        ctx: Any, small: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
    ) -> Array:
        """From what the convolution gives to what it takes."""
        ctx.save_for_backward(small, weight)
        ctx.geometry = geometry
        return _convolved(small, weight, bias, geometry, adjoint=True)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Convolve, and sum the products of the argument and what the window sees."""
        small, weight = ctx.saved_tensors
        geometry, (need_small, need_weight, need_bias, _) = ctx.geometry, ctx.needs_input_grad
        grad_small = grad_weight = grad_bias = None
        if need_small:
            grad_small = Convolve.apply(grad_output, weight, None, geometry)
        if need_weight:
            grad_weight, _ = WeightGradient.apply(grad_output, small, geometry)
        if need_bias:
            grad_bias = grad_output.sum((0, *range(2, grad_output.ndim)))
        return grad_small, grad_weight, grad_bias, None


class WeightGradient(Function):
    """The gradients of a convolution's weight and bias."""

    @staticmethod
    def forward(ctx: Any, large: Tensor, small: Tensor, geometry: Geometry) -> tuple[Array, Array]:
        """Sum products over the samples and the places of the window."""
        ctx.save_for_backward(large, small)
        ctx.geometry = geometry
        dtype = small.dtype
        wide = wide_dtype(dtype)
        grad_weight = np.empty(geometry.weight, wide)
        grad_bias = np.empty(geometry.weight[:1], wide)
        layers.weight_gradient(
            *(as_dtype(large.data, wide), as_dtype(small.data, wide), grad_weight, grad_bias),
            *(geometry.window, geometry.groups),
        )
        return as_dtype(grad_weight, dtype), as_dtype(grad_bias, dtype)

    @staticmethod
    def backward(
        ctx: Any, cotangent: Tensor, bias_cotangent: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        """Convolve and its adjoint, with the cotangent for a weight."""
        large, small = ctx.saved_tensors
        geometry, (need_large, need_small, _) = ctx.geometry, ctx.needs_input_grad
        return (
            Adjoint.apply(small, cotangent, None, geometry) if need_large else None,
            Convolve.apply(large, cotangent, bias_cotangent, geometry) if need_small else None,
            None,
        )


def _convolved(
    source: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, adjoint: bool
) -> Array:
    """Run the kernel, in float32 where the arguments are half precision."""
    dtype = source.dtype
    wide = wide_dtype(dtype)
    filters, channels = geometry.weight[:2]
    channels = channels * geometry.groups if adjoint else filters
    lengths = geometry.large if adjoint else geometry.small
    result = empty_images((source.shape[0], channels, *lengths), wide, geometry.channels_last)
    layers.convolve(
        as_dtype(source.data, wide),
        np.ascontiguousarray(weight.data, wide),
        None if bias is None else np.ascontiguousarray(bias.data, wide),
        result,
        geometry.window,
        geometry.groups,
        adjoint,
    )
    return as_dtype(result, dtype)
