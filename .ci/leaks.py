"""Use the array memory's allocator in every way, and hold LeakSanitizer to finding nothing of it.

Called by `.ci/sanitize`, in an interpreter that the sanitizer is loaded into. Python, NumPy and
others keep blocks to the end, so what counts is whose frame asked for a block.
"""

import ctypes
import os
import sys
import tempfile
import threading

import numpy as np

import instnorm
from instnorm._runtime import memory

SHAPE = (4, 8, 64, 64)
OURS = ("/instnorm/_runtime/_memory", "/instnorm/_core")


def use():
    """Allocate, grow, shrink, keep, evict and free, here and in other threads."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SHAPE)
    for limit in (0, 2**20, 2**28):
        instnorm.set_cache_limit(limit)
        for _ in range(20):
            y, mean, rstd = instnorm.instance_norm(x, return_stats=True)
            instnorm.instance_norm_backward(y, x, mean=mean, rstd=rstd)
            instnorm.instance_norm(np.moveaxis(x, 1, -1).copy(), channel_axis=-1)
            with memory.recycled_memory():
                a = np.zeros(int(rng.integers(2**10, 2**18)))
                a.resize(int(rng.integers(1, 2**18)), refcheck=False)
    instnorm.empty_cache()


def leaks():
    """What LeakSanitizer reports of blocks that nothing leads to now."""
    with tempfile.TemporaryFile() as report:
        before = os.dup(2)
        os.dup2(report.fileno(), 2)
        try:
            ctypes.CDLL(None).__lsan_do_recoverable_leak_check()
        finally:
            os.dup2(before, 2)
        report.seek(0)
        return report.read().decode(errors="replace").split("\n\n")


def main():
    """Exit with what was leaked, or 0."""
    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    use()
    for thread in threads:
        thread.join()
    # What this leaks on purpose has to be found, or the report is worth nothing.
    ctypes.CDLL(None).malloc(12345)
    found = leaks()
    if not any("12345 byte" in part for part in found):
        sys.exit("LeakSanitizer does not find a block that was leaked on purpose")
    ours = [part for part in found if any(name in part for name in OURS)]
    if ours:
        sys.exit("\n\n".join(["leaked:", *ours]))
    print(f"no leak of {len(found) - 1} reported is of array memory")


if __name__ == "__main__":
    main()
    # Leaks of others at the end are none of ours.
    os._exit(0)
