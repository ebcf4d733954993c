"""Dropout as layers."""

from __future__ import annotations

from instnorm import functional as F
from instnorm.functional import Input
from instnorm.nn.module import Module
from instnorm.tensor import Tensor


class Dropout(Module):
    """Set elements to zero at random in training; see `functional.dropout`."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be from 0 to 1, got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Input) -> Tensor:
        """Drop elements in training, and return the input in evaluation."""
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout2d(Dropout):
    """Set whole channels of images to zero at random in training; see `functional.dropout2d`."""

    def forward(self, input: Input) -> Tensor:
        """Drop channels in training, and return the input in evaluation."""
        return F.dropout2d(input, self.p, self.training)
