"""Helpers for training: gradients that are kept within bounds."""

from typing import NoReturn

from instnorm._missing import missing
from instnorm.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_

__all__ = ["clip_grad_norm_", "clip_grad_value_"]

# What PyTorch has and this package has not: what is nearest.
_INSTEAD = {
    "parameters_to_vector": "write instnorm.cat([p.flatten() for p in parameters])",
    "weight_norm": "instnorm does not have it; nearest: InstanceNorm2d, LayerNorm",
    "spectral_norm": "instnorm does not have it; nearest: InstanceNorm2d, a gradient penalty",
}


def __getattr__(name: str) -> NoReturn:
    raise missing("instnorm.nn.utils", name, __all__, _INSTEAD)
