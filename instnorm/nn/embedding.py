"""Embedding as a layer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from instnorm import functional as F
from instnorm.functional import Input
from instnorm.nn import init
from instnorm.nn.module import Module
from instnorm.nn.parameter import Parameter, checked_dtype
from instnorm.tensor import Tensor


class Embedding(Module):
    """A learned row of numbers for each integer; see `functional.embedding`.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        The shape of `weight`, which is drawn from the standard normal distribution.
    padding_idx : int, optional
        A row that starts at 0 and stays as it is; negative to count from the end.
    device : {None, 'cpu'}, optional
        For PyTorch's sake.
    dtype : dtype, optional
        float32 by default.

    Examples
    --------
    >>> import instnorm
    >>> instnorm.nn.Embedding(10, 3)(instnorm.tensor([[1, 2, 2]])).shape
    (1, 3, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"padding_idx must be from {-num_embeddings} to {num_embeddings - 1}, "
                f"got {padding_idx}"
            )
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        shape = (num_embeddings, embedding_dim)
        self.weight = Parameter(np.empty(shape, checked_dtype(device, dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all rows but that at `padding_idx`, which is set to 0."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, input: Input) -> Tensor:
        """Look up."""
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
