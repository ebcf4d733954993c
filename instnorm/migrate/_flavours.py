"""What moving layers and moving state dicts share: the two flavours, and values of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from instnorm.tensor import Tensor

Flavour: TypeAlias = Literal["mindspore", "pytorch"]
# Whose names a state may have: mindspore.mint.nn is a part of MindSpore with names of its own.
Target: TypeAlias = Literal["mindspore", "mindspore.mint", "pytorch"]
RunningStats: TypeAlias = Literal["refuse", "drop", "keep"]


def refusal(to: Target, which: list[str]) -> str:
    reason = (
        "MindSpore ignores running statistics: it normalizes by the input's own in evaluation too, "
        "where PyTorch uses the running ones"
        if to != "pytorch"
        else "MindSpore ignored these running statistics, and PyTorch would normalize by them in "
        "evaluation"
    )
    return (
        f"{reason} ({listed(which)}). Say running_stats='drop' (--running-stats drop) to leave "
        "them out, or 'keep' to store them all the same"
    )


def is_filled(value: Any, fill: float) -> bool:
    return bool((comparable(value) == fill).all())


def comparable(value: Any) -> Any:
    """Return an ndarray, but for PyTorch's tensors: NumPy does not have all of their dtypes."""
    if isinstance(value, Tensor):
        return value.data
    return value if is_torchs(value) else np.asarray(value)


def is_torchs(value: object) -> bool:
    return any(base.__module__.partition(".")[0] == "torch" for base in type(value).__mro__)


def check_choice(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {listed(get_args(choices))}, got {value!r}")


def listed(names: Sequence[str]) -> str:
    """Join names, the first ten of them."""
    shown = ", ".join(map(str, names[:10])) or "none"
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
