"""Instance norm as PyTorch operators, which `torch.compile` keeps whole in its graph.

Outside of it they would cost several times what the node of `eager` does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from instnorm.arrays import update_running as update_running_arrays
from instnorm.bridge.torch import arrays


def _forward(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    output, *stats = arrays.forward(input, weight, bias, mean, var, eps)
    used_mean, used_rstd = map(torch.from_numpy, stats)
    return output, used_mean, used_rstd


def _forward_shapes(input: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    statistic = input.new_empty(input.shape[:2], dtype=torch.float64)
    return torch.empty_like(input), statistic, torch.empty_like(statistic)


def _backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    use_input_stats: bool,
    bias_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_input, grad_weight, grad_bias, *_ = arrays.backward(
        grad_output, input, weight, mean.numpy(), rstd.numpy(), use_input_stats, bias_dtype
    )
    # An operator returns tensors by its schema, so an empty one stands for None.
    return (
        grad_input,
        input.new_empty(0) if grad_weight is None else grad_weight,
        input.new_empty(0) if grad_bias is None else grad_bias,
    )


def _backward_shapes(
    _: Tensor, input: Tensor, weight: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    bias_dtype = rest[-1]
    none = input.new_empty(0)
    return (
        torch.empty_like(input),
        none if weight is None else torch.empty_like(weight),
        none.clone() if bias_dtype is None else input.new_empty(input.shape[1], dtype=bias_dtype),
    )


def _update_running(
    running_mean: Tensor,
    running_var: Tensor,
    mean: Tensor,
    rstd: Tensor,
    momentum: float,
    eps: float,
    length: int,
) -> None:
    mean_array, var_array = arrays.as_array(running_mean), arrays.as_array(running_var)
    update_running_arrays(mean_array, var_array, mean.numpy(), rstd.numpy(), momentum, eps, length)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    input, weight, bias, mean, _, _ = inputs
    _, used_mean, used_rstd = output
    ctx.save_for_backward(input, weight, used_mean, used_rstd)
    ctx.use_input_stats = mean is None
    ctx.bias_dtype = None if bias is None else bias.dtype


def _gradients(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    input, weight, mean, rstd = ctx.saved_tensors
    gradients = instance_norm_backward(
        grad_output, input, weight, mean, rstd, ctx.use_input_stats, ctx.bias_dtype
    )
    wanted = (g if n else None for g, n in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*wanted, None, None, None)


instance_norm = torch.library.custom_op(
    "instnorm::instance_norm", _forward, mutates_args=(), device_types="cpu"
)
instance_norm.register_fake(_forward_shapes)
instance_norm.register_autograd(_gradients, setup_context=_save)

instance_norm_backward = torch.library.custom_op(
    "instnorm::instance_norm_backward", _backward, mutates_args=(), device_types="cpu"
)
instance_norm_backward.register_fake(_backward_shapes)

update_running = torch.library.custom_op(
    "instnorm::update_running",
    _update_running,
    mutates_args=("running_mean", "running_var"),
    device_types="cpu",
)


def _update_running_masked(
    running_mean: Tensor,
    running_var: Tensor,
    mean: Tensor,
    rstd: Tensor,
    momentum: float,
    eps: float,
    length: int,
    mask: Tensor,
) -> None:
    mean_array, var_array = arrays.as_array(running_mean), arrays.as_array(running_var)
    batch = mean.numpy(), rstd.numpy(), momentum, eps, length, mask.numpy()
    update_running_arrays(mean_array, var_array, *batch)


_update_masked = torch.library.custom_op(
    "instnorm::update_running_masked_1",
    _update_running_masked,
    mutates_args=("running_mean", "running_var"),
    device_types="cpu",
)


# ----------------------------------------------------- with what follows the norm
#
# In memory of its own, even where it is to be in place: there the output is what is kept for
# backward, and the input's memory is free as soon as the output is there.


def _fused_forward(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    mask: Tensor | None,
    eps: float,
    activation: str | None,
    negative_slope: float,
    from_output: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    after = arrays.Epilogue(mask, activation, negative_slope, False)
    output, *stats = arrays.forward(input, weight, bias, mean, var, eps, residual, slope, after)
    used_mean, used_rstd = map(torch.from_numpy, stats)
    return output, used_mean, used_rstd


def _fused_backward(
    grad_output: Tensor,
    kept: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    mask: Tensor | None,
    use_input_stats: bool,
    activation: str | None,
    negative_slope: float,
    from_output: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    found = arrays.backward_with_epilogue(
        grad_output,
        kept,
        weight,
        bias,
        residual,
        slope,
        mean.numpy(),
        rstd.numpy(),
        use_input_stats,
        arrays.Epilogue(mask, activation, negative_slope, from_output),
    )
    first, *rest = (kept.new_empty(0) if g is None else g for g in found)
    return (first, *rest)


def _fused_backward_shapes(
    _: Tensor,
    kept: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    first, *others = (
        kept.new_empty(0) if t is None else torch.empty_like(t)
        for t in (kept, weight, bias, residual, slope)
    )
    return (first, *others)


def _fused_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    input, weight, bias, residual, slope, mean, _, mask, _, *ctx.after = inputs
    y, used_mean, used_rstd = output
    from_output = ctx.after[-1]
    ctx.save_for_backward(
        y if from_output else input, weight, bias, residual, slope, used_mean, used_rstd, mask
    )
    ctx.use_input_stats = mean is None


def _fused_gradients(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    found = fused_instance_norm_backward(
        grad_output, *ctx.saved_tensors, ctx.use_input_stats, *ctx.after
    )
    wanted = (g if n else None for g, n in zip(found, ctx.needs_input_grad, strict=False))
    return (*wanted, *[None] * 7)


# The version is part of the name: compiled code in a user's cache calls what it was made for.
_fused_instance_norm = torch.library.custom_op(
    "instnorm::fused_instance_norm_1", _fused_forward, mutates_args=(), device_types="cpu"
)
_fused_instance_norm.register_fake(_forward_shapes)
_fused_instance_norm.register_autograd(_fused_gradients, setup_context=_fused_save)

fused_instance_norm_backward = torch.library.custom_op(
    "instnorm::fused_instance_norm_backward_1",
    _fused_backward,
    mutates_args=(),
    device_types="cpu",
)
fused_instance_norm_backward.register_fake(_fused_backward_shapes)


def normalize(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    residual: Tensor | None,
    slope: Tensor | None,
    after: arrays.Epilogue,
) -> Any:
    """Return what `arrays.forward` does, as an operator of the compiled graph."""
    if after is arrays.PLAIN and not arrays.is_per_sample(weight, bias):
        return instance_norm(input, weight, bias, mean, var, eps)
    return _fused_instance_norm(
        input,
        weight,
        bias,
        residual,
        slope,
        mean,
        var,
        after.mask,
        eps,
        after.activation,
        after.negative_slope,
        after.inplace,
    )


def update(
    running_mean: Tensor,
    running_var: Tensor,
    mean: Tensor,
    rstd: Tensor,
    momentum: float,
    eps: float,
    length: int,
    mask: Tensor | None,
) -> None:
    """Take mean and rstd of one batch into the running ones, as an operator."""
    if mask is None:
        update_running(running_mean, running_var, mean, rstd, momentum, eps, length)
    else:
        _update_masked(running_mean, running_var, mean, rstd, momentum, eps, length, mask)
