"""`instance_norm` with PyTorch's signature: which way a call goes, and running statistics."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._C import (
    _are_functorch_transforms_active,
    _get_function_stack_at,
    _is_tracing,
    _len_torch_dispatch_stack,
    _len_torch_function_stack,
)
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._device import DeviceContext

from instnorm.arrays import check_inplace, check_invertible
from instnorm.bridge.torch import arrays, eager, operators

_PLAIN = (Tensor, torch.nn.Parameter)
_QUANTIZED = frozenset([torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4])


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    mask: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float | Tensor = 0.01,
    inplace: bool = False,
) -> Tensor:
    r"""Normalize each channel of each sample, as `torch.nn.functional.instance_norm` does.

    .. math:: y = \mathrm{act}\left(\frac{x - \mathrm{mean}}{\sqrt{\mathrm{var} + \epsilon}}
        \cdot weight + bias + residual\right)

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
    weight, bias : Tensor of shape (C,) or (N, C), optional
        Scale and shift of each channel, or of each channel of each sample, of any float
        dtype.
    use_input_stats : bool, default True
        Whether to normalize by the input's statistics or by the running ones.
    momentum : float, default 0.1
        Share of the new value in the running statistics.
    eps : float, default 1e-5
        Added to the variance; finite and not negative.
    mask, residual, activation, negative_slope, inplace
        As those of `instnorm.functional.instance_norm`: in the same pass. Under
        `torch.compile`, `inplace` keeps only the output, in memory of its own.

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
    slope, after = None, arrays.PLAIN
    if mask is not None or residual is not None or activation is not None or inplace:
        slope, after = _epilogue(mask, activation, negative_slope, inplace)
        if inplace:
            _check_inplace(input, weight, bias, slope, after)
    if _for_kernels(
        input, running_mean, running_var, weight, bias, use_input_stats, residual, slope, mask
    ):
        mean, var = (None, None) if use_input_stats else (running_mean, running_var)
        way = operators if torch.compiler.is_compiling() else eager
        output, used_mean, used_rstd = way.normalize(
            input, weight, bias, mean, var, eps, residual, slope, after
        )
        if use_input_stats and running_mean is not None and input.numel():
            length = math.prod(input.shape[2:])
            batch = running_mean, running_var, used_mean, used_rstd, momentum, eps, length
            way.update(*batch, mask)
        return output
    if isinstance(input, fx.Proxy):
        stats = running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        options = {**after._asdict(), "residual": residual, "negative_slope": negative_slope}
        return input.tracer.create_proxy("call_function", instance_norm, (input, *stats), options)
    if input.dtype in _QUANTIZED:
        raise TypeError(
            f"input is {input.dtype}, expected a float tensor: quantized is for PyTorch's own "
            "layers; revert(model) before torch.ao.quantization.prepare, which swaps those alone"
        )
    if after is arrays.PLAIN and not arrays.is_per_sample(weight, bias):
        return F.instance_norm(
            input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        )
    return _by_operations(
        input,
        running_mean,
        running_var,
        weight,
        bias,
        use_input_stats,
        momentum,
        eps,
        residual,
        slope,
        after,
    )


class enabled(contextlib.ContextDecorator, TorchFunctionMode):  # noqa: N801 - as torch.no_grad
    """In its ``with`` block, `torch.nn.functional.instance_norm` is computed by the kernels.

    For code that calls the function, as own layers and libraries do. However it was imported,
    what it is given that `instance_norm` has kernels for takes them, and all else PyTorch's
    operator. PyTorch's own layers call the function too, and need not be converted inside. Like
    `torch.no_grad`, it decorates functions, can be nested, and holds for the thread that entered
    it; `torch.compile` traces it without a graph break. While it holds, each call of a function
    of PyTorch's is looked at first, which takes it about a microsecond.

    Calls of `torch.instance_norm`, which the function is made of, stay PyTorch's. PyTorch
    suspends modes in a backward pass: a function that `torch.utils.checkpoint` computes again
    there has the block inside, or is decorated.

    Examples
    --------
    >>> import torch
    >>> from torch.nn import functional as F
    >>> from instnorm.bridge.torch import enabled
    >>> x = torch.full((1, 1, 3), 0.1)  # of which PyTorch's operator makes up to 0.03
    >>> with enabled():
    ...     F.instance_norm(x)
    tensor([[[0., 0., 0.]]])
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.instance_norm and all(given in _PLAIN for given in types):
            func = instance_norm
        return func(*args, **(kwargs or {}))


def instance_norm_by(
    input: Tensor,
    mean: arrays.Array,
    var: arrays.Array,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    mask: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float | Tensor = 0.01,
    inplace: bool = False,
) -> Tensor:
    """As `instance_norm`, by constants of shape (N, C), or (1, C)."""
    slope, after = _epilogue(mask, activation, negative_slope, inplace)
    if inplace:
        _check_inplace(input, weight, bias, slope, after)
    given = (torch.tensor(s, device="cpu") for s in (mean, var))
    used_mean, used_var = (s.expand(input.shape[:2]).clone() for s in given)
    return eager.normalize(input, weight, bias, used_mean, used_var, eps, residual, slope, after)[0]


def _epilogue(
    mask: Tensor | None, activation: str | None, negative_slope: float | Tensor, inplace: bool
) -> tuple[Tensor | None, arrays.Epilogue]:
    """The slope, if it is a tensor's and has a part, and the rest."""
    if isinstance(negative_slope, Tensor):
        slope = negative_slope if activation == "leaky_relu" else None
        return slope, arrays.Epilogue(mask, activation, 0.01, inplace)
    return None, arrays.Epilogue(mask, activation, negative_slope, inplace)


def _by_operations(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    residual: Tensor | None,
    slope: Tensor | None,
    after: arrays.Epilogue,
) -> Tensor:
    """What the kernels do not take, by PyTorch's operations; statistics by its operator."""
    if after.mask is not None and running_mean is not None and use_input_stats:
        raise ValueError(
            "a mask with running statistics to update is for the kernels alone: expected a dense "
            f"float tensor on the CPU, got {input.dtype} on {input.device}"
        )
    given = None
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise RuntimeError("running_mean and running_var must be given without input stats")
        rows = input.shape[:2]
        given = running_mean.expand(rows), (running_var + eps).rsqrt().expand(rows)
    elif running_mean is not None:
        F.instance_norm(input.detach(), running_mean, running_var, None, None, True, momentum, eps)
    return eager.compose(input, weight, bias, residual, slope, after, eps, given)


def _check_inplace(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    slope: Tensor | None,
    after: arrays.Epilogue,
) -> None:
    """Refuse what could not be found from the output."""
    check_inplace(after.activation, after.negative_slope if slope is None else slope)
    # Compiled code cannot go by what the weights are.
    dtype = arrays.NUMPY_DTYPES.get(input.dtype)
    if weight is not None and dtype is not None and not torch.compiler.is_compiling():
        weights, shifts = (None if p is None else p.detach().double().cpu() for p in (weight, bias))
        check_invertible(
            arrays.as_array(weights),
            None if shifts is None else arrays.as_array(shifts),
            dtype,
        )


def _for_kernels(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    use_input_stats: bool,
    residual: Tensor | None,
    slope: Tensor | None,
    mask: Tensor | None,
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
    for t in (input, running_mean, running_var, weight, bias, residual, slope, mask):
        if t is not None and not (type(t) in _PLAIN and t.is_cpu and t.layout is torch.strided):
            return False
    return True


def _is_being_transformed() -> bool:
    """Whether PyTorch is doing something else with operators than just running them."""
    return bool(
        _are_functorch_transforms_active()
        or _len_torch_dispatch_stack()
        or (_len_torch_function_stack() and _is_function_mode_enabled())
        or _is_tracing()
        or forward_ad._current_level >= 0
    )


def _is_function_mode_enabled() -> bool:
    """Whether there is one that may do something else with an instance norm."""
    modes = map(_get_function_stack_at, range(_len_torch_function_stack()))
    return not all(isinstance(mode, (enabled, DeviceContext)) for mode in modes)
