"""Renaming the entries of instance norms in the state of a whole model, for the other framework.

The names, for a layer at ``block.norm``::

    PyTorch                            MindSpore
    block.norm.weight                  block.norm.gamma
    block.norm.bias                    block.norm.beta
    block.norm.running_mean            block.norm.moving_mean
    block.norm.running_var             block.norm.moving_variance
    block.norm.num_batches_tracked     -

MindSpore calls the statistics of a layer by itself ``mean`` and ``variance``; inside a
network they take the attributes' names. Both are read.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instnorm.migrate._flavours import (
    Flavour,
    RunningStats,
    check_choice,
    comparable,
    is_filled,
    is_torchs,
    listed,
    refusal,
)

# What both flavours have, by PyTorch's names, and what MindSpore calls it.
_PYTORCH = {name: name for name in ("weight", "bias", "running_mean", "running_var")}
_MINDSPORE_ALONE = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "mean",
    "running_var": "variance",
}
_MINDSPORE_NESTED = {
    **_MINDSPORE_ALONE,
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_COUNTER = "num_batches_tracked"

# The values that a new layer has.
_INITIAL = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
_STATISTICS = ("running_mean", "running_var")


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of one entry.

    Attributes
    ----------
    old, new : str or None
        Its names; None where it is new, or was left out.
    """

    old: str | None
    new: str | None


class Converted(NamedTuple):
    """What `state_dict` returns: the new state, and what is different in it."""

    state: dict[str, Any]
    changes: list[Change]


def state_dict(
    state: Mapping[str, Any],
    to: Flavour,
    *,
    model: Any = None,
    norms: Sequence[str] = (),
    others: Sequence[str] = (),
    running_stats: RunningStats = "refuse",
) -> Converted:
    """Rename the entries of instance norms in a state dict.

    A state dict carries no types, and the entries of an instance norm look like those
    of a batch, layer or group norm. Which entries belong to instance norms is therefore
    told by `model` or by `norms` and `others`; what neither decides is refused, never
    guessed. Entries that cannot be an instance norm's, such as the weight and bias of
    a convolution, are not in question. Where the state is that of one layer, its names
    without any dot, it is taken for an instance norm. Other norms keep their names, even
    where MindSpore has others for them.

    Parameters
    ----------
    state : mapping from str to array
        Of the flavour that `to` is not. Values are passed on as they are.
    to : {'mindspore', 'pytorch'}
    model : module, optional
        Of PyTorch, MindSpore or instnorm, with the layers' names as in `state`: its
        instance norms are those of the state. Norms of the model that have no state,
        because they are not affine, get the one that MindSpore gives a new layer.
    norms : sequence of str, optional
        Names of layers that are instance norms, such as ``'block1.norm'``. Wildcards
        (``*``, ``?``, ``[...]``) match only layers that have all entries of an
        instance norm: a weight alone may be that of a PReLU, and has to be named.
    others : sequence of str, optional
        Names of layers that are none; wildcards as above.
    running_stats : {'refuse', 'drop', 'keep'}, default 'refuse'
        As for `layer`. Without 'keep', MindSpore's statistics start at 0 and 1.

    Returns
    -------
    state : dict from str to array
        In the order of `state`.
    changes : list of Change

    Raises
    ------
    ValueError
        If it is not clear what belongs to an instance norm, there are running
        statistics and `running_stats` is 'refuse', `norms` names what cannot be an
        instance norm, or a new name is taken.

    Examples
    --------
    >>> import numpy as np, instnorm.convert
    >>> state = {
    ...     "0.weight": np.zeros((2, 1, 3, 3)), "0.bias": np.zeros(2),
    ...     "1.weight": np.ones(2), "1.bias": np.zeros(2),
    ... }
    >>> converted = instnorm.convert.state_dict(state, to="mindspore", norms=["1"])
    >>> list(converted.state)
    ['0.weight', '0.bias', '1.gamma', '1.beta', '1.moving_mean', '1.moving_variance']
    >>> converted.changes[0]
    Change(old='1.weight', new='1.gamma')
    """
    check_choice("to", to, Flavour)
    check_choice("running_stats", running_stats, RunningStats)
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, got {type(state).__name__}")
    candidates = {group.prefix: group for group in _groups(state, to) if group.is_candidate}
    if model is None:
        is_one_layer = list(candidates) == [""] and len(candidates[""].keys) == len(state)
        chosen = _chosen_by_patterns(candidates, to, norms, others, is_one_layer)
        stateless: dict[str, int] = {}
    else:
        if norms or others:
            raise ValueError("norms and others have no use beside model, which tells it all")
        chosen, stateless = _chosen_by_model(candidates, model, to)
    if running_stats == "refuse":
        _check_running_stats([group for group in chosen.values() if group.has_stats(to)], to)
    group_of = {key: group for group in chosen.values() for key in group.keys.values()}
    new = _NewState(to)
    for key, value in state.items():
        if key not in group_of:
            new.add(key, value)
        elif key == next(iter(group_of[key].keys.values())):  # all of a layer at its first entry
            new.move(group_of[key], running_stats == "keep")
    for prefix, channels in stateless.items():
        for name, fill in _INITIAL.items():
            new.rename(None, prefix, name, np.full(channels, fill, np.float32))
    return Converted(new.state, new.changes)


@dataclasses.dataclass
class _Group:
    """The entries of one layer.

    `keys` has PyTorch's names for what the keys of the state hold.
    """

    prefix: str
    keys: dict[str, str]
    values: dict[str, Any]

    @property
    def is_candidate(self) -> bool:
        """Whether names, shapes and dtypes may be an instance norm's."""
        if not all(_holds_numbers(value) for value in self.values.values()):
            return False
        shapes = {_shape(v) for name, v in self.values.items() if name != _COUNTER}
        return (
            len(shapes) == 1
            and len(next(iter(shapes)) or ()) == 1
            and ("weight" in self.keys or self.keys.keys() >= set(_STATISTICS))
        )

    def is_complete(self, to: Flavour) -> bool:
        """Whether there is all that an instance norm of this flavour may have."""
        both = self.keys.keys() >= {"weight", "bias"}
        tracked = self.keys.keys() >= set(_STATISTICS)
        return (both and tracked) if to == "pytorch" else (both or tracked)

    def has_stats(self, to: Flavour) -> bool:
        """Whether there are running statistics that matter."""
        found = [name for name in _STATISTICS if name in self.keys]
        if to == "mindspore":
            return bool(found)
        return any(not is_filled(self.values[name], _INITIAL[name]) for name in found)


def _groups(state: Mapping[str, Any], to: Flavour) -> Iterator[_Group]:
    """Gather what has the names of the flavour that `to` is not."""
    if to == "mindspore":
        meanings = {**_PYTORCH, _COUNTER: _COUNTER}
    else:
        names = (*_MINDSPORE_ALONE.items(), *_MINDSPORE_NESTED.items())
        meanings = {theirs: ours for ours, theirs in names}
    groups: dict[str, _Group] = {}
    for key, value in state.items():
        prefix, _, name = str(key).rpartition(".")
        if name in meanings:
            group = groups.setdefault(prefix, _Group(prefix, {}, {}))
            meaning = meanings[name]
            if meaning in group.keys:
                raise ValueError(f"state has both {group.keys[meaning]!r} and {key!r}")
            group.keys[meaning] = key
            group.values[meaning] = value
    yield from groups.values()


# --- which layers are instance norms -----------------------------------------------------


def _chosen_by_patterns(
    candidates: dict[str, _Group],
    to: Flavour,
    norms: Sequence[str],
    others: Sequence[str],
    is_one_layer: bool,
) -> dict[str, _Group]:
    if is_one_layer and not (norms or others):
        return candidates
    for pattern in norms:
        if pattern not in candidates and not fnmatch.filter(candidates, pattern):
            raise ValueError(
                f"norms: {pattern!r} fits no layer that can be an instance norm; "
                f"such layers are {listed([repr(name) for name in candidates])}"
            )
    chosen, unclear = {}, []
    for prefix, group in candidates.items():
        if prefix in norms or (group.is_complete(to) and _matches(prefix, norms)):
            chosen[prefix] = group
        elif not _matches(prefix, others):
            unclear.append(group)
    if unclear:
        raise ValueError(_question(unclear))
    return chosen


def _matches(prefix: str, patterns: Sequence[str]) -> bool:
    return any(prefix == pattern or fnmatch.fnmatchcase(prefix, pattern) for pattern in patterns)


def _question(unclear: list[_Group]) -> str:
    keys = [key for group in unclear for key in group.keys.values()]
    return (
        f"cannot tell whether these are an instance norm's: {listed(keys)}. Batch, layer and "
        "group norms have the same names, and a PReLU has a weight alone. Tell which layers are "
        "instance norms by model= or norms= (--norms; '*' where the model has no other norm), "
        "and which are not by others= (--others). A layer without all of an instance norm's "
        "entries has to be named in full"
    )


def _chosen_by_model(
    candidates: dict[str, _Group], model: Any, to: Flavour
) -> tuple[dict[str, _Group], dict[str, int]]:
    """Return the groups of the model's norms, and num_features of those that have none."""
    norms = dict(_norms_of(model))
    if not norms:
        raise ValueError(f"model: {type(model).__name__} has no instance norm")
    stateless = {prefix: norm for prefix, norm in norms.items() if prefix not in candidates}
    own_weight = "weight" if to == "mindspore" else "gamma"
    missing = [p for p, norm in stateless.items() if getattr(norm, own_weight, None) is not None]
    if missing:
        raise ValueError(f"the state has no entries of the model's {listed(missing)}")
    return (
        {prefix: group for prefix, group in candidates.items() if prefix in norms},
        {p: int(norm.num_features) for p, norm in stateless.items() if to == "mindspore"},
    )


def _norms_of(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the instance norms of PyTorch's, MindSpore's or instnorm's modules.

    By the name of their base class, which is the same in all three; so none has to be
    imported. A layer that is shared comes under each of its names, as in the state.
    """
    children = getattr(module, "_modules", None) or getattr(module, "_cells", None) or {}
    if any(base.__name__ == "_InstanceNorm" for base in type(module).__mro__):
        yield prefix, module
    for name, child in children.items():
        if child is not None:
            yield from _norms_of(child, f"{prefix}.{name}" if prefix else name)


def _check_running_stats(groups: list[_Group], to: Flavour) -> None:
    if groups:
        keys = [group.keys[name] for group in groups for name in _STATISTICS if name in group.keys]
        raise ValueError(refusal(to, keys))


# --- the new state ------------------------------------------------------------------------


class _NewState:
    """The state that is being made, and what is different in it."""

    def __init__(self, to: Flavour) -> None:
        self.state: dict[str, Any] = {}
        self.changes: list[Change] = []
        self._to = to

    def add(self, key: str, value: Any) -> None:
        """Take an entry in, as it is."""
        if key in self.state:
            raise ValueError(f"the new name {key!r} is taken by another entry of the state")
        self.state[key] = value

    def rename(self, old: str | None, prefix: str, name: str, value: Any) -> None:
        """Take an entry of an instance norm in, an old one or a new one."""
        key = _key(prefix, name, self._to)
        self.add(key, value)
        self.changes.append(Change(old, key))

    def move(self, group: _Group, keep_stats: bool) -> None:
        """Take a layer's entries in, and create what the other flavour has besides."""
        kept = set(_INITIAL) if keep_stats else {"weight", "bias"}
        for name, key in group.keys.items():
            if name in kept:
                self.rename(key, group.prefix, name, group.values[name])
            else:
                self.changes.append(Change(key, None))
        example = next(iter(group.values.values()))
        if self._to == "mindspore":
            for name, fill in _INITIAL.items():
                if name not in kept or name not in group.keys:
                    self.rename(None, group.prefix, name, _filled_like(example, fill))
        elif keep_stats:
            self.rename(None, group.prefix, _COUNTER, np.zeros((), np.int64))


def _key(prefix: str, name: str, to: Flavour) -> str:
    if to == "mindspore":
        name = (_MINDSPORE_NESTED if prefix else _MINDSPORE_ALONE)[name]
    return f"{prefix}.{name}" if prefix else name


def _shape(value: Any) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def _holds_numbers(value: Any) -> bool:
    """Whether this is no array of text, times, records or raw bytes."""
    dtype = getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype):
        return True
    return dtype.kind not in "SUMm" and dtype.type is not np.void


def _filled_like(value: Any, fill: float) -> Any:
    if is_torchs(value):
        return value.detach().new_full(tuple(value.shape), fill)
    array = comparable(value)
    return np.full(array.shape, fill, array.dtype)
