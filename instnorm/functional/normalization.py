"""Batch, group and layer norm: the instance norm of a reshaped array, by its kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from instnorm.functional._inputs import Input, as_tensor
from instnorm.functional.norm import instance_norm
from instnorm.tensor import Tensor


def batch_norm(
    input: Input,
    running_mean: Input | None,
    running_var: Input | None,
    weight: Input | None = None,
    bias: Input | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel by its mean and variance over the batch.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, ...)
        Of a float dtype.
    running_mean, running_var : Tensor or ndarray of shape (C,), optional
        In training they are updated in place by `momentum`; else they are what is used.
    weight, bias : Tensor or ndarray of shape (C,), optional
        Scale and shift of each channel.
    training : bool, default False
        Whether to normalize by the batch's statistics or by the running ones.
    momentum : float, default 0.1
    eps : float, default 1e-5

    Returns
    -------
    Tensor of the shape of `input`

    Raises
    ------
    ValueError
        If there is one value for each channel in training, or a shape does not fit.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch Normalization", 2015, https://arxiv.org/abs/1502.03167
    """
    input = as_tensor(input, "input")
    shape = input.shape
    if len(shape) < 2:
        raise ValueError(f"input has shape {shape}, expected (N, C, ...)")
    statistics = (running_mean, running_var, weight, bias)
    if not training:
        batch = input if len(shape) > 2 else input.unsqueeze(2)
        return instance_norm(batch, *statistics, False, momentum, eps).reshape(shape)
    if math.prod(shape) == shape[1]:
        raise ValueError(f"expected more than 1 value per channel when training, got shape {shape}")
    # One sample, whose spatial axes are those of the images and N.
    together = input.transpose(0, 1).unsqueeze(0)
    return instance_norm(together, *statistics, True, momentum, eps)[0].transpose(0, 1)


def group_norm(
    input: Input,
    num_groups: int,
    weight: Input | None = None,
    bias: Input | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each group of channels of each sample by its own mean and variance.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, ...)
        Of a float dtype.
    num_groups : int
        A divisor of C.
    weight, bias : Tensor or ndarray of shape (C,), optional
        Scale and shift of each channel.
    eps : float, default 1e-5

    Returns
    -------
    Tensor of the shape of `input`

    Raises
    ------
    ValueError
        If C is not divisible by `num_groups`, or a shape does not fit.

    References
    ----------
    Y. Wu, K. He, "Group Normalization", 2018, https://arxiv.org/abs/1803.08494
    """
    input = as_tensor(input, "input")
    shape = input.shape
    if len(shape) < 2 or num_groups < 1 or shape[1] % num_groups:
        raise ValueError(
            f"input has shape {shape}, expected (N, C, ...) with C divisible by "
            f"num_groups {num_groups}"
        )
    length = math.prod(shape[1:]) // num_groups
    rows = input.reshape(shape[0], num_groups, length)
    return _affine(_normalized(rows, eps).reshape(shape), weight, bias, shape[1:2], len(shape) - 2)


def layer_norm(
    input: Input,
    normalized_shape: int | Sequence[int],
    weight: Input | None = None,
    bias: Input | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize over the last axes, for each entry of the others by itself.

    Parameters
    ----------
    input : Tensor or ndarray of shape (..., *normalized_shape)
        Of a float dtype.
    normalized_shape : int or sequence of int
        The shape of what is normalized together.
    weight, bias : Tensor or ndarray of shape `normalized_shape`, optional
        Scale and shift of each element.
    eps : float, default 1e-5

    Returns
    -------
    Tensor of the shape of `input`

    Raises
    ------
    ValueError
        If a shape does not fit.

    References
    ----------
    J. Ba, J. Kiros, G. Hinton, "Layer Normalization", 2016, https://arxiv.org/abs/1607.06450
    """
    input = as_tensor(input, "input")
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    others = input.ndim - len(shape)
    if not shape or others < 0 or input.shape[others:] != shape:
        raise ValueError(f"input has shape {input.shape}, expected the last axes to be {shape}")
    rows = input.reshape(1, math.prod(input.shape[:others]), math.prod(shape))
    return _affine(_normalized(rows, eps).reshape(input.shape), weight, bias, shape, 0)


def _normalized(rows: Tensor, eps: float) -> Tensor:
    # A row of one element has no variance, which instance norm refuses: here it is its own mean.
    return rows - rows if rows.shape[2] == 1 else instance_norm(rows, eps=eps)


def _affine(
    x: Tensor,
    weight: Input | None,
    bias: Input | None,
    shape: tuple[int, ...],
    trailing: int,
) -> Tensor:
    """``x * weight + bias``, which have `shape`, with `trailing` axes of x after it."""
    dtype = x.dtype
    for name, value in (("weight", weight), ("bias", bias)):
        if value is None:
            continue
        parameter = as_tensor(value, name)
        if parameter.shape != shape:
            raise ValueError(f"{name} has shape {parameter.shape}, expected {shape}")
        aligned = parameter.reshape(*shape, *(1,) * trailing)
        x = x * aligned if name == "weight" else x + aligned
    return x.to(dtype)
