"""Which layer of the table each part of a state is: told by a model, by name, or by the entries."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from instnorm.migrate._flavours import Target, listed
from instnorm.migrate.evidence import (
    STATISTICS_NAMES,
    Evidence,
    Group,
    Surroundings,
    candidates,
    fits,
)
from instnorm.migrate.kinds import COUNTER, Kind, kind_called
from instnorm.migrate.models import flavour_of, layers_of

#: What `layers` says of a layer that is to keep its names.
KEEP = "keep"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a layer is taken for.

    Attributes
    ----------
    kinds : tuple of Kind
        Several where they are written alike; none where the entries keep their names.
    reason : str
    target : Target
        Whose names it gets: a network of MindSpore's may mix `nn` and `mint.nn`.
    """

    kinds: tuple[Kind, ...]
    reason: str
    target: Target

    @property
    def is_instance_norm(self) -> bool:
        """Whether it is nothing else."""
        return bool(self.kinds) and all(kind.is_instance_norm for kind in self.kinds)

    @property
    def may_be_instance_norm(self) -> bool:
        """Whether it may be one."""
        return any(kind.is_instance_norm for kind in self.kinds)

    @property
    def label(self) -> str:
        """The classes, for people to read."""
        return alternatives(self.kinds)


def alternatives(kinds: Sequence[Kind]) -> str:
    """Return the names of the classes with 'or' between them."""
    names = [kind.family if kind.is_instance_norm else kind.pytorch for kind in kinds]
    return " or ".join(dict.fromkeys(names))


# --- by a model ---------------------------------------------------------------------------


class Known(NamedTuple):
    """What a model tells of a layer.

    Attributes
    ----------
    kind : Kind
    target : Target
    """

    kind: Kind
    target: Target


def known_layers(model: Any, to: Target) -> dict[str, Known]:
    """Return the model's layers that are in the table, by name."""
    is_mindspores = flavour_of(model) == "mindspore"
    found = {}
    for layer in layers_of(model):
        if layer.kind is None:
            continue
        target = to
        if is_mindspores and to != "pytorch":
            target = "mindspore.mint" if ".mint." in type(layer.module).__module__ else "mindspore"
        found[layer.prefix] = Known(layer.kind, target)
    if not found:
        raise ValueError(f"model: {type(model).__name__} has no layer of the table")
    return found


def choices_by_model(
    groups: list[Group], known: Mapping[str, Known], to: Target
) -> dict[str, Choice]:
    """Take each layer for what the model has by its name."""
    choices = {}
    for group in groups:
        layer = known.get(group.prefix)
        if layer is None:
            choices[group.prefix] = Choice((), "no layer of the table in the model", to)
        elif group.values and not fits(group, layer.kind, to):
            shapes = ", ".join(f"{v.olds[0]} {group.shape(n)}" for n, v in group.values.items())
            raise ValueError(
                f"{shapes}: not the entries of a {layer.kind.pytorch}, as in the model"
            )
        elif not group.values.keys() - {COUNTER}:
            choices[group.prefix] = Choice((), "no entry of the table", to)
        else:
            choices[group.prefix] = Choice((layer.kind,), "the model tells", layer.target)
    return choices


# --- by names ---------------------------------------------------------------------------------


class _Told(NamedTuple):
    """What the caller says of layers.

    Attributes
    ----------
    argument : str
        Where it is said: layers, norms or others.
    pattern : str
    kind : Kind or None
        None to leave them as they are.
    """

    argument: str
    pattern: str
    kind: Kind | None

    def speaks_of(self, group: Group, evidence: Evidence, to: Target) -> bool:
        """Whether this is said of a layer: by its name, or by a wildcard where it may be so."""
        if self.pattern == group.prefix:
            return self.kind is None or fits(group, self.kind, to)
        if not fnmatch.fnmatchcase(group.prefix, self.pattern):
            return False
        if self.kind is None:
            return True
        if self.argument == "norms" and not _is_complete(group):
            return False
        same = [k for k in evidence.kinds if (k.family, k.inside) == _written_as(self.kind)]
        return bool(same)

    @property
    def called(self) -> str:
        """The class, for people to read."""
        if self.argument == "norms":
            return "an instance norm"
        return self.kind.pytorch if self.kind else "any"


def _written_as(kind: Kind) -> tuple[str, str]:
    return kind.family, kind.inside


def choices_by_names(
    groups: list[Group],
    to: Target,
    layers: Mapping[str, str],
    norms: Sequence[str],
    others: Sequence[str],
) -> dict[str, Choice]:
    """Take each layer for what it is said to be, or for what its entries tell.

    Raises
    ------
    ValueError
        If these are not enough for a layer, or speak of none.
    """
    told = [
        *(_Told("layers", p, None if n == KEEP else kind_called(n)) for p, n in layers.items()),
        *(_Told("norms", pattern, kind_called("InstanceNorm")) for pattern in norms),
        *(_Told("others", pattern, None) for pattern in others),
    ]
    around = Surroundings.of(groups)
    evidence = {group.prefix: candidates(group, around, to) for group in groups if group.values}
    filled = [group for group in groups if group.values]
    _check_told(told, filled, evidence, to)
    is_one_layer = [g.prefix for g in groups] == [""] and not told and not groups[0].others
    choices: dict[str, Choice] = {}
    unclear: dict[str, list[str]] = {}
    for group in filled:
        kinds, reason = _narrowed(group, evidence[group.prefix], told, to, is_one_layer)
        if len({_writing(group, kind, to) for kind in kinds}) > 1:
            keys = [old for old in group.olds if not old.endswith(COUNTER)]
            unclear.setdefault(alternatives(kinds), []).extend(keys)
        choices[group.prefix] = Choice(kinds, reason, to)
    if unclear:
        raise ValueError(_question(unclear))
    for group in groups:
        choices.setdefault(group.prefix, Choice((), "no layer of the table", to))
    return choices


def _narrowed(
    group: Group,
    evidence: Evidence,
    told: Sequence[_Told],
    to: Target,
    is_one_layer: bool,
) -> tuple[tuple[Kind, ...], str]:
    said = [t for t in told if t.speaks_of(group, evidence, to)]
    said = [t for t in said if t.pattern == group.prefix] or said
    if said:
        kinds = (said[0].kind,) if said[0].kind else ()
        return kinds, f"told by {said[0].argument}, {said[0].pattern!r}"
    instance_norms = tuple(kind for kind in evidence.kinds if kind.is_instance_norm)
    if is_one_layer and instance_norms:
        return instance_norms, "the state of one layer"
    rest = tuple(kind for kind in evidence.kinds if not kind.is_instance_norm)
    if rest and any(t.argument == "norms" for t in told):
        return rest, f"{evidence.reason}; norms does not name it"
    return evidence.kinds, evidence.reason


def _writing(group: Group, kind: Kind, to: Target) -> tuple[Any, ...]:
    """Return what tells whether two kinds are written alike."""
    keys = tuple(
        kind.key(group.prefix, entry, to) for entry in kind.entries if entry.pytorch in group.values
    )
    # Towards MindSpore an axis is added, towards PyTorch taken away.
    reshapes = kind.extra_axis and (to == "pytorch" or not kind.keeps_pytorchs(to))
    return (*keys, reshapes)


def _check_told(
    told: Sequence[_Told], groups: list[Group], evidence: Mapping[str, Evidence], to: Target
) -> None:
    for one in told:
        if any(one.speaks_of(group, evidence[group.prefix], to) for group in groups):
            continue
        possible = [repr(g.prefix) for g in groups if one.kind is None or fits(g, one.kind, to)]
        raise ValueError(
            f"{one.argument}: {one.pattern!r} fits no layer that can be {one.called}; "
            f"such layers are {listed(possible)}"
        )


def _question(unclear: Mapping[str, list[str]]) -> str:
    parts = [f"{listed(keys)} (of {kinds})" for kinds, keys in unclear.items()]
    kinds, keys = next(iter(unclear.items()))
    prefix, first = keys[0].rpartition(".")[0], kinds.split(" or ")[0]
    return (
        f"cannot tell whether these belong to one layer or another, which are written "
        f"differently: {'; '.join(parts)}. Give the model by model= (--model MODULE:FACTORY), or "
        f"tell the classes by layers= (--layer '{prefix}={first}'; wildcards take several layers, "
        "and =keep leaves names as they are)"
    )


def _is_complete(group: Group) -> bool:
    """Whether there is all that an instance norm may have."""
    return group.values.keys() >= {"weight", "bias"} or group.values.keys() >= set(STATISTICS_NAMES)
