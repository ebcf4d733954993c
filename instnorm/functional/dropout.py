"""Dropout."""

from __future__ import annotations

import numpy as np

from instnorm.creation import generator
from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor


def dropout(input: Input, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Set elements to zero at random, and divide the others by ``1 - p``.

    Parameters
    ----------
    input : Tensor or ndarray
    p : float, default 0.5
        The probability that an element becomes zero.
    training : bool, default True
        If not, the input is returned.
    inplace : bool, default False
        For PyTorch's sake; the result is a new Tensor.

    Returns
    -------
    Tensor
        The draws are those of `instnorm.manual_seed`.

    Raises
    ------
    ValueError
        If `p` is not from 0 to 1.

    References
    ----------
    N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", 2014
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be from 0 to 1, got {p}")
    input = as_tensor(input, "input")
    if not training or p == 0:
        return input
    scale = np.zeros_like(input.data)  # in the input's memory layout
    scale[generator().random(input.shape, np.float32) >= p] = 1 / (1 - p) if p < 1 else 0
    return input * scale


def dropout2d(input: Input, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Set whole channels of images, (N, C, H, W), to zero at random; else as `dropout`."""
    input = as_tensor(input, "input")
    if input.ndim != 4:
        raise ValueError(f"input has shape {input.shape}, expected (N, C, H, W)")
    if not training or p == 0:
        return dropout(input, p, training)
    return input * dropout(np.ones((*input.shape[:2], 1, 1), input.dtype), p)
