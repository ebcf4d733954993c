"""The array functions on PyTorch's tensors: no copies, one thread count, PyTorch's layouts."""

from __future__ import annotations

from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from instnorm._runtime.threads import get_num_threads, set_num_threads
from instnorm.arrays import gradients, instance_norm, instance_norm_backward

Array: TypeAlias = npt.NDArray[Any]

DTYPES = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def forward(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
) -> tuple[Tensor, Array, Array]:
    """Return the normalized input, and the mean and rstd that were used: float64, (N, C)."""
    _use_threads_of_torch()
    output, used_mean, used_rstd = instance_norm(
        as_array(input),
        None if weight is None else as_array(weight),
        None if bias is None else as_array(bias),
        mean=None if mean is None else as_array(mean),
        var=None if var is None else as_array(var),
        eps=eps,
        return_stats=True,
    )
    return _as_tensor_like(output, input), used_mean, used_rstd


def backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    mean: Array,
    rstd: Array,
    use_input_stats: bool,
    bias_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients for input, weight and bias; None for one that there is not."""
    _use_threads_of_torch()
    mixed = bias_dtype not in (None, (input if weight is None else weight).dtype)
    run = gradients if mixed else instance_norm_backward
    grad_input, grad_weight, grad_bias = run(
        as_array(grad_output),
        as_array(input),
        None if weight is None else as_array(weight),
        mean=mean,
        rstd=rstd,
        use_input_stats=use_input_stats,
    )
    return (
        _as_tensor_like(grad_input, input),
        None if weight is None else as_tensor(grad_weight).to(weight.dtype),
        None if bias_dtype is None else as_tensor(grad_bias).to(bias_dtype),
    )


def as_array(tensor: Tensor) -> Array:
    """Return an ndarray that shares the tensor's memory."""
    if tensor.dtype is torch.bfloat16:
        # NumPy alone has no bfloat16: the bits pass as integers.
        bits: Array = tensor.detach().view(torch.int16).numpy()
        return bits.view(_BFLOAT16)
    # `force` would also copy from other devices and resolve conjugates; here it only detaches.
    array: Array = tensor.numpy(force=True)
    return array


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
    return torch.empty(0, dtype=dtype).set_(tensor.untyped_storage(), 0, tensor.shape, stride)


def _use_threads_of_torch() -> None:
    threads = torch.get_num_threads()
    if threads != get_num_threads():
        set_num_threads(threads)
