"""`instance_norm` with PyTorch's signature: which way a call goes, and running statistics."""

# Annotations are not postponed here, because TorchScript reads them.
import math

import torch
from torch import Tensor
from torch._C import (
    _are_functorch_transforms_active,
    _is_torch_function_mode_enabled,
    _is_tracing,
    _len_torch_dispatch_stack,
)
from torch.autograd import forward_ad
from torch.nn import functional as F

from instnorm.bridge.torch import arrays, eager, operators

_PLAIN = (Tensor, torch.nn.Parameter)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalize each channel of each sample, as `torch.nn.functional.instance_norm` does.

    .. math:: y = \frac{x - \mathrm{mean}}{\sqrt{\mathrm{var} + \epsilon}} \cdot weight + bias

    Dense tensors on the CPU take this package's kernels, in eager mode and under
    `torch.compile`; so do their first gradients. All else takes PyTorch's operator: other
    devices, subclasses of Tensor, `torch.func` and forward-mode derivatives, tracing
    and export.

    Parameters
    ----------
    input : Tensor of shape (N, C, spatial...)
        At least three axes; float16, bfloat16, float32 or float64, in any memory layout.
    running_mean, running_var : Tensor of shape (C,), optional
        With `use_input_stats` they are updated in place: ``new = (1 - momentum) * old +
        momentum * x``, x being the mean over N of the samples' means and unbiased
        variances. Without, they are what is used, and stay as they are.
    weight, bias : Tensor of shape (C,), optional
        Scale and shift of each channel, of any float dtype.
    use_input_stats : bool, default True
        Whether to normalize by the input's statistics or by the running ones.
    momentum : float, default 0.1
        Share of the new value in the running statistics.
    eps : float, default 1e-5
        Added to the variance; finite and not negative.

    Returns
    -------
    Tensor
        Of the shape, dtype and memory layout of `input`.

    Raises
    ------
    ValueError
        If there is just one spatial element to take statistics of, a parameter's shape
        does not fit, or `eps` is negative or not finite.
    RuntimeError
        If the running statistics are missing where they are used.

    References
    ----------
    ``torch.nn.functional.instance_norm`` of PyTorch 2.13

    Examples
    --------
    >>> import torch
    >>> from instnorm.bridge.torch import instance_norm
    >>> instance_norm(torch.tensor([[[1.0, 3.0], [10.0, 30.0]]]), eps=0)
    tensor([[[-1.,  1.],
             [-1.,  1.]]])
    """
    if not torch.jit.is_scripting() and _for_kernels(
        input, running_mean, running_var, weight, bias, use_input_stats
    ):
        return _by_kernels(
            input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        )
    return F.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


@torch.jit.unused
def _by_kernels(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    mean, var = (None, None) if use_input_stats else (running_mean, running_var)
    way = operators if torch.compiler.is_compiling() else eager
    output, used_mean, used_rstd = way.instance_norm(input, weight, bias, mean, var, eps)
    if use_input_stats and running_mean is not None and input.numel():
        length = math.prod(input.shape[2:])
        way.update_running(running_mean, running_var, used_mean, used_rstd, momentum, eps, length)
    return output


@torch.jit.unused
def _for_kernels(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    use_input_stats: bool,
) -> bool:
    """Whether the kernels can do this call; PyTorch's operator does, or refuses, the others."""
    if torch.compiler.is_compiling():
        if torch.compiler.is_exporting():
            return False
    elif _is_being_transformed():
        return False
    if input.dtype not in arrays.DTYPES or input.dim() < 3:
        return False
    if running_mean is None or running_var is None:
        if running_mean is not running_var or not use_input_stats:
            return False
    elif not running_mean.shape == running_var.shape == input.shape[1:2]:
        return False
    if use_input_stats and input.shape[2:].numel() == 1:
        return False
    for t in (input, running_mean, running_var, weight, bias):
        if t is not None and not (type(t) in _PLAIN and t.is_cpu and t.layout is torch.strided):
            return False
    return True


def _is_being_transformed() -> bool:
    """Whether PyTorch is doing something else with operators than just running them."""
    return bool(
        _are_functorch_transforms_active()
        or _len_torch_dispatch_stack()
        or _is_torch_function_mode_enabled()
        or _is_tracing()
        or forward_ad._current_level >= 0
    )
