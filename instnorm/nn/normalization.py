"""Batch, group and layer norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from instnorm import functional as F
from instnorm.functional import Input
from instnorm.nn import init
from instnorm.nn.module import Module
from instnorm.nn.parameter import Parameter, checked_dtype
from instnorm.tensor import Tensor


class _Norm(Module):
    """A norm with a weight and a bias, which start at 1 and 0."""

    def _make_parameters(
        self, shape: tuple[int, ...], affine: bool, bias: bool, dtype: np.dtype[Any]
    ) -> None:
        self.register_parameter("weight", Parameter(np.empty(shape, dtype)) if affine else None)
        has_bias = affine and bias
        self.register_parameter("bias", Parameter(np.empty(shape, dtype)) if has_bias else None)

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _BatchNorm(_Norm):
    """Batch normalization; see `functional.batch_norm`.

    Parameters
    ----------
    num_features : int
        C, the number of channels.
    eps : float, default 1e-5
    momentum : float or None, default 0.1
        Share of the new value in the running statistics; None averages over all batches.
    affine : bool, default True
        Whether to learn `weight` and `bias`, which start at 1 and 0.
    track_running_stats : bool, default True
        Whether to keep running statistics, and normalize by them in evaluation.
    device : {None, 'cpu'}, optional
        For PyTorch's sake.
    dtype : dtype, optional
        Of parameters and buffers; float32 by default.
    bias : bool, default True
        Whether `affine` includes a bias.
    """

    _ranks: ClassVar[tuple[int, ...]]
    _version = 2  # as in PyTorch, whose state dicts of version 1 have no num_batches_tracked

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        real, tracked = checked_dtype(device, dtype), track_running_stats
        self._make_parameters((num_features,), affine, bias, real)
        for name, buffer in (
            ("running_mean", np.empty(num_features, real)),
            ("running_var", np.empty(num_features, real)),
            ("num_batches_tracked", np.zeros((), np.int64)),
        ):
            self.register_buffer(name, Tensor(buffer) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the running mean to 0 and the running variance to 1."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0, and reset the running statistics."""
        self.reset_running_stats()
        super().reset_parameters()

    def forward(self, input: Input) -> Tensor:
        """Normalize a batch."""
        input = F.as_tensor(input, "input")
        if input.ndim not in self._ranks:
            expected = " or ".join(f"{rank}D" for rank in self._ranks)
            raise ValueError(f"expected {expected} input (got {input.ndim}D input)")
        if input.shape[1] != self.num_features:
            raise ValueError(
                f"input has shape {input.shape}, expected {self.num_features} channels on axis 1"
            )
        by_batch = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.data += 1
            if self.momentum is None:
                momentum = 1 / self.num_batches_tracked.item()
        keeps = self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if keeps else None,
            self.running_var if keeps else None,
            self.weight,
            self.bias,
            by_batch,
            momentum,
            self.eps,
        )

    def _added_since(self, version: int | None) -> tuple[str, ...]:
        return ("num_batches_tracked",) if version is None or version < 2 else ()

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):  # noqa: D101 - it is in the base class
    __doc__ = f"{_BatchNorm.__doc__}\n    Input and output: (N, C) or (N, C, L)."
    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):  # noqa: D101 - it is in the base class
    __doc__ = f"{_BatchNorm.__doc__}\n    Input and output: (N, C, H, W)."
    _ranks = (4,)


class BatchNorm3d(_BatchNorm):  # noqa: D101 - it is in the base class
    __doc__ = f"{_BatchNorm.__doc__}\n    Input and output: (N, C, D, H, W)."
    _ranks = (5,)


class GroupNorm(_Norm):
    """Group normalization; see `functional.group_norm`.

    Parameters
    ----------
    num_groups, num_channels : int
        The latter divisible by the former.
    eps : float, default 1e-5
    affine : bool, default True
        Whether to learn `weight` and `bias` of shape (num_channels,).
    device : {None, 'cpu'}, optional
        For PyTorch's sake.
    dtype : dtype, optional
        float32 by default.
    bias : bool, default True
        Whether `affine` includes a bias.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(
                f"num_channels must be divisible by num_groups, got {num_channels} and {num_groups}"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self._make_parameters((num_channels,), affine, bias, checked_dtype(device, dtype))
        self.reset_parameters()

    def forward(self, input: Input) -> Tensor:
        """Normalize (N, C, ...)."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LayerNorm(_Norm):
    """Layer normalization; see `functional.layer_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the last axes, which are normalized together.
    eps : float, default 1e-5
    elementwise_affine : bool, default True
        Whether to learn `weight` and `bias` of that shape.
    bias : bool, default True
        Whether that includes a bias.
    device : {None, 'cpu'}, optional
        For PyTorch's sake.
    dtype : dtype, optional
        float32 by default.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = (
            (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        )
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        real = checked_dtype(device, dtype)
        self._make_parameters(self.normalized_shape, elementwise_affine, bias, real)
        self.reset_parameters()

    def forward(self, input: Input) -> Tensor:
        """Normalize over the last axes."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )
