"""Instance norm as a node of PyTorch's graph, outside `torch.compile`."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._C._autograd import CreationMeta, _get_creation_meta
from torch.autograd.graph import increment_version

from instnorm.arrays import update_running as update_running_arrays
from instnorm.bridge.torch import arrays

# Mean and rstd that were used, whether they are the input's own, and the dtype of the bias, if any.
Statistics: TypeAlias = tuple[arrays.Array, arrays.Array, bool, torch.dtype | None]


def normalize(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    residual: Tensor | None = None,
    slope: Tensor | None = None,
    after: arrays.Epilogue = arrays.PLAIN,
) -> tuple[Tensor, arrays.Array, arrays.Array]:
    """Return what `arrays.forward` does, the tensor as a node of the graph."""
    recorded = torch.is_grad_enabled() and (
        input.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad)
        or (slope is not None and slope.requires_grad)
    )
    if after.inplace and recorded:
        _check_overwritable(input)
    output, used_mean, used_rstd = arrays.forward(
        input, weight, bias, mean, var, eps, residual, slope, after
    )
    if recorded:
        stats = used_mean, used_rstd, mean is None, None if bias is None else bias.dtype
        if after is arrays.PLAIN and not arrays.is_per_sample(weight, bias):
            output = InstanceNorm.apply(input, weight, bias, (output, stats, eps))
        else:
            result = (output, stats, eps, after)
            output = FusedInstanceNorm.apply(input, weight, bias, residual, slope, result)
    elif after.inplace:
        increment_version(input)
    return output, used_mean, used_rstd


def _check_overwritable(input: Tensor) -> None:
    """Refuse what PyTorch refuses, before the memory is written."""
    leaf = input._base if input._is_view() else input
    if leaf is not None and leaf.is_leaf and leaf.requires_grad:
        raise RuntimeError(
            "a leaf Tensor that requires grad, or a view of one, is the input of an instance norm "
            "with inplace=True, which would overwrite it"
        )
    if input._is_view() and _get_creation_meta(input) is not CreationMeta.DEFAULT:
        raise RuntimeError(
            "a view that PyTorch lets nobody overwrite is the input of an instance norm with "
            "inplace=True: one of several outputs, as of torch.chunk, or a custom Function's, as "
            "what a module is given that fully_shard was applied to by itself"
        )


def update(
    running_mean: Tensor,
    running_var: Tensor,
    mean: arrays.Array,
    rstd: arrays.Array,
    momentum: float,
    eps: float,
    length: int,
    mask: Tensor | None = None,
) -> None:
    """Take mean and rstd of one batch, of shape (N, C), into the running ones, in place."""
    mean_array, var_array = arrays.as_array(running_mean), arrays.as_array(running_var)
    counted = None if mask is None else mask.numpy()
    update_running_arrays(mean_array, var_array, mean, rstd, momentum, eps, length, counted)
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


class FusedInstanceNorm(torch.autograd.Function):
    """The forward pass with what follows it; second derivatives are PyTorch's."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        slope: Tensor | None,
        result: tuple[Tensor, Statistics, float, arrays.Epilogue],
    ) -> Tensor:
        """Keep the input, or the output where that has taken the input's memory."""
        output, ctx.stats, ctx.eps, ctx.after = result
        if ctx.after.inplace:
            ctx.mark_dirty(input)
            output = input
        kept = output if ctx.after.inplace else input
        ctx.save_for_backward(kept, weight, bias, residual, slope)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients for input, weight, bias, residual and slope."""
        saved = ctx.saved_tensors
        mean, rstd, use_input_stats, _ = ctx.stats
        if torch.is_grad_enabled():  # create_graph=True
            if ctx.after.inplace:
                raise RuntimeError(
                    "an instance norm with inplace=True has overwritten its input, so that its "
                    "gradient cannot be differentiated again; expected inplace=False"
                )
            given = None if use_input_stats else (mean, rstd)
            return (*_by_composition(ctx, grad_output, saved, given), None)
        input, weight, bias, residual, slope = saved
        found = arrays.backward_with_epilogue(
            grad_output,
            input,
            weight,
            bias,
            residual,
            slope,
            mean,
            rstd,
            use_input_stats,
            ctx.after,
        )
        wanted = (g if n else None for g, n in zip(found, ctx.needs_input_grad, strict=False))
        return (*wanted, None)


def _by_composition(
    ctx: Any,
    grad_output: Tensor,
    saved: tuple[Tensor | None, ...],
    given: tuple[arrays.Array, arrays.Array] | None,
) -> list[Tensor | None]:
    """The gradients as a graph, from the forward pass in PyTorch's operations."""
    with torch.enable_grad():
        # Aliases, as those of InstanceNormBackward.
        inputs: Any = [None if t is None else t.view_as(t) for t in saved]
        input, weight, bias, residual, slope = inputs
        output = compose(input, weight, bias, residual, slope, ctx.after, ctx.eps, given)
    wanted = [t for t, n in zip(inputs, ctx.needs_input_grad, strict=False) if n and t is not None]
    found = torch.autograd.grad(output, wanted, grad_output, create_graph=True, allow_unused=True)
    return [None if t is None else _found_for(t, wanted, found) for t in inputs]


def compose(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: Tensor | None,
    after: arrays.Epilogue,
    eps: float,
    given: tuple[Any, Any] | None,
) -> Tensor:
    """The forward pass in PyTorch's operations; `given` holds mean and rstd of shape (N, C)."""
    dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
    spatial = tuple(range(2, input.dim()))
    ones = [1] * len(spatial)

    def spread(parameter: Tensor) -> Tensor:
        front = [1] * (2 - parameter.dim())
        return parameter.to(dtype).reshape(*front, *parameter.shape, *ones)

    x, counts = input.to(dtype), input.shape[2:].numel()
    kept = None
    if after.mask is not None:
        kept = after.mask.unsqueeze(1)
        x = torch.where(kept, x, 0)
        counts = kept.sum(spatial, keepdim=True)
    if given is None:
        centred = x - x.sum(spatial, keepdim=True) / counts
        if kept is not None:
            centred = torch.where(kept, centred, 0)
        rstd = (centred.square().sum(spatial, keepdim=True) / counts + eps).rsqrt()
    else:
        mean, rstd = (torch.as_tensor(s).to(dtype).reshape(*s.shape, *ones) for s in given)
        centred = x - mean
    v = centred * rstd
    if weight is not None:
        v = v * spread(weight)
    if bias is not None:
        v = v + spread(bias)
    if residual is not None:
        v = v + residual.to(dtype)
    if after.activation == "relu":
        v = v.relu()
    elif after.activation == "leaky_relu" and slope is not None:
        v = torch.where(v > 0, v, v * spread(slope))
    elif after.activation == "leaky_relu":
        v = torch.nn.functional.leaky_relu(v, after.negative_slope)
    if kept is not None:
        v = torch.where(kept, v, 0)
    return v.to(input.dtype)


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
        return arrays.backward(grad_output, input, weight, *ctx.stats)[:3]

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
