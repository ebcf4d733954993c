"""Stateless operations on Tensors, under the names of torch.nn.functional.

Every function takes Tensors or ndarrays and returns a Tensor. Images are
(N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from instnorm import arrays, autograd
from instnorm import primitives as ops
from instnorm import windows as win
from instnorm.autograd import Function
from instnorm.tensor import Tensor

__all__ = [
    "avg_pool2d",
    "conv2d",
    "cross_entropy",
    "instance_norm",
    "interpolate",
    "l1_loss",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]

Array: TypeAlias = npt.NDArray[Any]
Input: TypeAlias = Tensor | Array
Reduction: TypeAlias = Literal["none", "mean", "sum"]


def as_tensor(value: Any, name: str) -> Tensor:
    """Return a Tensor as it is, and wrap what NumPy takes for an array of numbers."""
    if isinstance(value, Tensor):
        return value
    if value is None:
        raise TypeError(f"{name} must be a Tensor or array, got None")
    return Tensor(value)


# --- instance normalization ------------------------------------------------------


class ArgumentError(ValueError, RuntimeError):
    """A parameter or running statistic is missing, or does not fit the input.

    It is a RuntimeError because PyTorch's is.
    """


def instance_norm(
    input: Input,
    running_mean: Input | None = None,
    running_var: Input | None = None,
    weight: Input | None = None,
    bias: Input | None = None,
    use_input_stats: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalize each channel of each sample by its own mean and variance.

    .. math:: y = \frac{x - \mathrm{mean}}{\sqrt{\mathrm{var} + \epsilon}} \cdot weight + bias

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, spatial...)
        At least three axes, float dtype.
    running_mean, running_var : Tensor or ndarray of shape (C,), optional
        With `use_input_stats`, they are updated in place: ``new = (1 - momentum) *
        old + momentum * x``, x being the mean over N of the samples' means and
        unbiased variances. Without, they are what is used.
    weight, bias : Tensor or ndarray of shape (C,), optional
        Scale and shift of each channel. Either may be given without the other.
    use_input_stats : bool, default True
        Whether to normalize by the input's statistics or by the running ones.
    momentum : float or None, default 0.1
        Share of the new value in the running statistics; None leaves them alone.
    eps : float, default 1e-5
        Added to the variance; finite and not negative.

    Returns
    -------
    Tensor
        Of the shape, dtype and memory layout of `input`.

    Raises
    ------
    TypeError
        If the input is not of a float dtype.
    ValueError
        If the input has fewer than three axes, there is just one spatial element to take
        statistics of, `eps` is negative or not finite, or one running statistic is
        given without the other.
    ArgumentError
        A ValueError and RuntimeError: if a parameter or running statistic is not of
        shape (C,), or the running statistics are missing where they are used.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing
    Ingredient for Fast Stylization", 2016, https://arxiv.org/abs/1607.08022

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([[[1.0, 3.0], [10.0, 30.0]]])
    >>> instnorm.functional.instance_norm(x, eps=0)
    tensor([[[-1.,  1.],
             [-1.,  1.]]])
    """
    # A call of `as_tensor` for each would take a tenth of the time that a small input does.
    if not isinstance(input, Tensor):
        input = as_tensor(input, "input")
    if weight is not None and not isinstance(weight, Tensor):
        weight = as_tensor(weight, "weight")
    if bias is not None and not isinstance(bias, Tensor):
        bias = as_tensor(bias, "bias")
    if not use_input_stats and (running_mean is None or running_var is None):
        raise ArgumentError(
            "running_mean and running_var must both be given where use_input_stats is False, got "
            f"running_mean={running_mean!r} and running_var={running_var!r}"
        )
    try:
        given = take_in = None
        if not use_input_stats:
            given = _array(running_mean), _array(running_var)
        elif running_mean is not None or running_var is not None:
            take_in = _RunningUpdates(input, running_mean, running_var, momentum).apply
        if autograd.is_recorded(input, weight, bias):
            return InstanceNorm.apply(input, weight, bias, given, eps, take_in)
        if take_in is None:
            return Tensor._of(_normalize(input, weight, bias, given, eps, return_stats=False))
        y, used_mean, used_rstd = _normalize(input, weight, bias, given, eps, return_stats=True)
        take_in(used_mean, used_rstd, float(eps))
        return Tensor._of(y)
    except ValueError:
        # Only now, since it takes time: tell it in the names of this function's arguments.
        for name, value in {
            "running_mean": running_mean,
            "running_var": running_var,
            "weight": weight,
            "bias": bias,
        }.items():
            if value is not None:
                _check_shape(value, name, input)
        raise


def _check_shape(value: Any, name: str, input: Tensor) -> None:
    if input.ndim > 1 and _array(value).shape != input.shape[1:2]:
        raise ArgumentError(
            f"{name} has shape {_array(value).shape}, expected {input.shape[1:2]}: "
            "one for each channel of input"
        ) from None


def _array(value: Any) -> Array:
    return value.data if isinstance(value, Tensor) else np.asarray(value)


class _RunningUpdates:
    """The change that one batch makes to the running statistics; checked before any is made."""

    def __init__(
        self,
        input: Tensor,
        running_mean: Input | None,
        running_var: Input | None,
        momentum: float | None,
    ) -> None:
        self._input = input
        self._momentum = momentum
        self._targets = (running_mean, running_var)
        if (running_mean is None) != (running_var is None):
            raise ValueError(
                "running_mean and running_var must be given both or neither, got "
                f"running_mean={running_mean!r} and running_var={running_var!r}"
            )
        if running_mean is not None:
            _check_running(running_mean, "running_mean", input)
            _check_running(running_var, "running_var", input)

    def apply(self, mean: Array, rstd: Array, eps: float) -> None:
        """Take in the statistics of a batch, each of shape (N, C)."""
        if self._momentum is None or self._input.data.size == 0:
            return
        running_mean, running_var = self._targets
        if running_mean is not None:
            self._blend(running_mean, mean.mean(axis=0))
        if running_var is not None:
            count = ops.elements_over(self._input.shape, tuple(range(2, self._input.ndim)))
            # rstd is 0 where var + eps is: then the variance is 0 too.
            var = np.square(1 / np.where(rstd == 0, np.inf, rstd)) - eps
            var = np.where(rstd == 0, 0, np.maximum(var, 0))
            self._blend(running_var, var.mean(axis=0) * (count / (count - 1)))

    def _blend(self, running: Input, new: Array) -> None:
        assert self._momentum is not None
        array = _array(running)
        array[...] = (1 - self._momentum) * array.astype(np.float64) + self._momentum * new
        if isinstance(running, Tensor):
            running.mark_changed()


def _check_running(running: Any, name: str, input: Tensor) -> None:
    if not isinstance(running, Tensor | np.ndarray):
        raise TypeError(
            f"{name} is updated in place and must be a Tensor or ndarray, "
            f"got {type(running).__name__}"
        )
    if not arrays.is_float_dtype(running.dtype):
        raise TypeError(f"{name} has dtype {running.dtype}, expected a float dtype")
    if not _array(running).flags.writeable:
        raise ValueError(f"{name} is updated in place and is read-only")
    _check_shape(running, name, input)


def _normalize(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    given: tuple[Array, Array] | None,
    eps: float,
    return_stats: bool,
) -> Any:
    """`arrays.instance_norm` of Tensors; `given` holds mean and var, or is None."""
    mean, var = given or (None, None)
    return arrays.instance_norm(  # type: ignore[call-overload]
        input.data,
        None if weight is None else weight.data,
        None if bias is None else bias.data,
        mean=mean,
        var=var,
        eps=eps,
        return_stats=return_stats,
    )


class InstanceNorm(Function):
    """Instance normalization by the compiled kernels."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        given: tuple[Array, Array] | None,
        eps: float,
        take_in: Any,
    ) -> Array:
        """Normalize, by the input's own statistics where none are given; `take_in` gets them."""
        y: Array
        y, used_mean, used_rstd = _normalize(input, weight, bias, given, eps, True)
        if take_in is not None:
            take_in(used_mean, used_rstd, float(eps))
        ctx.eps, ctx.use_input_stats = eps, given is None
        ctx.mixed = (
            bias is not None and bias.data.dtype != (input if weight is None else weight).data.dtype
        )
        ctx.save_for_backward(input, weight, used_mean, used_rstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Run the backward kernel; where the result is to be differentiated, Tensor operations."""
        input, weight, mean, rstd = ctx.saved_tensors
        if autograd.is_grad_enabled():
            given = None if ctx.use_input_stats else (mean, rstd)
            grads: Any = _differentiable_backward(grad_output, input, weight, given, ctx.eps)
        else:
            scale = None if weight is None else weight.data
            if ctx.mixed:  # both come in the dtype of `scale`: the bias' must lose nothing by it
                scale = np.ones(input.shape[1]) if scale is None else scale.astype(np.float64)
            grads = arrays.instance_norm_backward(
                grad_output.data,
                input.data,
                scale,
                mean=mean,
                rstd=rstd,
                use_input_stats=ctx.use_input_stats,
            )
            grads = [Tensor._of(gradient) for gradient in grads]
        need_input, need_weight, need_bias, _, _, _ = ctx.needs_input_grad
        return (
            grads[0] if need_input else None,
            grads[1] if need_weight else None,
            grads[2] if need_bias else None,
            None,
            None,
            None,
        )


def _differentiable_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    given: tuple[Array, Array] | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of instance normalization as a graph, for second derivatives.

    `given` holds mean and rstd, or is None where they are functions of the input.
    """
    axes = tuple(range(2, input.ndim))
    per_channel = (1, -1) + (1,) * len(axes)
    working = np.promote_types(input.dtype, np.float32)
    x, g = input.to(working), grad_output.to(working)
    scale = 1.0 if weight is None else weight.to(working).reshape(per_channel)

    def mean_of(t: Tensor) -> Tensor:
        return t.mean(axes, keepdim=True)

    if given is None:
        centred = x - mean_of(x)
        shifted_var = mean_of(centred * centred) + eps
        constant = shifted_var.data == 0
        root = shifted_var.where(~constant, 1.0).sqrt()
        x_hat = (centred / root).where(~np.broadcast_to(constant, x.shape), 0.0)
        inverse = (1 / root).where(~constant, 0.0)
        grad_input = inverse * scale * (g - mean_of(g) - x_hat * mean_of(g * x_hat))
    else:
        mean, rstd = (s.reshape(*s.shape, *(1 for _ in axes)).astype(working) for s in given)
        x_hat = (x - mean) * rstd
        grad_input = g * scale * rstd
    over = (0, *axes)
    return grad_input.to(input.dtype), (g * x_hat).sum(over), g.sum(over)


# --- linear maps -------------------------------------------------------------------


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


# --- pooling and resizing --------------------------------------------------------------


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


def interpolate(
    input: Input,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
) -> Tensor:
    """Resize the spatial axes, taking the nearest element.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, spatial...)
    size : int or sequence of int, optional
        The new size. Give this or `scale_factor`.
    scale_factor : float or sequence of float, optional
        The new size as a multiple of the old.
    mode : {'nearest'}
        Element i of the result is element floor(i * old / new) of the input, or
        floor(i / scale_factor) where that is given, in float32 arithmetic as PyTorch's.

    Returns
    -------
    Tensor of shape (N, C, new spatial...)

    Raises
    ------
    NotImplementedError
        If `mode` is another.
    ValueError
        If not exactly one of `size` and `scale_factor` is given, or it does not fit.
    """
    input = as_tensor(input, "input")
    if mode != "nearest":
        raise NotImplementedError(
            f"mode={mode!r} is not supported by interpolate, expected 'nearest'"
        )
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"exactly one of size and scale_factor must be given, got size={size} and "
            f"scale_factor={scale_factor}"
        )
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


# --- activations -------------------------------------------------------------------------


def relu(input: Input) -> Tensor:
    """``max(0, x)`` of each element; its gradient at 0 is 0."""
    return ops.LeakyReLU.apply(as_tensor(input, "input"), 0.0)


def leaky_relu(input: Input, negative_slope: float = 0.01) -> Tensor:
    """``x`` of each element above 0, ``negative_slope * x`` of the others."""
    return ops.LeakyReLU.apply(as_tensor(input, "input"), float(negative_slope))


def tanh(input: Input) -> Tensor:
    """Hyperbolic tangent of each element."""
    return as_tensor(input, "input").tanh()


def sigmoid(input: Input) -> Tensor:
    """``1 / (1 + exp(-x))`` of each element."""
    return as_tensor(input, "input").sigmoid()


def log_softmax(input: Input, dim: int) -> Tensor:
    """``x - log(sum(exp(x)))`` along an axis, computed without overflow."""
    input = as_tensor(input, "input")
    (axis,) = ops.axes_of(int(dim), input.ndim)
    return ops.LogSoftmax.apply(input, axis)


def softmax(input: Input, dim: int) -> Tensor:
    """``exp(x) / sum(exp(x))`` along an axis, computed without overflow."""
    return log_softmax(input, dim).exp()


# --- losses ------------------------------------------------------------------------------------


def mse_loss(input: Input, target: Input, reduction: Reduction = "mean") -> Tensor:
    """Squared error, ``(input - target) ** 2``.

    Parameters
    ----------
    input, target : Tensor or ndarray
        Of the same shape.
    reduction : {'mean', 'sum', 'none'}, default 'mean'

    Returns
    -------
    Tensor
        A scalar; with 'none', of the shape of the input.
    """
    difference = _difference(input, target)
    return _reduced(difference * difference, reduction)


def l1_loss(input: Input, target: Input, reduction: Reduction = "mean") -> Tensor:
    """Absolute error, ``abs(input - target)``.

    Parameters
    ----------
    input, target : Tensor or ndarray
        Of the same shape.
    reduction : {'mean', 'sum', 'none'}, default 'mean'

    Returns
    -------
    Tensor
        A scalar; with 'none', of the shape of the input.
    """
    return _reduced(_difference(input, target).abs(), reduction)


def _difference(input: Input, target: Input) -> Tensor:
    input, target = as_tensor(input, "input"), as_tensor(target, "target")
    if input.shape != target.shape:
        raise ValueError(f"target has shape {target.shape}, expected that of input, {input.shape}")
    return input - target


def _reduced(values: Tensor, reduction: str) -> Tensor:
    _check_reduction(reduction)
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def cross_entropy(
    input: Input,
    target: Input,
    weight: Input | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of class scores and the true classes.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, classes, ...) or (classes,)
        Unnormalized scores (logits).
    target : Tensor or ndarray of shape (N, ...) or ()
        Class indices, integers.
    weight : Tensor or ndarray of shape (classes,), optional
        How much each class counts.
    ignore_index : int, default -100
        Targets of this value count for nothing.
    reduction : {'mean', 'sum', 'none'}, default 'mean'
        'mean' divides by the sum of the weights of the targets that count.
    label_smoothing : float, default 0.0
        Share of the target that is spread evenly over all classes, from 0 to 1.

    Returns
    -------
    Tensor
        A scalar; with 'none', of the shape of the target.

    Raises
    ------
    TypeError
        If the targets are not integers.
    ValueError
        If the shapes do not fit, or `label_smoothing` is outside [0, 1].
    IndexError
        If a target is no class.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> scores = instnorm.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> round(instnorm.functional.cross_entropy(scores, np.array([0, 1])).item(), 4)
    0.1269
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")
    input = as_tensor(input, "input")
    log_p = log_softmax(input, 1 if input.ndim > 1 else 0)
    hard = nll_loss(log_p, target, weight, ignore_index, reduction)
    if label_smoothing == 0:
        return hard
    smooth = _smoothing_loss(log_p, target, weight, ignore_index, reduction)
    classes = log_p.shape[1 if log_p.ndim > 1 else 0]
    return hard * (1 - label_smoothing) + smooth * (label_smoothing / classes)


def nll_loss(
    input: Input,
    target: Input,
    weight: Input | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-likelihood of the true classes, from log-probabilities.

    Parameters and result are those of `cross_entropy`, but that `input` holds
    log-probabilities.
    """
    _check_reduction(reduction)
    log_p, labels, kept, counts = _class_targets(input, target, weight, ignore_index)
    picked = ops.taken_along(log_p, labels[:, None], 1).reshape(labels.shape)
    if not kept.all():
        picked = picked.where(kept, 0.0)  # it may be -inf, which times 0 is NaN
    return _weighted(-picked, counts, reduction).reshape(
        as_tensor(target, "target").shape if reduction == "none" else ()
    )


def _smoothing_loss(
    input: Tensor, target: Input, weight: Input | None, ignore_index: int, reduction: Reduction
) -> Tensor:
    """The loss of every class, summed, for each target that counts."""
    log_p, labels, kept, counts = _class_targets(input, target, weight, ignore_index)
    class_weight = (
        np.ones(log_p.shape[1], log_p.dtype) if weight is None else as_tensor(weight, "weight").data
    )
    along_classes = class_weight.reshape(1, -1, *(1 for _ in labels.shape[1:]))
    total = -(log_p * along_classes).sum(1).where(kept, 0.0)
    if reduction == "mean":
        mean: Tensor = total.sum() / float(counts.sum())
        return mean
    return _reduced(total, reduction).reshape(
        as_tensor(target, "target").shape if reduction == "none" else ()
    )


def _class_targets(
    input: Input, target: Input, weight: Input | None, ignore_index: int
) -> tuple[Tensor, Array, Array, Array]:
    """Checked: batched log-probabilities, labels, which are not ignored, how much each counts."""
    input, labels = as_tensor(input, "input"), as_tensor(target, "target").data
    if labels.dtype.kind not in "iu":
        raise TypeError(f"target has dtype {labels.dtype}, expected integers: class indices")
    if input.ndim == 1 and labels.ndim == 0:
        input, labels = input.reshape(1, -1), labels.reshape(1)
    if input.ndim < 2 or labels.shape != input.shape[:1] + input.shape[2:]:
        raise ValueError(
            f"target has shape {labels.shape}, expected "
            f"{input.shape[:1] + input.shape[2:]} to fit input of shape {input.shape}"
        )
    classes = input.shape[1]
    kept = labels != ignore_index
    wrong = labels[kept & ((labels < 0) | (labels >= classes))]
    if wrong.size:
        raise IndexError(f"target {wrong[0]} is no class, expected from 0 to {classes - 1}")
    labels = np.where(kept, labels, 0)
    if weight is None:
        return input, labels, kept, kept.astype(input.dtype)
    class_weight = as_tensor(weight, "weight")
    if class_weight.shape != (classes,):
        raise ValueError(f"weight has shape {class_weight.shape}, expected ({classes},)")
    return input, labels, kept, class_weight.data[labels] * kept


def _weighted(losses: Tensor, counts: Array, reduction: str) -> Tensor:
    weighted = losses * counts
    if reduction == "none":
        return weighted
    total = weighted.sum()
    return total / float(counts.sum()) if reduction == "mean" else total
