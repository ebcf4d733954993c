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
    grad_input, grad_weight, grad_bias = arrays.backward(
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
