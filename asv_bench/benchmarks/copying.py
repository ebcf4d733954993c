"""The memory copy that speed is measured against: the limit that memory sets."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np


def copies(array, threads):
    """Ways to copy the bytes of an array to memory that is touched; the fastest is the limit.

    Returns
    -------
    dict from str to callable
        numpy.copyto on one thread, and on all of them, each with a share.
    """
    source = _flat(array)
    target = source.copy()
    ways = {"1 thread": lambda: np.copyto(target, source)}
    if threads > 1:
        ways[f"{threads} threads"] = _shared_copy(target, source, threads)
    return ways


def _flat(array):
    """The elements of a dense array in the order of memory."""
    return array.ravel(order="K") if array.flags.c_contiguous else np.moveaxis(array, 1, -1).ravel()


def _shared_copy(target, source, threads):
    """NumPy lets go of the interpreter's lock while it copies, so Python's threads will do."""
    pool = ThreadPoolExecutor(threads - 1)
    (first, *others) = zip(
        np.array_split(target, threads), np.array_split(source, threads), strict=True
    )

    def copy():
        futures = [pool.submit(np.copyto, *share) for share in others]
        np.copyto(*first)
        for future in futures:
            future.result()

    return copy
