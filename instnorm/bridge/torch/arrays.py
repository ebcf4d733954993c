"""The array functions on PyTorch's tensors: no copies, one thread count, PyTorch's layouts."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from instnorm._runtime._memory import array_at
from instnorm._runtime.threads import get_num_threads, set_num_threads
from instnorm.arrays import gradients, instance_norm, instance_norm_backward

Array: TypeAlias = npt.NDArray[Any]

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
NUMPY_DTYPES = {
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: _BFLOAT16,
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
DTYPES = frozenset(NUMPY_DTYPES)


class Epilogue(NamedTuple):
    """What follows the norm in the same pass, but for the tensors that may need gradients."""

    mask: Tensor | None
    activation: str | None
    negative_slope: float
    inplace: bool  # the output takes the input's memory, and is what is kept for backward


PLAIN = Epilogue(None, None, 0.01, False)


class Gradients(NamedTuple):
    """For each tensor of the forward pass, in its order; None for one that there is not."""

    input: Tensor
    weight: Tensor | None
    bias: Tensor | None
    residual: Tensor | None = None
    slope: Tensor | None = None


def forward(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    residual: Tensor | None = None,
    slope: Tensor | None = None,
    after: Epilogue = PLAIN,
) -> tuple[Tensor, Array, Array]:
    """Return the normalized input, and the mean and rstd that were used: float64, (N, C)."""
    _use_threads_of_torch()
    x = as_array(input)
    options: dict[str, Any] = {}
    if after is not PLAIN:
        options = {**_options(residual, slope, after), "out": x if after.inplace else None}
    output, used_mean, used_rstd = instance_norm(
        x,
        None if weight is None else as_array(weight),
        None if bias is None else as_array(bias),
        mean=None if mean is None else as_array(mean),
        var=None if var is None else as_array(var),
        eps=eps,
        return_stats=True,
        **options,
    )
    if after.inplace:
        return input, used_mean, used_rstd
    return _as_tensor_like(output, input), used_mean, used_rstd


def backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    mean: Array,
    rstd: Array,
    use_input_stats: bool,
    bias_dtype: torch.dtype | None,
) -> Gradients:
    """Return the gradients of the plain norm."""
    _use_threads_of_torch()
    mixed = bias_dtype not in (None, (input if weight is None else weight).dtype)
    run = gradients if mixed else instance_norm_backward
    grad_input, grad_weight, grad_bias, *_ = run(
        as_array(grad_output),
        as_array(input),
        None if weight is None else as_array(weight),
        mean=mean,
        rstd=rstd,
        use_input_stats=use_input_stats,
    )
    return Gradients(
        _as_tensor_like(grad_input, input),
        None if weight is None else as_tensor(grad_weight).to(weight.dtype),
        None if bias_dtype is None else as_tensor(grad_bias).to(bias_dtype),
    )


def backward_with_epilogue(
    grad_output: Tensor,
    input: Tensor,  # or the output, if that is what was kept
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: Tensor | None,
    mean: Array,
    rstd: Array,
    use_input_stats: bool,
    after: Epilogue,
) -> Gradients:
    """Return the gradients where something follows the norm."""
    _use_threads_of_torch()
    found = gradients(
        as_array(grad_output),
        as_array(input),
        None if weight is None else as_array(weight),
        bias=None if bias is None else as_array(bias),
        mean=mean,
        rstd=rstd,
        use_input_stats=use_input_stats,
        from_output=after.inplace,
        **_options(residual, slope, after),
    )
    return Gradients(
        _as_tensor_like(found.grad_input, input),
        None if weight is None else as_tensor(found.grad_weight).to(weight.dtype),
        None if bias is None else as_tensor(found.grad_bias).to(bias.dtype),
        None
        if residual is None or found.grad_residual is None
        else _as_tensor_like(found.grad_residual, residual),
        None
        if slope is None or found.grad_slope is None
        else as_tensor(found.grad_slope).to(slope.dtype),
    )


def _options(residual: Tensor | None, slope: Tensor | None, after: Epilogue) -> dict[str, Any]:
    return {
        "mask": None if after.mask is None else after.mask.numpy(),
        "residual": None if residual is None else as_array(residual),
        "activation": after.activation,
        "negative_slope": after.negative_slope if slope is None else as_array(slope),
    }


def is_per_sample(weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether one of them has numbers for each sample."""
    return (weight is not None and weight.dim() == 2) or (bias is not None and bias.dim() == 2)


def as_array(tensor: Tensor) -> Array:
    """Return an ndarray that shares the tensor's memory.

    Not by `Tensor.numpy`, which marks the memory as never to be resized: FSDP resizes parameters.
    """
    if tensor.numel() == 0 or tensor.is_neg():
        copy: Array = tensor.double().numpy(force=True).astype(NUMPY_DTYPES[tensor.dtype])
        return copy
    return array_at(
        tensor.data_ptr(), tensor.shape, tensor.stride(), NUMPY_DTYPES[tensor.dtype], tensor
    )


def as_tensor(array: Array) -> Tensor:
    """Return a tensor that shares the array's memory."""
    if array.dtype != _BFLOAT16:
        return torch.from_numpy(array)
    bits = torch.from_numpy(array.view(np.int16))
    return _reinterpreted(bits, torch.bfloat16, bits.stride())


def _as_tensor_like(array: Array, model: Tensor) -> Tensor:
    """Return `as_tensor(array)` with the strides that `torch.empty_like(model)` has."""
    tensor = as_tensor(array)
    if tensor.stride() == model.stride():
        return tensor
    stride = torch.empty_like(model, device="meta").stride()
    # The stride of an axis of one element is arbitrary in memory, but PyTorch goes by it to tell
    # whether a tensor is channels-last.
    if all(a == b or n < 2 for a, b, n in zip(tensor.stride(), stride, model.shape, strict=True)):
        return _reinterpreted(tensor, tensor.dtype, stride)
    return torch.empty_like(model).copy_(tensor)


def _reinterpreted(tensor: Tensor, dtype: torch.dtype, stride: tuple[int, ...]) -> Tensor:
    """Return another tensor on the same memory that is no view of the first.

    Autograd forbids in-place operations on views that a `Function` returns.
    """
    nothing = torch.empty(0, dtype=dtype, device="cpu")  # whatever the default device is
    return nothing.set_(tensor.untyped_storage(), 0, tensor.shape, stride)


def _use_threads_of_torch() -> None:
    threads = torch.get_num_threads()
    if threads != get_num_threads():
        set_num_threads(threads)
