"""InstanceNorm1d, 2d and 3d and their lazy forms: PyTorch's layers over this package's kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instnorm.bridge.torch.functional import instance_norm


def _apply_instance_norm(self: Any, input: Tensor) -> Tensor:
    if not torch.jit.is_scripting():
        return _by_tables(self, input)
    return instance_norm(
        input,
        self.running_mean,
        self.running_var,
        self.weight,
        self.bias,
        self.training or not self.track_running_stats,
        self.momentum if self.momentum is not None else 0.0,
        self.eps,
    )


def _by_tables(self: Any, input: Tensor) -> Tensor:
    """The same, but that each attribute takes a tenth of what `Module.__getattr__` does."""
    return instance_norm(
        input,
        _entry(self, self._buffers, "running_mean"),
        _entry(self, self._buffers, "running_var"),
        _entry(self, self._parameters, "weight"),
        _entry(self, self._parameters, "bias"),
        self.training or not self.track_running_stats,
        self.momentum if self.momentum is not None else 0.0,
        self.eps,
    )


def _entry(self: Any, table: dict[str, Tensor | None], name: str) -> Any:
    # torch.nn.utils.parametrize, for one, takes an entry out of the table and makes a property.
    return table[name] if name in table else getattr(self, name)


_DOCSTRING = """`torch.nn.InstanceNorm{rank}d`, computed by this package's kernels.

    Constructor, parameters, buffers and behaviour are those of the base class.

    Examples
    --------
    >>> import torch
    >>> from instnorm.bridge.torch import InstanceNorm{rank}d
    >>> layer = InstanceNorm{rank}d(3, affine=True)
    >>> layer(torch.rand{example}).shape, isinstance(layer, torch.nn.InstanceNorm{rank}d)
    (torch.Size({size}), True)
    """


class InstanceNorm1d(nn.InstanceNorm1d):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(rank=1, example=(2, 3, 8), size=[2, 3, 8])
    _apply_instance_norm = _apply_instance_norm


class InstanceNorm2d(nn.InstanceNorm2d):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(rank=2, example=(2, 3, 8, 8), size=[2, 3, 8, 8])
    _apply_instance_norm = _apply_instance_norm


class InstanceNorm3d(nn.InstanceNorm3d):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(rank=3, example=(2, 3, 4, 4, 4), size=[2, 3, 4, 4, 4])
    _apply_instance_norm = _apply_instance_norm


class LazyInstanceNorm1d(nn.LazyInstanceNorm1d):
    """`torch.nn.LazyInstanceNorm1d`, which becomes an `InstanceNorm1d` of this module."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(nn.LazyInstanceNorm2d):
    """`torch.nn.LazyInstanceNorm2d`, which becomes an `InstanceNorm2d` of this module."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(nn.LazyInstanceNorm3d):
    """`torch.nn.LazyInstanceNorm3d`, which becomes an `InstanceNorm3d` of this module."""

    cls_to_become = InstanceNorm3d
