"""InstanceNorm1d, 2d and 3d and their lazy forms: PyTorch's layers over this package's kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from instnorm.bridge.torch.arrays import as_array
from instnorm.bridge.torch.functional import instance_norm, instance_norm_by
from instnorm.bridge.torch.fusion import KEY, Fusion, has_hooks, traced_call


def _apply_instance_norm(self: Any, input: Tensor) -> Tensor:
    if not torch.jit.is_scripting():
        return _by_tables(self, input, {})
    return F.instance_norm(
        input,
        self.running_mean,
        self.running_var,
        self.weight,
        self.bias,
        self.training or not self.track_running_stats,
        self.momentum if self.momentum is not None else 0.0,
        self.eps,
    )


# Where a norm keeps the statistics that it adds to, and those that it normalizes by; `tiles` puts
# them there.
COLLECTED = "_instnorm_collected"
FIXED = "_instnorm_fixed"
# Where a norm keeps the memory format of its output, if it is not the input's.
OUTPUT_FORMAT = "_instnorm_output_format"


def _by_tables(self: Any, input: Tensor, options: dict[str, Any]) -> Tensor:
    """The same, but that each attribute takes a tenth of what `Module.__getattr__` does."""
    output = _normalized(self, input, options)
    if OUTPUT_FORMAT in self.__dict__:
        return output.contiguous(memory_format=self.__dict__[OUTPUT_FORMAT])
    return output


def _normalized(self: Any, input: Tensor, options: dict[str, Any]) -> Tensor:
    if COLLECTED in self.__dict__:
        self.__dict__[COLLECTED].update(as_array(input.detach()))
    if FIXED in self.__dict__:
        weight = _entry(self, self._parameters, "weight")
        bias = _entry(self, self._parameters, "bias")
        fixed = self.__dict__[FIXED]
        return instance_norm_by(input, fixed.mean, fixed.var, weight, bias, self.eps, **options)
    return instance_norm(
        input,
        _entry(self, self._buffers, "running_mean"),
        _entry(self, self._buffers, "running_var"),
        _entry(self, self._parameters, "weight"),
        _entry(self, self._parameters, "bias"),
        self.training or not self.track_running_stats,
        self.momentum if self.momentum is not None else 0.0,
        self.eps,
        **options,
    )


def _forward(
    self: Any, input: Tensor, mask: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """Normalize a batch, or a sample without the axis N; `mask` and `residual` alike."""
    if torch.jit.is_scripting():
        return self._apply_instance_norm(input)
    return _forward_eagerly(self, input, mask, residual)


def _forward_eagerly(
    self: Any, input: Tensor, mask: Tensor | None, residual: Tensor | None
) -> Tensor:
    if isinstance(input, fx.Proxy):
        return traced_call(self, input, mask=mask, residual=residual)
    base = self._base
    found = self.__dict__.get(KEY)
    if found is None and mask is None and residual is None:
        return base.forward(self, input)
    # A norm that somebody looks at leaves its activation to the module that it comes from, and
    # code that was not rewritten does what follows by itself.
    absorbed = found is not None and found.absorbed and has_hooks(self)
    waits = found is not None and found.residual and residual is None
    if found is None or absorbed or waits:
        found = Fusion(inplace=found is not None and found.inplace)
    if residual is not None and (residual.shape != input.shape or residual.dtype != input.dtype):
        return _one_by_one(self, input, mask, residual, found)
    batched = input.dim() != self._get_no_batch_dim()
    self._check_input_dim(input)
    if input.shape[1 if batched else 0] != self.num_features:
        base.forward(self, input.detach())  # raises, or warns
    if not batched:
        input, mask, residual = (
            None if t is None else t.unsqueeze(0) for t in (input, mask, residual)
        )
    options = {
        "mask": mask,
        "residual": residual,
        "activation": found.activation,
        "negative_slope": found.prelu[0].weight if found.prelu else found.negative_slope,
        "inplace": found.inplace,
    }
    output = _by_tables(self, input, options)
    return output if batched else output.squeeze(0)


def _one_by_one(
    self: Any, input: Tensor, mask: Tensor | None, residual: Tensor, found: Fusion
) -> Tensor:
    """For a residual of another shape or dtype, which the kernels do not take."""
    if mask is not None:
        raise ValueError(
            f"residual is {residual.dtype} of shape {tuple(residual.shape)}, expected that of the "
            f"input beside a mask, {input.dtype} of {tuple(input.shape)}"
        )
    output = self._base.forward(self, input) + residual
    if found.activation == "relu":
        return F.relu(output)
    if found.prelu:
        return F.prelu(output, found.prelu[0].weight)
    return output if found.activation is None else F.leaky_relu(output, found.negative_slope)


def _init(
    self: Any,
    *args: Any,
    activation: str | None = None,
    negative_slope: float = 0.01,
    inplace: bool = False,
    **kwargs: Any,
) -> None:
    self._base.__init__(self, *args, **kwargs)
    if activation not in (None, "relu", "leaky_relu"):
        raise ValueError(f"activation is {activation!r}, expected None, 'relu' or 'leaky_relu'")
    if activation is not None or inplace:
        self.__dict__[KEY] = Fusion(activation, negative_slope, inplace=inplace)


def _entry(self: Any, table: dict[str, Tensor | None], name: str) -> Any:
    # torch.nn.utils.parametrize, for one, takes an entry out of the table and makes a property.
    return table[name] if name in table else getattr(self, name)


_DOCSTRING = """`torch.nn.InstanceNorm{rank}d`, computed by this package's kernels.

    Constructor, parameters, buffers and behaviour are those of the base class. The constructor
    also takes `activation` (None, "relu" or "leaky_relu"), `negative_slope` and `inplace`, and
    the layer a `mask` and a `residual`, as `instance_norm` does.

    Examples
    --------
    >>> import torch
    >>> from instnorm.bridge.torch import InstanceNorm{rank}d
    >>> layer = InstanceNorm{rank}d(3, affine=True)
    >>> layer(torch.rand{example}).shape, isinstance(layer, torch.nn.InstanceNorm{rank}d)
    (torch.Size({size}), True)
    """


class InstanceNorm1d(nn.InstanceNorm1d):  # noqa: D101 - it is in the template
    _base = nn.InstanceNorm1d
    __doc__ = _DOCSTRING.format(rank=1, example=(2, 3, 8), size=[2, 3, 8])
    __init__ = _init
    forward = _forward
    _apply_instance_norm = _apply_instance_norm


class InstanceNorm2d(nn.InstanceNorm2d):  # noqa: D101 - it is in the template
    _base = nn.InstanceNorm2d
    __doc__ = _DOCSTRING.format(rank=2, example=(2, 3, 8, 8), size=[2, 3, 8, 8])
    __init__ = _init
    forward = _forward
    _apply_instance_norm = _apply_instance_norm


class InstanceNorm3d(nn.InstanceNorm3d):  # noqa: D101 - it is in the template
    _base = nn.InstanceNorm3d
    __doc__ = _DOCSTRING.format(rank=3, example=(2, 3, 4, 4, 4), size=[2, 3, 4, 4, 4])
    __init__ = _init
    forward = _forward
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
