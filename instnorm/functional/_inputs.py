"""What every function takes: Tensors, and whatever NumPy makes an array of numbers of."""

from __future__ import annotations

from typing import Any, TypeAlias

from instnorm._layouts import Array
from instnorm.tensor import Tensor

Input: TypeAlias = Tensor | Array


def as_tensor(value: Any, name: str) -> Tensor:
    """Return a Tensor as it is, and wrap what NumPy takes for an array of numbers."""
    if isinstance(value, Tensor):
        return value
    if value is None:
        raise TypeError(f"{name} must be a Tensor or array, got None")
    return Tensor(value)
