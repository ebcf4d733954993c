"""The layers that both frameworks have, as a table: names and shapes of their entries.

A row is a layer of PyTorch's with its counterpart in `mindspore.nn`. `mindspore.mint.nn` has
PyTorch's names and shapes; of what it lacks, a network takes the layer of `mindspore.nn`.
Each row has samples, which its check carries to the real MindSpore and back: `kind_checks`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

from instnorm.migrate._flavours import Target


class Entry(NamedTuple):
    """A parameter or buffer, and its name in either framework.

    Attributes
    ----------
    pytorch, mindspore : str
    fill : float or None
        The value that MindSpore's layer has in its place where PyTorch's layer has none;
        None where it has none either.
    """

    pytorch: str
    mindspore: str
    fill: float | None = None


class Sample(NamedTuple):
    """A layer of PyTorch's and the shape of its input, to check a row with."""

    layer: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A row of the table.

    Attributes
    ----------
    pytorch, mindspore : str
        Names of the classes in `torch.nn` and `mindspore.nn`.
    entries : tuple of Entry
    samples : tuple of Sample
    in_mint : bool
        Whether `mindspore.mint.nn` has the layer.
    extra_axis : bool
        Whether MindSpore's weight is (O, I, 1, k) where PyTorch's is (O, I, k).
    inside : str
        The attribute of MindSpore's layer that holds the entries, if not the layer itself.
    """

    pytorch: str
    mindspore: str
    entries: tuple[Entry, ...]
    samples: tuple[Sample, ...]
    in_mint: bool = True
    extra_axis: bool = False
    inside: str = ""

    @property
    def family(self) -> str:
        """The class of PyTorch's without the number of axes: InstanceNorm."""
        return re.sub(r"\dd$", "", self.pytorch)

    @property
    def is_instance_norm(self) -> bool:
        """Whether MindSpore ignores its running statistics."""
        return self.family == "InstanceNorm"

    def keeps_pytorchs(self, target: Target) -> bool:
        """Whether names and shapes are PyTorch's in the target."""
        return target == "pytorch" or (target == "mindspore.mint" and self.in_mint)

    def key(self, prefix: str, entry: Entry, target: Target) -> str:
        """Return the name of an entry in the state of a network that has the layer at `prefix`."""
        if self.keeps_pytorchs(target):
            return joined(prefix, entry.pytorch)
        # A layer by itself has the names that its parameters were made with.
        if self.is_instance_norm and not prefix:
            return entry.mindspore.removeprefix("moving_")
        return joined(prefix, self.inside, entry.mindspore)

    def adds_axis(self, entry: Entry, target: Target) -> bool:
        """Whether the target has an axis more than PyTorch's array."""
        return self.extra_axis and entry.pytorch == "weight" and not self.keeps_pytorchs(target)

    def fill(self, entry: Entry, target: Target) -> float | None:
        """Return what the target's layer has where PyTorch's has nothing."""
        return None if self.keeps_pytorchs(target) else entry.fill


def joined(*parts: str) -> str:
    """Join names by dots, but for empty ones."""
    return ".".join(part for part in parts if part)


COUNTER = "num_batches_tracked"

_WEIGHT, _BIAS = Entry("weight", "weight"), Entry("bias", "bias")
_MAP = (_WEIGHT, _BIAS)
_AFFINE = (Entry("weight", "gamma", 1.0), Entry("bias", "beta", 0.0))
STATISTICS = (
    Entry("running_mean", "moving_mean", 0.0),
    Entry("running_var", "moving_variance", 1.0),
)
_TRACKED = (*_AFFINE, *STATISTICS)


def _samples(shape: tuple[int, ...], *layers: str) -> tuple[Sample, ...]:
    return tuple(Sample(layer, shape) for layer in layers)


KINDS = (
    Kind(
        "Conv1d",
        "Conv1d",
        _MAP,
        _samples((2, 4, 9), "Conv1d(4, 6, 3)", "Conv1d(4, 6, 3, 2, 1, 2, 2, bias=False)"),
        extra_axis=True,
    ),
    Kind(
        "Conv2d",
        "Conv2d",
        _MAP,
        _samples(
            (2, 4, 9, 8),
            "Conv2d(4, 6, (3, 2))",
            "Conv2d(4, 6, 3, (2, 1), (1, 2), groups=2, bias=False)",
            'Conv2d(4, 6, 3, padding="same", dilation=2)',
        ),
    ),
    Kind(
        "Conv3d",
        "Conv3d",
        _MAP,
        _samples((2, 4, 5, 6, 7), "Conv3d(4, 6, 3, 2, 1)", "Conv3d(4, 6, (1, 2, 3), bias=False)"),
    ),
    Kind(
        "ConvTranspose1d",
        "Conv1dTranspose",
        _MAP,
        _samples(
            (2, 4, 9), "ConvTranspose1d(4, 6, 3)", "ConvTranspose1d(4, 6, 4, 2, 1, bias=False)"
        ),
        in_mint=False,
        extra_axis=True,
    ),
    Kind(
        "ConvTranspose2d",
        "Conv2dTranspose",
        _MAP,
        _samples(
            (2, 4, 5, 6),
            "ConvTranspose2d(4, 6, 3)",
            "ConvTranspose2d(4, 6, 3, 2, 1, 1)",
            "ConvTranspose2d(4, 6, 4, 2, 1, bias=False)",
        ),
    ),
    Kind(
        "ConvTranspose3d",
        "Conv3dTranspose",
        _MAP,
        _samples(
            (2, 4, 3, 4, 5),
            "ConvTranspose3d(4, 6, 3)",
            "ConvTranspose3d(4, 6, 3, 2, 1, bias=False)",
        ),
        in_mint=False,
    ),
    Kind("Linear", "Dense", _MAP, _samples((5, 4), "Linear(4, 6)", "Linear(4, 6, bias=False)")),
    Kind(
        "Embedding",
        "Embedding",
        (Entry("weight", "embedding_table"),),
        _samples((3, 4), "Embedding(7, 5)"),
    ),
    *(
        Kind(
            f"InstanceNorm{rank}d",
            f"InstanceNorm{rank}d",
            _TRACKED,
            _samples(
                (2, 4, *(5,) * rank),
                f"InstanceNorm{rank}d(4)",
                f"InstanceNorm{rank}d(4, eps=0.01, affine=True)",
                f"InstanceNorm{rank}d(4, affine=True, bias=False)",
            ),
            in_mint=False,
        )
        for rank in (1, 2, 3)
    ),
    *(
        Kind(
            f"BatchNorm{rank}d",
            f"BatchNorm{rank}d",
            _TRACKED,
            _samples(
                (2, 4, *(5,) * rank),
                f"BatchNorm{rank}d(4)",
                f"BatchNorm{rank}d(4, eps=0.01, affine=False)",
            ),
            inside="bn2d" if rank == 3 else "",
        )
        for rank in (1, 2, 3)
    ),
    Kind(
        "GroupNorm",
        "GroupNorm",
        _AFFINE,
        _samples((2, 4, 5, 6), "GroupNorm(2, 4)", "GroupNorm(4, 4, eps=0.01, affine=False)"),
    ),
    Kind(
        "LayerNorm",
        "LayerNorm",
        _AFFINE,
        _samples(
            (3, 4, 5),
            "LayerNorm(5)",
            "LayerNorm((4, 5), eps=0.01)",
            "LayerNorm(5, bias=False)",
            "LayerNorm(5, elementwise_affine=False)",
        ),
    ),
    Kind(
        "PReLU",
        "PReLU",
        (Entry("weight", "w"),),
        _samples((2, 4, 5), "PReLU()", "PReLU(4)"),
    ),
)
# What else a class may be called: it has the entries of another row.
_ALSO = {"SyncBatchNorm": "BatchNorm2d"}
KIND_OF = {
    **{kind.pytorch: kind for kind in KINDS},
    **{kind.mindspore: kind for kind in KINDS},
    **{also: kind for also, name in _ALSO.items() for kind in KINDS if kind.pytorch == name},
}


def kind_called(name: str) -> Kind:
    """Return the row of a class of either framework; InstanceNorm means any of the three.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name == "InstanceNorm":
        return KIND_OF["InstanceNorm2d"]
    if name not in KIND_OF:
        raise ValueError(
            f"no layer of the table is called {name!r}; there are InstanceNorm, "
            f"{', '.join(dict.fromkeys(KIND_OF))}"
        )
    return KIND_OF[name]
