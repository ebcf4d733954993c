"""What names, shapes and values of a state's entries tell of the layers that they belong to.

A state dict carries no types. `candidates` returns every row of the table that the entries of a
layer may belong to. Where these are written alike, it does not matter which it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from instnorm.migrate._flavours import Target, comparable, is_filled
from instnorm.migrate.kinds import COUNTER, KIND_OF, KINDS, STATISTICS, Kind
from instnorm.migrate.values import holds_numbers, shape_of

STATISTICS_NAMES = tuple(entry.pytorch for entry in STATISTICS)
_INITIAL = {entry.pytorch: entry.fill for entry in STATISTICS}


class Value(NamedTuple):
    """An array of a state, and the names of what it was made of."""

    olds: tuple[str, ...]
    value: Any


@dataclasses.dataclass
class Group:
    """The entries of one layer.

    Attributes
    ----------
    prefix : str
    values : dict from str to Value
        By PyTorch's names.
    others : list of str
        Names of entries beside these that no layer of the table has.
    kind : Kind or None
        What MindSpore's names alone tell.
    """

    prefix: str
    values: dict[str, Value] = dataclasses.field(default_factory=dict)
    others: list[str] = dataclasses.field(default_factory=list)
    kind: Kind | None = None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of an entry, None where there is none."""
        return shape_of(self.values[name].value) if name in self.values else None

    @property
    def olds(self) -> list[str]:
        """The names in the old state."""
        return [old for value in self.values.values() for old in value.olds]

    @property
    def statistics(self) -> list[str]:
        """The old names of the running statistics."""
        return [self.values[name].olds[0] for name in STATISTICS_NAMES if name in self.values]

    @property
    def is_initial(self) -> bool:
        """Whether the running statistics are those of a new layer."""
        return all(
            is_filled(self.values[name].value, fill)
            for name, fill in _INITIAL.items()
            if name in self.values and fill is not None
        )


class Evidence(NamedTuple):
    """The rows that a layer may be of, and why: none where it is no layer of the table."""

    kinds: tuple[Kind, ...]
    reason: str


@dataclasses.dataclass
class Surroundings:
    """What the rest of the state tells.

    Attributes
    ----------
    ranks : set of int
        Numbers of axes of weights of three and more.
    second_axes, third_axes : bool
        Whether a weight of four axes has a kernel of more than one in that axis.
    """

    ranks: set[int] = dataclasses.field(default_factory=set)
    second_axes: bool = False
    third_axes: bool = False
    before: dict[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, groups: Iterable[Group]) -> Surroundings:
        """Look at all weights, in the order of the state."""
        found, last = cls(), 0
        for group in groups:
            found.before[group.prefix] = last
            shape = group.shape("weight") or ()
            if len(shape) > 1:
                last = len(shape)
            if len(shape) > 2:
                found.ranks.add(len(shape))
            if len(shape) == 4:
                found.second_axes |= shape[2] > 1
                found.third_axes |= shape[3] > 1
        return found


# By the number of axes of the weight.
_OF_AXES: dict[int, tuple[str, ...]] = {
    2: ("Linear",),
    3: ("Conv1d", "ConvTranspose1d"),
    4: ("Conv2d", "ConvTranspose2d"),
    5: ("Conv3d", "ConvTranspose3d"),
}
_ASIDE = Evidence((), "no layer of the table")
_NORMS = ("InstanceNorm2d", "GroupNorm", "LayerNorm")


def _evidence(reason: str, *names: str) -> Evidence:
    return Evidence(tuple(KIND_OF[name] for name in names), reason)


def candidates(group: Group, around: Surroundings, to: Target) -> Evidence:
    """Return what the layer may be.

    Parameters
    ----------
    group : Group
    around : Surroundings
        Of the whole state.
    to : Target
        Not the framework that the state is of.
    """
    if group.others or not all(holds_numbers(v.value) for v in group.values.values()):
        return _ASIDE
    if to == "pytorch":
        return _of_mindspores(group, around)
    if set(STATISTICS_NAMES) & group.values.keys():
        return _with_statistics(group, around)
    return _without_statistics(group)


# --- PyTorch's names ----------------------------------------------------------------------


def _with_statistics(group: Group, around: Surroundings) -> Evidence:
    shapes = {group.shape(name) for name in group.values if name != COUNTER}
    if len(shapes) != 1 or len(next(iter(shapes)) or ()) != 1:
        return _ASIDE
    if not group.values.keys() >= set(STATISTICS_NAMES):
        return _ASIDE
    planar, reason = _ranks_of_batch_norm(group, around)
    if COUNTER in group.values and _has_counted(group.values[COUNTER].value):
        return _evidence(f"{COUNTER} is not 0, as an instance norm's is; {reason}", *planar)
    return _evidence(f"running statistics; {reason}", "InstanceNorm2d", *planar)


def _has_counted(counter: Any) -> bool:
    dtype = getattr(counter, "dtype", None)
    is_whole = not isinstance(dtype, np.dtype) or dtype.kind in "iu"
    return is_whole and shape_of(counter) == () and bool(comparable(counter) > 0)


def _ranks_of_batch_norm(group: Group, around: Surroundings) -> tuple[tuple[str, ...], str]:
    if 5 not in around.ranks:
        return ("BatchNorm2d",), "no convolution of the state is 3d"
    if around.ranks == {5} and around.before[group.prefix] == 5:
        return ("BatchNorm3d",), "all convolutions of the state are 3d"
    return ("BatchNorm2d", "BatchNorm3d"), "the state has 3d convolutions and others"


def _without_statistics(group: Group) -> Evidence:
    weight, bias = group.shape("weight"), group.shape("bias")
    if weight is None or COUNTER in group.values:
        return _ASIDE
    if len(weight) == 1:
        if bias == weight:
            return _evidence("weight and bias of one shape", *_NORMS)
        if bias is not None:
            return _ASIDE
        if weight == (1,):
            return _evidence("a weight of one number, without a bias", "PReLU")
        return _evidence("a weight of one axis, without a bias", "PReLU", *_NORMS)
    if bias is not None and len(bias) > 1:
        return _evidence("weight and bias of one shape", "LayerNorm") if bias == weight else _ASIDE
    if len(weight) not in _OF_AXES:
        return _ASIDE
    names = _OF_AXES[len(weight)]
    if len(weight) == 2 and bias is None:
        names = (*names, "Embedding")
    if bias and len(weight) > 2 and bias[0] != weight[0]:
        names = names[1:]
    reason = f"a weight of {len(weight)} axes, {'with' if bias else 'without'} a bias"
    return _evidence(reason, *names)


# --- MindSpore's names ----------------------------------------------------------------------


def _of_mindspores(group: Group, around: Surroundings) -> Evidence:
    if group.kind is not None:
        return (
            Evidence((group.kind,), "its names tell")
            if fits(group, group.kind, "pytorch")
            else _ASIDE
        )
    if set(STATISTICS_NAMES) & group.values.keys():
        if not fits(group, KIND_OF["InstanceNorm2d"], "pytorch"):
            return _ASIDE
        if group.is_initial:
            reason = "its statistics are 0 and 1, as an instance norm's stay"
            return _evidence(reason, "InstanceNorm2d")
        return _evidence("its statistics have moved", "BatchNorm2d", "InstanceNorm2d")
    if "weight" in group.values and group.values["weight"].olds[0].endswith("gamma"):
        return _evidence("gamma and beta alone", "GroupNorm", "LayerNorm")
    return _convolution_of_mindspores(group.shape("weight") or (), around)


def _convolution_of_mindspores(shape: tuple[int, ...], around: Surroundings) -> Evidence:
    if len(shape) != 4 or shape[2] != 1:
        names = _OF_AXES.get(len(shape), ()) if len(shape) != 3 else ()
        return _evidence(f"a weight of {len(shape)} axes", *names) if names else _ASIDE
    if around.second_axes and shape[3] == 1:
        return _evidence("other kernels of the state have two axes", "Conv2d")
    if not around.second_axes and around.third_axes:
        return _evidence("all kernels of the state have one axis", "Conv1d")
    return _evidence("a kernel of one row", "Conv2d", "Conv1d")


# --- shapes -------------------------------------------------------------------------------

_AXES = {"Conv1d": 3, "Conv2d": 4, "Conv3d": 5, "Linear": 2, "Embedding": 2}
_AXES |= {f"ConvTranspose{rank}d": rank + 2 for rank in (1, 2, 3)}


def fits(group: Group, kind: Kind, to: Target) -> bool:
    """Whether the entries of a group may be those of the layer."""
    names = {entry.pytorch for entry in kind.entries}
    if not all(holds_numbers(value.value) for value in group.values.values()):
        return False
    if not group.values.keys() <= names | {COUNTER}:
        return False
    shape = group.shape("weight")
    if shape is None:
        return bool(names & group.values.keys())
    if kind.pytorch in _AXES:
        if kind.extra_axis and to == "pytorch" and len(shape) == 4:
            return shape[2] == 1
        return len(shape) == _AXES[kind.pytorch]
    axes_of_norms = len(shape) >= 1 if kind.pytorch == "LayerNorm" else len(shape) == 1
    shapes = {group.shape(name) for name in group.values if name != COUNTER}
    return axes_of_norms and len(shapes) == 1


# --- gathering ---------------------------------------------------------------------------------

_PYTORCHS = ("weight", "bias", *STATISTICS_NAMES, COUNTER)
_MINDSPORES = {
    **{entry.mindspore: entry.pytorch for kind in KINDS for entry in kind.entries},
    "mean": "running_mean",
    "variance": "running_var",
}
_NAME_OF_ONE = {"w": KIND_OF["PReLU"], "embedding_table": KIND_OF["Embedding"]}
_AXES_OF_ONE = {"w": 1, "embedding_table": 2}


def grouped(state: Mapping[str, Value], to: Target, kinds: Mapping[str, Kind]) -> list[Group]:
    """Gather the entries of a state by the layers that they belong to.

    Parameters
    ----------
    state : mapping from str to Value
    to : Target
        Not the framework that the state is of.
    kinds : mapping from str to Kind
        What is known of layers, by their names.

    Returns
    -------
    list of Group
        All entries of the state, in its order.
    """
    groups: dict[str, Group] = {}
    is_mindspores = to == "pytorch"
    inside = _batch_norms_3d(state, kinds) if is_mindspores else set()
    for key, value in state.items():
        prefix, _, name = key.rpartition(".")
        meaning = _MINDSPORES.get(name) if is_mindspores else None
        if is_mindspores and prefix in inside:
            prefix = prefix.rpartition(".")[0]
        group = groups.setdefault(prefix, Group(prefix))
        if is_mindspores and prefix != key.rpartition(".")[0]:
            group.kind = KIND_OF["BatchNorm3d"]
        if name in _NAME_OF_ONE and is_mindspores:
            if len(shape_of(value.value) or ()) != _AXES_OF_ONE[name]:
                meaning = None
            else:
                group.kind = _NAME_OF_ONE[name]
        if not is_mindspores or meaning is None:
            meaning = name if name in _PYTORCHS else None
        if meaning is None:
            group.others.append(key)
        elif meaning in group.values:
            raise ValueError(f"state has both {group.values[meaning].olds[0]!r} and {key!r}")
        else:
            group.values[meaning] = value
    for group in groups.values():
        # Only an instance norm that was saved by itself calls its statistics so.
        if any(old.endswith(("mean", "variance")) and "moving_" not in old for old in group.olds):
            group.kind = KIND_OF["InstanceNorm2d"]
    return list(groups.values())


def _batch_norms_3d(state: Mapping[str, Value], kinds: Mapping[str, Kind]) -> set[str]:
    """Return the names of what is inside MindSpore's BatchNorm3d.

    A layer that a user calls bn2d has other layers beside it.
    """
    nested = {prefix for key in state if (prefix := key.rpartition(".")[0]).endswith("bn2d")}
    found = set()
    for prefix in nested:
        outer, _, name = prefix.rpartition(".")
        if name != "bn2d":
            continue
        within = f"{outer}." if outer else ""
        beside = any(k.startswith(within) and not k.startswith(f"{prefix}.") for k in state)
        if kinds.get(outer) is KIND_OF["BatchNorm3d"] or not (kinds or beside):
            found.add(prefix)
    return found
