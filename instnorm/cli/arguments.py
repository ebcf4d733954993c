"""Types of command line arguments: they check the value, and say what was expected."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from instnorm.migrate.inputs import InputSpec

_INPUT_DTYPES = ("float32", "float64", "int32", "int64")


def integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """Make a type for argparse: an integer in a range.

    Parameters
    ----------
    least : int
    most : int, optional
        By default there is no upper end.
    """
    span = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"expected an integer {span}, got {text!r}")
        return value

    return parse


def number(least: float, below: float = math.inf) -> Callable[[str], float]:
    """Make a type for argparse: a finite number in ``[least, below)``."""
    span = f"of at least {least:g}" if below == math.inf else f"from {least:g} to below {below:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < below:  # NaN fails too
            raise argparse.ArgumentTypeError(f"expected a finite number {span}, got {text!r}")
        return value

    return parse


def assignment(text: str) -> tuple[str, str]:
    """Read ``NAME=CLASS``."""
    name, equals, value = text.rpartition("=")
    if not equals or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=CLASS, got {text!r}")
    return name, value


def input_shape(text: str) -> InputSpec:
    """Read a shape, and perhaps a dtype: ``1,3,64,64`` or ``2,7:int64``."""
    shape, colon, dtype = text.partition(":")
    try:
        sizes = tuple(int(size) for size in shape.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1 or (colon and dtype not in _INPUT_DTYPES):
        raise argparse.ArgumentTypeError(
            f"expected sizes such as 1,3,64,64, and perhaps one of :{', :'.join(_INPUT_DTYPES)}, "
            f"got {text!r}"
        )
    return InputSpec(sizes, dtype or "float32")
