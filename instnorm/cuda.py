"""What scripts ask before they choose a device: there is none but the CPU."""

from typing import NoReturn

from instnorm._missing import missing

__all__ = ["is_available"]


def is_available() -> bool:
    """Return False: everything is computed on the CPU."""
    return False


def __getattr__(name: str) -> NoReturn:
    raise missing("instnorm.cuda", name, __all__)
