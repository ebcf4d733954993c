"""Types of command line arguments: they check the value, and say what was expected."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


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
