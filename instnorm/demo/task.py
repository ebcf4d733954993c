"""What a training task is: data, a net, a loss, a measure of success, pictures.

`train` knows tasks only through this class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from instnorm import nn, optim
from instnorm._layouts import Array
from instnorm.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Defaults:
    """The options that suit a task."""

    epochs: int
    lr: float
    momentum: float
    batch_size: int


@dataclass
class Learner:
    """One net in training, and how it has gone so far.

    Attributes
    ----------
    name : str
        'with norm' or 'without norm'.
    net : Module
    optimizer : SGD
    history : dict from str to list of float
        One value for each epoch: 'loss', and the task's measures.
    seconds : float
        How long it has trained in this process.
    """

    name: str
    net: nn.Module
    optimizer: optim.SGD
    history: dict[str, list[float]]
    seconds: float = field(default=0.0)


class Task(ABC):
    """Something to learn. Making one loads its data.

    Parameters
    ----------
    dtype : dtype
        Of the images: float32 or float64.
    """

    name: ClassVar[str]
    defaults: ClassVar[Defaults]
    #: What `measure` returns, and how each reads in the table.
    measures: ClassVar[Mapping[str, str]]

    #: How many samples an epoch has.
    samples: int

    @abstractmethod
    def __init__(self, dtype: np.dtype[Any]) -> None: ...

    @staticmethod
    @abstractmethod
    def make_net(norm: bool) -> nn.Module:
        """Make the net, with instance norm or with nothing in its place."""

    @abstractmethod
    def batches(self, seed: int, epoch: int, batch_size: int) -> Iterator[tuple[Array, Array]]:
        """Yield inputs and targets; the same ones for the same arguments."""

    @abstractmethod
    def loss(self, output: Tensor, target: Array) -> Tensor:
        """Tell how far a batch is off, as a scalar to minimize."""

    #: What `score` is called in the progress bar.
    score_name: ClassVar[str]

    @abstractmethod
    def score(self, output: Array, target: Array) -> float:
        """Tell how good a batch is, as a mean over its samples."""

    @abstractmethod
    def measure(self, net: nn.Module) -> dict[str, float]:
        """Test the net on data that it has not seen; the keys are those of `measures`."""

    @abstractmethod
    def shown(self, value: float) -> str:
        """Write a measure with its unit."""

    @abstractmethod
    def describe(self) -> str:
        """Tell in a line or a few what is learned and tested."""

    def reference_rows(self) -> Mapping[str, str]:
        """Lines of the table that no net has a part in."""
        return {}

    @abstractmethod
    def pictures(self, learners: list[Learner]) -> Mapping[str, Figure]:
        """Draw the results; the keys go into the files' names."""
