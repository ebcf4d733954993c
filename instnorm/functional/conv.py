"""Matrix products: linear and conv2d."""

from __future__ import annotations

from typing import Any

from instnorm import _primitives as ops
from instnorm import autograd
from instnorm._layouts import Array
from instnorm.autograd import Function
from instnorm.functional import windows as win
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
    output = input @ weight.T
    if bias is None:
        return output
    bias = as_tensor(bias, "bias")
    _check_bias(bias, weight.shape[0])
    return output + bias


def _check_bias(bias: Tensor, features: int) -> None:
    if bias.shape != (features,):
        raise ValueError(f"bias has shape {bias.shape}, expected ({features},)")


def conv2d(
    input: Input,
    weight: Input,
    bias: Input | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional convolution (cross-correlation), as one matrix product.

    The windows of the input become the rows of a matrix, channels last, so that
    BLAS does the work. The output is laid out channels-last in memory, under the
    usual shape.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, H, W) or (C, H, W)
    weight : Tensor or ndarray of shape (out_channels, C, kernel_h, kernel_w)
    bias : Tensor or ndarray of shape (out_channels,), optional
    stride, padding, dilation : int or (int, int), default 1, 0, 1
        Steps of the window, rows and columns of zeros on each side, and spacing of
        the window's elements, in pixels.
    groups : int, default 1
        Only 1 is supported.

    Returns
    -------
    Tensor of shape (N, out_channels, H', W') or (out_channels, H', W')

    Raises
    ------
    NotImplementedError
        If `groups` is not 1.
    ValueError
        If the shapes do not fit, or the window is larger than the padded input.
    """
    input, weight = as_tensor(input, "input"), as_tensor(weight, "weight")
    if groups != 1:
        raise NotImplementedError(f"groups={groups} is not supported by conv2d, expected 1")
    if weight.ndim != 4:
        raise ValueError(
            f"weight has shape {weight.shape}, expected 4 axes: (out, in, kernel_h, kernel_w)"
        )
    if input.ndim == 3:
        batch = input.reshape(1, *input.shape)
        return conv2d(batch, weight, bias, stride, padding, dilation)[0]
    if input.ndim != 4 or input.shape[1] != weight.shape[1]:
        raise ValueError(
            f"input has shape {input.shape}, expected (N, {weight.shape[1]}, H, W) or "
            f"({weight.shape[1]}, H, W) to fit weight of shape {weight.shape}"
        )
    window = win.Window.of(
        input.shape,
        kernel_size=weight.shape[2:],
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    if bias is not None:
        bias = as_tensor(bias, "bias")
        _check_bias(bias, weight.shape[0])
    return Conv2d.apply(input, weight, bias, window)


class Conv2d(Function):
    """Convolution: the matrix of windows times the matrix of weights."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, window: win.Window
    ) -> Array:
        """Convolve (N, C, H, W) with (O, C, kernel_h, kernel_w)."""
        columns = window.unfold(input.data)
        output = (Tensor(columns) @ _weight_matrix(weight).T).data
        if bias is not None:
            output = output + bias.data
        ctx.window = window
        ctx.save_for_backward(input, weight, columns if ctx.needs_input_grad[1] else None)
        pixels = output.reshape(input.shape[0], *window.output_size, weight.shape[0])
        return pixels.transpose(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Convolve the gradient with the flipped weight, and with the input's windows."""
        input, weight, saved_columns = ctx.saved_tensors
        window, (need_input, need_weight, need_bias, _) = ctx.window, ctx.needs_input_grad
        grad_input = grad_weight = None
        if need_input:
            grad_input = _conv2d_grad_input(grad_output, weight, window)
        if need_weight:
            columns = Tensor(saved_columns)
            if autograd.is_grad_enabled():
                columns = ops.linear(input, window.unfold, window.fold)
            products = _pixel_rows(grad_output).T @ columns
            by_pixel = products.reshape(weight.shape[0], *weight.shape[2:], weight.shape[1])
            grad_weight = by_pixel.permute(0, 3, 1, 2)
        return grad_input, grad_weight, grad_output.sum((0, 2, 3)) if need_bias else None, None


def _weight_matrix(weight: Tensor) -> Tensor:
    """(O, C, h, w) to (O, h * w * C), the order of elements in a window."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _pixel_rows(images: Tensor) -> Tensor:
    """(N, C, H, W) to (N * H * W, C)."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _conv2d_grad_input(grad_output: Tensor, weight: Tensor, window: win.Window) -> Tensor:
    margin = window.adjoint_padding
    if margin is None:
        rows = _pixel_rows(grad_output) @ _weight_matrix(weight)
        return ops.linear(rows, window.fold, window.unfold)
    # With stride 1 the adjoint is a convolution too, which costs less than folding.
    flipped = weight[:, :, ::-1, ::-1].transpose(0, 1)
    return conv2d(grad_output, flipped, padding=margin, dilation=window.dilation)
