"""Pooling: the largest or the mean of each window."""

from __future__ import annotations

from instnorm import _primitives as ops
from instnorm.functional import windows as win
from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor


def max_pool2d(
    input: Input,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """Largest element of each window; the first one where several are.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, H, W)
    kernel_size : int or (int, int)
        Size of the window, in pixels.
    stride : int or (int, int), optional
        Step of the window; by default its size.
    padding : int or (int, int), default 0
        At most half the window. Padding never wins.

    Returns
    -------
    Tensor of shape (N, C, H', W')
    """
    input, window = _pooling(input, kernel_size, stride, padding)
    largest, winners = window.max(input.data)
    return ops.linear(
        input,
        lambda a: window.pick(a, winners),
        lambda a: window.put(a, winners),
        result=largest,
    )


def avg_pool2d(
    input: Input,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """Mean of each window, zeros of the padding included.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, H, W)
    kernel_size : int or (int, int)
        Size of the window, in pixels.
    stride : int or (int, int), optional
        Step of the window; by default its size.
    padding : int or (int, int), default 0
        At most half the window.

    Returns
    -------
    Tensor of shape (N, C, H', W')
    """
    input, window = _pooling(input, kernel_size, stride, padding)
    return ops.linear(input, window.mean, window.spread)


def _pooling(
    input: Input,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None,
    padding: int | tuple[int, int],
) -> tuple[Tensor, win.Window]:
    input = as_tensor(input, "input")
    if input.ndim != 4:
        raise ValueError(f"input has shape {input.shape}, expected 4 axes: (N, C, H, W)")
    window = win.Window.of(
        input.shape,
        kernel_size=kernel_size,
        stride=kernel_size if stride is None else stride,
        padding=padding,
    )
    if any(2 * p > k for p, k in zip(window.padding, window.kernel_size, strict=True)):
        raise ValueError(
            f"padding must be at most half of kernel_size {window.kernel_size}, "
            f"got {window.padding}"
        )
    return input, window
