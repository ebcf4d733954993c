"""The cache of array memory: how much it keeps, and giving it back.

Results of the array functions and of operations on Tensors are allocated from it.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from instnorm._runtime import _memory

__all__ = ["empty_cache", "get_cache_limit", "set_cache_limit"]

DEFAULT_LIMIT = 256 * 2**20
SMALLEST_RECYCLED = _memory.SMALLEST_BLOCK


def empty_cache() -> None:
    """Return the cached memory to the system.

    Memory of large arrays that have died is kept for the next ones, since fresh pages
    cost several times what normalizing them does. Arrays that are in use keep theirs.

    See Also
    --------
    set_cache_limit : bounds, or switches off, what is kept.

    Examples
    --------
    >>> import instnorm
    >>> instnorm.empty_cache()
    """
    _memory.empty_cache()


def set_cache_limit(nbytes: int) -> None:
    """Set how many bytes of array memory are kept at most; 0 keeps none.

    Beyond that, what has waited longest goes back to the system. At import the limit is the
    environment variable `INSTNORM_CACHE_BYTES`, or 256 MiB.

    Parameters
    ----------
    nbytes : int
        Not negative.

    Raises
    ------
    TypeError
        If `nbytes` is no integer.
    ValueError
        If `nbytes` is negative, or more than an address can reach.
    """
    if isinstance(nbytes, bool) or not isinstance(nbytes, int | np.integer):
        raise TypeError(f"nbytes must be an integer, got {type(nbytes).__name__}")
    if nbytes < 0:
        raise ValueError(f"nbytes must not be negative, got {nbytes}")
    if nbytes > sys.maxsize:
        raise ValueError(f"nbytes must be at most {sys.maxsize}, got {nbytes}")
    _memory.set_limit(nbytes)


def get_cache_limit() -> int:
    """Return how many bytes of array memory are kept at most."""
    return _memory.get_limit()


#: Lets NumPy allocate arrays from the cache, in this thread, inside a ``with`` block.
recycled_memory = _memory.RecycledMemory


def empty_like(
    array: npt.NDArray[np.generic], dtype: npt.DTypeLike | None = None
) -> npt.NDArray[Any]:
    """Return an uninitialized array of the same shape and memory layout."""
    with recycled_memory():
        return np.empty_like(array, dtype, order="K", subok=False)


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an uninitialized array in C order."""
    if math.prod(shape) * np.dtype(dtype).itemsize < SMALLEST_RECYCLED:
        return np.empty(shape, dtype)
    with recycled_memory():
        return np.empty(shape, dtype)


def limit_from_environment() -> int:
    """Return the limit to start with."""
    text = os.environ.get("INSTNORM_CACHE_BYTES", "").strip()
    if not text:
        return DEFAULT_LIMIT
    # No integer that is too long for Python to read is a number of bytes.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= sys.maxsize):
        raise ImportError(f"INSTNORM_CACHE_BYTES is {text!r}, expected a number of bytes")
    return int(text)
