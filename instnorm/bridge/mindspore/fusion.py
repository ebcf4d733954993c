"""What follows a norm in sequences of cells, and may be taken into its pass: found, and put there.

The order of the cells in `nn.SequentialCell`, also nested, says it. The activation's cell becomes
one that hands its input on, and the norm applies the activation. Both stay where they are, with
their parameters.

An activation of the ReLU family may change places with a dropout: what one of them sets to 0 or
multiplies by a positive number, the other does as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from mindspore import mint, nn, ops

from instnorm.bridge.mindspore.operators import Composition, InstanceNorm, Options

DROPOUTS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(mint.nn.Dropout, mint.nn.Dropout2d),
)
# Where norm and activation keep each other. Entries of `__dict__`: a cell that is set as an
# attribute would be registered as a cell inside.
FOLLOWER = "_instnorm_follower"
NORM = "_instnorm_norm"


class _Follower(NamedTuple):
    """The cell whose activation a norm applies, and the operator that does it."""

    cell: nn.Cell
    operator: InstanceNorm
    # The norm and the sequences around it that the cell is not in.
    holders: tuple[nn.Cell, ...]


def has_hooks(cell: Any) -> bool:
    """Whether somebody looks at, or changes, what a cell takes and gives."""
    forward = cell._forward_hook or cell._forward_pre_hook
    return bool(forward or cell._backward_hook or cell._backward_pre_hook)


def keeps_code(cell: Any) -> bool:
    """Whether `Cell.recompute` took a cell's code in a way that nobody can change."""
    return not isinstance(cell._recompute_cell, nn.Cell | None)


def become(cell: Any, cls: type[nn.Cell]) -> None:
    """Change the class of a cell, and what `Cell.recompute` took of its old one."""
    cell.__class__ = cls
    if cell._recompute_cell is not None:
        cell._recompute_cell = type(cell._recompute_cell)(cell.construct)


def applies_activation(norm: Any) -> bool:
    """Whether a norm does so now; if not, the cell that the activation comes from does."""
    follower = norm.__dict__.get(FOLLOWER)
    if follower is None or has_hooks(norm):
        return False
    # What recomputes finds the gradients of its own parameters alone: not that of a PReLU outside.
    recomputes = slope_of(follower.cell) is not None and any(
        holder._recompute_cell is not None for holder in follower.holders
    )
    return not recomputes and norm.mixed_precision_type == follower.cell.mixed_precision_type


# --- what activations become -------------------------------------------------------------


class Absorbed(nn.Cell):
    """What an activation's cell is while its norm applies the activation.

    A norm that MindSpore's operators compute applies none.
    """

    composition = Composition()

    @property
    def absorbed(self) -> bool:
        """Whether the norm does so at present."""
        return applies_activation(self.__dict__[NORM])


class AbsorbedReLU(Absorbed, nn.ReLU):
    """A `ReLU` that the norm before it applies."""

    def construct(self, input):  # type: ignore[no-untyped-def]  # noqa: D102
        if self.absorbed and self.composition(input) is None:
            return input
        return self.relu(input)


class AbsorbedLeakyReLU(Absorbed, nn.LeakyReLU):
    """A `LeakyReLU` that the norm before it applies."""

    def construct(self, x):  # type: ignore[no-untyped-def]  # noqa: D102
        if self.absorbed and self.composition(x) is None:
            return x
        return ops.leaky_relu(x, self.alpha)


class AbsorbedPReLU(Absorbed, nn.PReLU):
    """A `PReLU` that the norm before it applies."""

    def construct(self, x):  # type: ignore[no-untyped-def]  # noqa: D102
        if self.absorbed and self.composition(x) is None:
            return x
        return self.prelu(x, ops.cast(self.w, x.dtype))


class AbsorbedMintPReLU(Absorbed, mint.nn.PReLU):
    """A `mint.nn.PReLU` that the norm before it applies."""

    def construct(self, input):  # type: ignore[no-untyped-def]  # noqa: D102
        if self.absorbed and self.composition(input) is None:
            return input
        return ops.prelu(input, self.weight)


_ABSORBED: dict[type[nn.Cell], type[nn.Cell]] = {
    nn.ReLU: AbsorbedReLU,
    nn.LeakyReLU: AbsorbedLeakyReLU,
    nn.PReLU: AbsorbedPReLU,
    mint.nn.PReLU: AbsorbedMintPReLU,
}


def slope_of(cell: Any) -> Any:
    """The parameter that a PReLU multiplies negative numbers by; None for other cells."""
    return getattr(cell, "w", getattr(cell, "weight", None))


def described(norm: Any) -> str:
    """What a norm does besides normalizing, in words; '' for nothing."""
    if not applies_activation(norm):
        return ""
    follower = norm.__dict__[FOLLOWER]
    activation = str(follower.operator.options.activation)
    return activation if slope_of(follower.cell) is None else "prelu"


def _options_of(norm: Any, cell: Any) -> Options | None:
    """What the norm would do with a cell as its activation, if it is one of the family."""
    if type(cell) is nn.ReLU:
        return Options(norm.eps, "relu")
    if type(cell) is nn.LeakyReLU:
        return Options(norm.eps, "leaky_relu", float(cell.alpha))
    if type(cell) in (nn.PReLU, mint.nn.PReLU) and slope_of(cell).size in (1, norm.num_features):
        return Options(norm.eps, "leaky_relu", None)
    return None


# --- where norms and activations are -------------------------------------------------------


def _is_plain_sequence(cell: Any) -> bool:
    return isinstance(cell, nn.SequentialCell) and (
        type(cell).construct is nn.SequentialCell.construct
    )


class _Link(NamedTuple):
    """A cell of a chain, and the inner sequences that it is in."""

    cell: Any
    around: tuple[Any, ...]


def fuse_sequences(net: Any, is_norm: Any) -> None:
    """Let norms apply the activations that follow them in sequences, and that nobody else uses."""
    cells = [cell for _, cell in net.cells_and_names()]
    uses = Counter(id(child) for cell in cells for child in cell._cells.values())

    def is_open(cell: Any) -> bool:
        """Whether a cell is called in one place, and nobody looks at it."""
        return uses[id(cell)] <= 1 and not has_hooks(cell)

    def chain(sequence: Any, *around: Any) -> Iterator[_Link]:
        """The cells that a sequence runs, one after the other, those of inner ones included."""
        for cell in sequence.cell_list:
            if _is_plain_sequence(cell) and is_open(cell):
                yield from chain(cell, *around, cell)
            else:
                yield _Link(cell, around)

    for sequence in filter(_is_plain_sequence, cells):
        run = list(chain(sequence))
        for place, (norm, around) in enumerate(run):
            if not is_norm(norm) or uses[id(norm)] > 1 or FOLLOWER in norm.__dict__:
                continue
            activation = _after_dropouts(run[place + 1 :])
            if activation is None or not is_open(activation.cell) or keeps_code(activation.cell):
                continue
            options = _options_of(norm, activation.cell)
            if options is not None:
                holders = norm, *(s for s in around if s not in activation.around)
                _absorb(norm, _Follower(activation.cell, InstanceNorm(options), holders))


def _after_dropouts(run: list[_Link]) -> _Link | None:
    """The first of some cells that is no dropout; None where somebody looks at one before it."""
    for link in run:
        if not isinstance(link.cell, DROPOUTS):
            return link
        if has_hooks(link.cell):
            break
    return None


def _absorb(norm: Any, follower: _Follower) -> None:
    norm.__dict__[FOLLOWER] = follower
    follower.cell.__dict__[NORM] = norm
    become(follower.cell, _ABSORBED[type(follower.cell)])


def absorbed(net: Any) -> list[Any]:
    """The activations that norms apply, where one of the two is in a network."""
    found = {}
    for _, cell in net.cells_and_names():
        activation = cell.__dict__[FOLLOWER].cell if FOLLOWER in cell.__dict__ else cell
        if isinstance(activation, Absorbed):
            found[id(activation)] = activation
    return list(found.values())


def separate(net: Any) -> None:
    """Undo all of it."""
    originals = {mine: cls for cls, mine in _ABSORBED.items()}
    for activation in absorbed(net):
        norm = activation.__dict__.pop(NORM)
        del norm.__dict__[FOLLOWER]
        become(activation, originals[type(activation)])
