"""Embedding: rows of a table by their numbers."""

from __future__ import annotations

import numpy as np

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


def one_hot(tensor: Input, num_classes: int = -1) -> Tensor:
    """Make of each integer n a vector that is 1 at n and 0 elsewhere.

    Parameters
    ----------
    tensor : Tensor or ndarray of integers
        None of them negative.
    num_classes : int, default -1
        The length of the vectors; -1 for the shortest possible.

    Returns
    -------
    Tensor of int64, of one axis more

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If one is negative, or not less than `num_classes`.

    Examples
    --------
    >>> import instnorm
    >>> instnorm.functional.one_hot(instnorm.tensor([0, 2]))
    tensor([[1, 0, 0],
            [0, 0, 1]])
    """
    classes = as_tensor(tensor, "tensor").data
    if classes.dtype.kind not in "iu":
        raise TypeError(f"tensor has dtype {classes.dtype}, expected integers")
    least, most = (int(classes.min()), int(classes.max())) if classes.size else (0, -1)
    count = most + 1 if num_classes == -1 else num_classes
    if least < 0 or most >= count:
        raise ValueError(f"tensor has values from {least} to {most}, expected 0 to {count - 1}")
    return Tensor((classes[..., None] == np.arange(count)).astype(np.int64))
