"""Instance norm as a node of PyTorch's graph, outside `torch.compile`."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from instnorm.arrays import update_running as update_running_arrays
from instnorm.bridge.torch import arrays

# Mean and rstd that were used, whether they are the input's own, and the dtype of the bias, if any.
Statistics: TypeAlias = tuple[arrays.Array, arrays.Array, bool, torch.dtype | None]


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
) -> tuple[Tensor, arrays.Array, arrays.Array]:
    """Return what `arrays.forward` does, the tensor as a node of the graph."""
    output, used_mean, used_rstd = arrays.forward(input, weight, bias, mean, var, eps)
    if torch.is_grad_enabled() and (
        input.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
    ):
        stats = used_mean, used_rstd, mean is None, None if bias is None else bias.dtype
        output = InstanceNorm.apply(input, weight, bias, (output, stats, eps))
    return output, used_mean, used_rstd


def update_running(
    running_mean: Tensor,
    running_var: Tensor,
    mean: arrays.Array,
    rstd: arrays.Array,
    momentum: float,
    eps: float,
    length: int,
) -> None:
    """Take mean and rstd of one batch, of shape (N, C), into the running ones, in place."""
    mean_array, var_array = arrays.as_array(running_mean), arrays.as_array(running_var)
    update_running_arrays(mean_array, var_array, mean, rstd, momentum, eps, length)
    increment_version((running_mean, running_var))


class InstanceNorm(torch.autograd.Function):
    """The forward pass; its backward pass is differentiable in turn."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        result: tuple[Tensor, Statistics, float],
    ) -> Tensor:
        """Keep what the backward pass needs; the output is in a tuple, so as to be no input."""
        ctx.save_for_backward(input, weight)
        output, ctx.stats, ctx.eps = result
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients for input, weight and bias."""
        input, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            gradients = InstanceNormBackward.apply(grad_output, input, weight, *ctx.stats, ctx.eps)
        else:
            gradients = arrays.backward(grad_output, input, weight, *ctx.stats)
        wanted = (g if n else None for g, n in zip(gradients, ctx.needs_input_grad, strict=False))
        return (*wanted, None)


class InstanceNormBackward(torch.autograd.Function):
    """The backward pass by the kernels; its own backward pass is PyTorch's, by `gradients`."""

    @staticmethod
    def forward(
        ctx: Any,
        grad_output: Tensor,
        input: Tensor,
        weight: Tensor | None,
        mean: arrays.Array,
        rstd: arrays.Array,
        use_input_stats: bool,
        bias_dtype: torch.dtype | None,
        eps: float,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the gradients for input, weight and bias."""
        ctx.save_for_backward(grad_output, input, weight)
        ctx.stats = mean, rstd, use_input_stats, bias_dtype
        ctx.eps = eps
        return arrays.backward(grad_output, input, weight, *ctx.stats)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients for grad_output, input and weight."""
        with torch.enable_grad():
            # Aliases, as grad_output may itself depend on input by another path of the graph, which
            # torch.autograd.grad would follow as well.
            inputs = tuple(None if t is None else t.view_as(t) for t in ctx.saved_tensors)
            grad_output, input, weight = inputs
            outputs = gradients(grad_output, input, weight, ctx.eps, *ctx.stats)
        reached = [
            (output, cotangent)
            for output, cotangent in zip(outputs, cotangents, strict=True)
            if output is not None and output.requires_grad and cotangent is not None
        ]
        wanted = [t for t in inputs if t is not None and t.requires_grad]
        found = torch.autograd.grad(
            [output for output, _ in reached],
            wanted,
            [cotangent for _, cotangent in reached],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
        )
        results = (_found_for(t, wanted, found) for t in inputs)
        return (*results, None, None, None, None, None)


def _found_for(
    tensor: Tensor | None, wanted: list[Tensor], found: tuple[Tensor | None, ...]
) -> Tensor | None:
    return next((f for w, f in zip(wanted, found, strict=True) if w is tensor), None)


def gradients(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    eps: float,
    mean: arrays.Array,
    rstd: arrays.Array,
    use_input_stats: bool,
    bias_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return what `arrays.backward` does, by PyTorch's differentiable operations."""
    dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
    rows = (*input.shape[:2], *[1] * (input.dim() - 2))
    spatial = tuple(range(2, input.dim()))
    g = grad_output.to(dtype)
    # The mean from the kernel is subtracted as a constant, which keeps the precision; the mean of
    # what is left is near zero, and its derivative that of the whole mean.
    centred = input.to(dtype) - torch.from_numpy(mean).to(dtype).reshape(rows)
    scale = torch.from_numpy(rstd).to(dtype).reshape(rows)
    if use_input_stats:
        centred = centred - centred.mean(spatial, keepdim=True)
        scale = (centred.square().mean(spatial, keepdim=True) + eps).rsqrt()
    normalized = centred * scale
    grad_weight = grad_bias = None
    if bias_dtype is not None:
        grad_bias = g.sum((0, *spatial)).to(bias_dtype)
    if weight is not None:
        grad_weight = (g * normalized).sum((0, *spatial)).to(weight.dtype)
        g = g * weight.to(dtype).reshape(1, -1, *[1] * len(spatial))
    if use_input_stats:
        along = (g * normalized).mean(spatial, keepdim=True)
        g = g - g.mean(spatial, keepdim=True) - normalized * along
    return (g * scale).to(input.dtype), grad_weight, grad_bias
