"""What scripts ask before they choose a device: there is none but the CPU."""

from typing import NoReturn

from instnorm._missing import missing

__all__ = ["device_count", "is_available", "manual_seed", "manual_seed_all"]


def is_available() -> bool:
    """Return False: everything is computed on the CPU."""
    return False


def device_count() -> int:
    """Return 0."""
    return 0


def manual_seed(seed: int) -> None:
    """Do nothing: `instnorm.manual_seed` is for all random numbers that there are."""


manual_seed_all = manual_seed


def __getattr__(name: str) -> NoReturn:
    raise missing("instnorm.cuda", name, __all__)
