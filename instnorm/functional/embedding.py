"""Embedding: rows of a table by their numbers."""

from __future__ import annotations

from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor


def embedding(input: Input, weight: Input, padding_idx: int | None = None) -> Tensor:
    """Look rows up in a table.

    Parameters
    ----------
    input : Tensor or ndarray of any shape
        Numbers of rows, integers.
    weight : Tensor or ndarray of shape (rows, features)
    padding_idx : int, optional
        A row that gets no gradient; negative to count from the end.

    Returns
    -------
    Tensor of shape (..., features)

    Raises
    ------
    TypeError
        If `input` is not of integers.
    IndexError
        If a number is no row's.

    Examples
    --------
    >>> import instnorm
    >>> table = instnorm.tensor([[0.0, 0.0], [1.0, 2.0]])
    >>> instnorm.functional.embedding(instnorm.tensor([1, 0, 1]), table)
    tensor([[1., 2.],
            [0., 0.],
            [1., 2.]])
    """
    numbers, table = as_tensor(input, "input").data, as_tensor(weight, "weight")
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"input has dtype {numbers.dtype}, expected integers: numbers of rows")
    if table.ndim != 2:
        raise ValueError(f"weight has shape {table.shape}, expected (rows, features)")
    rows = len(table)
    wrong = numbers[(numbers < 0) | (numbers >= rows)]
    if wrong.size:
        raise IndexError(f"input has {wrong[0]}, expected numbers from 0 to {rows - 1}")
    found = table[numbers]
    if padding_idx is None:
        return found
    if not -rows <= padding_idx < rows:
        raise ValueError(
            f"padding_idx must be from {-rows} to {rows - 1}, the rows of weight, got {padding_idx}"
        )
    learned = numbers != padding_idx % rows
    return found.where(learned[..., None], found.detach())
