"""`instnorm info`: how the package was built, and what it runs on."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np

import instnorm
from instnorm._runtime import simd
from instnorm._runtime.simd import kernels

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: it has none."""


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    for name, value in report().items():
        print(f"{name:<10} {value}")
    return 0


def report() -> dict[str, str]:
    """Describe the package and its surroundings.

    Returns
    -------
    dict from str to str
        A name and a value for each line.
    """
    return {
        "instnorm": f"{instnorm.__version__} ({Path(instnorm.__file__).parent})",
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "NumPy": np.__version__,
        "OpenMP": "yes" if kernels.HAS_OPENMP else "no: this build is serial and uses one thread",
        "compiler": kernels.COMPILER,
        "SIMD": f"{simd.level}, {simd.reason}",
        "registers": "vectors" if kernels.HAS_SIMD else "plain C: not gcc 12 or newer, nor clang",
        "available": ", ".join(simd.available()),
        "threads": str(instnorm.get_num_threads()),
        "platform": platform.platform(),
        "processor": _processor(),
        "caches": _caches(),
    }


def _processor() -> str:
    """The processor's model; what Python's `platform` says of it is often empty on Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        lines = []
    models = [value.strip() for name, _, value in lines if name.strip() == "model name"]
    return models[0] if models else platform.processor() or platform.machine()


def _caches() -> str:
    """The first processor's data caches and their sizes, from Linux's sysfs."""
    caches = []
    for folder in sorted(CACHES.glob("index*")):
        try:
            level, kind, size = (
                (folder / name).read_text(encoding="ascii").strip()
                for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            caches.append(f"L{level}{'d' if kind == 'Data' else ''} {size}")
    return ", ".join(caches) or "unknown"
