"""Which build of the compiled kernels this process uses: the widest that its processor runs.

`_core.pyx` and `_layers.pyx` are compiled once for the architecture's baseline and, on x86-64,
once for AVX2 and once for AVX-512. Those two give the same results of `_core`, bit by bit; the
baseline has no fused multiply-add and rounds in more places, within the same bounds. The
environment variable INSTNORM_SIMD forces one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from instnorm._runtime._cpu import cpu_supports

__all__ = ["LEVELS", "available", "kernels", "layers", "level", "reason"]

# How often an idle thread of OpenMP looks for work before it sleeps: a millisecond or two, which is
# longer than one thread of a kernel waits for another. A thread that has gone to sleep wakes on
# its waker's processor, and the two take turns there: docs/decisions/spinning-threads.md.
SPIN_COUNT = 50000

LEVELS = ("avx512", "avx2", "baseline")


def available() -> Iterator[str]:
    """Yield the levels that are built and that the processor runs, the widest first."""
    return (name for name in LEVELS if cpu_supports(name) and _is_built(name))


def _module_name(source: str, level: str) -> str:
    return f"instnorm.{source}" if level == "baseline" else f"instnorm.{source}_{level}"


def _is_built(level: str) -> bool:
    return all(
        importlib.util.find_spec(_module_name(source, level)) is not None
        for source in ("_core", "_layers")
    )


def _module(source: str, level: str) -> ModuleType:
    """Import a level's build of a source, and OpenMP's runtime with it.

    GCC's runtime lets idle threads spin for milliseconds, and OpenBLAS does so too: where a
    program alternates between the two, as training does, each holds up the other's threads.
    The runtime reads how long to spin when it is loaded, and never again.
    """
    ours = "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ
    if ours:
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    try:
        module = importlib.import_module(_module_name(source, level))
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]
    # Where that is free, Cython enters a module under the name of its source as well, which is
    # the baseline's.
    if level != "baseline" and sys.modules.get(_module_name(source, "baseline")) is module:
        del sys.modules[_module_name(source, "baseline")]
    return module


def _choose() -> tuple[str, str]:
    """Return the level to use and, in words, why."""
    forced = os.environ.get("INSTNORM_SIMD")
    if not forced:
        return next(available()), "the widest that this processor runs"
    if forced not in LEVELS:
        raise ImportError(f"INSTNORM_SIMD is {forced!r}, expected one of {', '.join(LEVELS)}")
    if forced not in available():
        raise ImportError(
            f"INSTNORM_SIMD is {forced!r}, expected one that is built and that this processor "
            f"runs: {', '.join(available())}"
        )
    return forced, "INSTNORM_SIMD asks for it"


level, reason = _choose()
if TYPE_CHECKING:
    # Every level's module is its source under another name, and has the types of its `.pyi`.
    from instnorm import _core as kernels
    from instnorm import _layers as layers
else:
    kernels = _module("_core", level)
    layers = _module("_layers", level)
