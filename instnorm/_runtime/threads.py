"""How many threads the kernels use: the default, and the two calls that change it."""

from __future__ import annotations

import math
import os
from pathlib import Path

from instnorm._runtime.simd import kernels, layers

__all__ = ["get_num_threads", "set_num_threads"]


def set_num_threads(n: int) -> None:
    """Set how many threads the kernels share a large input among.

    Small inputs stay on one thread, and a build without OpenMP always does. The
    results do not depend on the number, bit by bit.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError
        If `n` is no integer.
    ValueError
        If `n` is less than 1.

    Examples
    --------
    >>> import instnorm
    >>> before = instnorm.get_num_threads()
    >>> instnorm.set_num_threads(1)
    >>> instnorm.get_num_threads()
    1
    >>> instnorm.set_num_threads(before)
    """
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be an integer, got {type(n).__name__}")
    if not 1 <= n <= 4096:
        raise ValueError(f"n must be from 1 to 4096, got {n}")
    kernels.set_num_threads(n)
    layers.set_num_threads(n)


def get_num_threads() -> int:
    """Return how many threads the kernels use for a large input.

    At import this is `OMP_NUM_THREADS` where set, else the number of processors
    that the process may run on, or its cgroup's CPU quota where that is less.

    Returns
    -------
    int
        1 in a build without OpenMP, and in a process that was forked.
    """
    return int(kernels.get_num_threads())


def default_num_threads() -> int:
    """Return the number of threads to start with, from the process's surroundings."""
    requested = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if requested.isdigit() and int(requested) > 0:
        return min(int(requested), 4096)
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    quota = _cgroup_cpu_quota()
    return max(1, processors if quota is None else min(processors, math.ceil(quota)))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=kernels.forbid_threads)
    os.register_at_fork(after_in_child=layers.forbid_threads)


def _cgroup_cpu_quota() -> float | None:
    """Processors that the cgroup allows, where it sets a limit (cgroup v2, then v1)."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            texts = [Path("/sys/fs/cgroup", name).read_text() for name in names]
            quota, period = map(int, " ".join(texts).split())
            if quota > 0:
                return quota / period
        except (OSError, ValueError, ZeroDivisionError):  # ValueError: v2 says "max" for no limit
            pass
    return None
