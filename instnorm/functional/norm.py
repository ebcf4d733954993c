"""Instance normalization of Tensors, by the array functions, and its second derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from instnorm import arrays, autograd
from instnorm._layouts import Array
from instnorm.arrays import ArgumentError
from instnorm.autograd import Function
from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor


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
    # Not by `as_tensor` alone: calling it for Tensors would take a tenth of a small input's time.
    if not isinstance(input, Tensor):
        input = as_tensor(input, "input")
    if weight is not None and not isinstance(weight, Tensor):
        weight = as_tensor(weight, "weight")
    if bias is not None and not isinstance(bias, Tensor):
        bias = as_tensor(bias, "bias")
    given = running = None
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ArgumentError(
                "running_mean and running_var must both be given where use_input_stats is False, "
                f"got running_mean={running_mean!r} and running_var={running_var!r}"
            )
        given = (
            _statistic(running_mean, "running_mean", input),
            _statistic(running_var, "running_var", input),
        )
    elif running_mean is not None and running_var is not None:
        _check_writable(running_mean, "running_mean", input)
        _check_writable(running_var, "running_var", input)
        if momentum is not None and input.data.size:
            running = running_mean, running_var, momentum
    elif running_mean is not running_var:
        raise ValueError(
            "running_mean and running_var must be given both or neither, got "
            f"running_mean={running_mean!r} and running_var={running_var!r}"
        )
    if autograd.is_recorded(input, weight, bias):
        return InstanceNorm.apply(input, weight, bias, given, eps, running)
    if running is None:
        return Tensor._of(_normalize(input, weight, bias, given, eps, return_stats=False))
    y, mean, rstd = _normalize(input, weight, bias, given, eps, return_stats=True)
    _update_running(running, mean, rstd, eps, input)
    return Tensor._of(y)


def _array(value: Any) -> Array:
    return value.data if isinstance(value, Tensor) else np.asarray(value)


def _statistic(value: Any, name: str, input: Tensor) -> Array:
    array = _array(value)
    if input.ndim > 1 and array.shape != input.shape[1:2]:
        raise ArgumentError(
            f"{name} has shape {array.shape}, expected {input.shape[1:2]}: one for each channel"
        )
    return array


def _check_writable(running: Any, name: str, input: Tensor) -> None:
    if not isinstance(running, Tensor | np.ndarray):
        raise TypeError(
            f"{name} is updated in place and must be a Tensor or ndarray, "
            f"got {type(running).__name__}"
        )
    array = _statistic(running, name, input)
    if not arrays.is_float_dtype(array.dtype):
        raise TypeError(f"{name} has dtype {array.dtype}, expected a float dtype")
    if not array.flags.writeable:
        raise ValueError(f"{name} is updated in place and is read-only")


def _update_running(
    running: tuple[Input, Input, float], mean: Array, rstd: Array, eps: float, input: Tensor
) -> None:
    """Take the statistics of a batch, each of shape (N, C), into the running ones."""
    running_mean, running_var, momentum = running
    length = math.prod(input.shape[2:])
    targets = _array(running_mean), _array(running_var)
    arrays.update_running(*targets, mean, rstd, momentum, eps, length)
    for changed in (running_mean, running_var):
        if isinstance(changed, Tensor):
            changed.mark_changed()


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
        running: tuple[Input, Input, float] | None,
    ) -> Array:
        """Normalize, by the input's own statistics where none are given; `running` takes those."""
        y: Array
        y, used_mean, used_rstd = _normalize(input, weight, bias, given, eps, True)
        if running is not None:
            _update_running(running, used_mean, used_rstd, eps, input)
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
            # The array function narrows the parameters' gradients to one dtype. Where weight and
            # bias differ in theirs, they stay float64 here, and the graph narrows each to its own.
            run = arrays.gradients if ctx.mixed else arrays.instance_norm_backward
            grads = run(
                grad_output.data,
                input.data,
                None if weight is None else weight.data,
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
