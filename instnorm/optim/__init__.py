"""Optimizers, and schedules of their learning rates (`lr_scheduler`)."""

from typing import NoReturn

from instnorm._missing import missing
from instnorm.optim import lr_scheduler
from instnorm.optim.adam import Adam, AdamW
from instnorm.optim.optimizer import Optimizer
from instnorm.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]

# What PyTorch has and this package has not: what is nearest.
_INSTEAD = dict.fromkeys(
    ["RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax"],
    "instnorm does not have it; nearest: Adam",
)


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> NoReturn:
    raise missing("instnorm.optim", name, __all__, _INSTEAD)
