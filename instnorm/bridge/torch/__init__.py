"""Instance norm inside PyTorch: layers, the function, `convert` for models, `enabled` for calls.

The layers are subclasses of PyTorch's own, so models, state dicts and training loops stay
as they are. On the CPU they compute with this package's kernels; whatever those do not
take (other devices, tracing, export, `torch.func`) goes to PyTorch's own operator.

Examples
--------
>>> import torch
>>> from instnorm.bridge.torch import convert
>>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.InstanceNorm2d(8))
>>> model = convert(model)
>>> y = model(torch.rand(1, 3, 16, 16))
"""

from instnorm.bridge.torch.functional import enabled, instance_norm
from instnorm.bridge.torch.modules import (
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LazyInstanceNorm1d,
    LazyInstanceNorm2d,
    LazyInstanceNorm3d,
)
from instnorm.bridge.torch.replacement import convert, converted, revert
from instnorm.bridge.torch.tiles import collect_statistics, fixed_statistics

__all__ = [
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "collect_statistics",
    "convert",
    "converted",
    "enabled",
    "fixed_statistics",
    "instance_norm",
    "revert",
]
