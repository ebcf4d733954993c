"""Which build of the compiled kernels this process uses: the widest that its processor runs.

`_core.pyx` is compiled once for the architecture's baseline and, on x86-64, once for
AVX2 and once for AVX-512. Those two give the same results, bit by bit; the baseline has no
fused multiply-add and rounds in more places, within the same bounds. The environment
variable INSTNORM_SIMD forces one.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from types import ModuleType

# Some hundred microseconds: from a forward kernel to the backward one, and not much longer.
# A thread that has gone to sleep takes as long to wake as a kernel of a few MiB runs.
SPINS = 10000


def _load_core() -> ModuleType:
    """Import the baseline kernels, and OpenMP's runtime with them.

    GCC's runtime lets idle threads spin for milliseconds, and OpenBLAS does so too: where a
    program alternates between the two, as training does, each holds up the other's threads.
    The runtime reads how long to spin when it is loaded, and never again.
    """
    ours = "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ
    if ours:
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    try:
        return importlib.import_module("instnorm._core")
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]


_core = _load_core()

LEVELS = ("avx512", "avx2", "baseline")


def available() -> Iterator[str]:
    """Yield the levels that are built and that the processor runs, the widest first."""
    # The processor is asked first: loading a module may already run its wide instructions.
    return (name for name in LEVELS if _core.cpu_supports(name) and _module(name) is not None)


def _module(level: str) -> ModuleType | None:
    if level == "baseline":
        return _core
    try:
        return importlib.import_module(f"instnorm._core_{level}")
    except ImportError:
        return None


def _choose() -> tuple[str, str]:
    """Return the level to use and, in words, why."""
    forced = os.environ.get("INSTNORM_SIMD")
    if not forced:
        return next(available()), "the widest that this processor runs"
    if forced not in LEVELS:
        raise ImportError(f"INSTNORM_SIMD is {forced!r}, expected one of {', '.join(LEVELS)}")
    if forced not in list(available()):
        raise ImportError(
            f"INSTNORM_SIMD is {forced!r}, expected one that is built and that this processor "
            f"runs: {', '.join(available())}"
        )
    return forced, "INSTNORM_SIMD asks for it"


level, reason = _choose()
kernels = _module(level) or _core
