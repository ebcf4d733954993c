"""The state of a whole model, in the names and shapes of the other framework.

Which entries belong to which layer of the table (`kinds`) is told by a model, by the caller, or by
the entries themselves (`evidence`): `choices` decides. What is then written is decided here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from instnorm.migrate import values
from instnorm.migrate._flavours import (
    RunningStats,
    Target,
    check_choice,
    is_filled,
    listed,
    refusal,
)
from instnorm.migrate.choices import Choice, Known, choices_by_model, choices_by_names, known_layers
from instnorm.migrate.evidence import STATISTICS_NAMES, Group, Value, grouped
from instnorm.migrate.kinds import COUNTER, Entry, joined
from instnorm.migrate.models import (
    flavour_of,
    layers_of,
    slots_of,
    state_of,
    weight_norm_keys,
)


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of one entry.

    Attributes
    ----------
    old, new : str or None
        Its names; None where it is new, or was left out. They are the same where only the shape
        is another.
    why : str
    """

    old: str | None
    new: str | None
    why: str = dataclasses.field(default="", compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a layer was taken for.

    Attributes
    ----------
    prefix : str
        Its name in the model.
    layer : str
        The class, or all that it may be where these are written alike; empty where it is none of
        the table and keeps its names.
    why : str
        What told so.
    """

    prefix: str
    layer: str
    why: str


class _StateAndChanges(NamedTuple):
    state: dict[str, Any]
    changes: list[Change]


class Converted(_StateAndChanges):
    """What `state_dict` returns: a pair of the new state and what is different in it.

    Attributes
    ----------
    state : dict from str to array
    changes : list of Change
    decisions : list of Decision
        What each layer was taken for.
    unfound : list of str
        What a model of the other framework will not find in the state. MindSpore keeps its
        initial values for these, and tells only in what ``load_param_into_net`` returns.
    unused : list of str
        What the model of the other framework, where one was given, has no place for.
    """

    decisions: list[Decision]
    unfound: list[str]
    unused: list[str]


def state_dict(
    state: Mapping[str, Any],
    to: Target,
    *,
    model: Any = None,
    layers: Mapping[str, str] | None = None,
    norms: Sequence[str] = (),
    others: Sequence[str] = (),
    running_stats: RunningStats = "refuse",
) -> Converted:
    """Give the entries of a state dict the names and shapes of the other framework.

    A state dict carries no types. They are told by `model`, by `layers`, or by names, shapes and
    values where these say enough: where all layers that an entry may belong to are written alike.
    What stays ambiguous is refused by name, never guessed. What no layer of the table has keeps
    its name. Weight norm is computed: MindSpore has its result, ``weight``.

    Parameters
    ----------
    state : mapping from str to array
        Of the framework that `to` is not. Values are passed on as they are, but for weights of
        one-dimensional convolutions and those with weight norm.
    to : {'mindspore', 'mindspore.mint', 'pytorch'}
        Whose names to write. `mindspore.mint.nn` has PyTorch's, but no instance norm.
    model : module, or a sequence of one of each framework, optional
        Of PyTorch, MindSpore or instnorm, with the layers' names as in `state`. The one that
        `state` comes from tells the layers, and which have no state because they are not affine.
        The other's tells the layers, which entries it wants, and of what shape.
    layers : mapping from str to str, optional
        Classes of layers by name, such as ``{'body.2': 'PReLU', 'norm*': 'InstanceNorm'}``; 'keep'
        leaves the names of a layer as they are. Wildcards (``*``, ``?``, ``[...]``) speak of layers
        that may be of the class.
    norms : sequence of str, optional
        Names of layers that are instance norms, as in `layers`. Nothing else is one then.
        Wildcards match only layers that have all entries of an instance norm.
    others : sequence of str, optional
        Names of layers to leave as they are: 'keep' in `layers`.
    running_stats : {'refuse', 'drop', 'keep'}, default 'refuse'
        What to do with running statistics of instance norms, which PyTorch uses in evaluation and
        MindSpore ignores. Without 'keep', MindSpore's statistics start at 0 and 1. Where they may
        be a batch norm's, which needs them, 'drop' keeps them too.

    Returns
    -------
    Converted
        Unpacks to `state`, a dict in the old one's order, and `changes`, a list of Change.

    Raises
    ------
    ValueError
        If it is not clear what entries belong to, running statistics are to be refused, a layer
        cannot be what it is said to be, a name is taken, or a shape is not that of the model.

    Examples
    --------
    >>> import numpy as np, instnorm.convert
    >>> state = {
    ...     "0.weight": np.zeros((2, 1, 3)), "0.bias": np.zeros(2),
    ...     "1.weight": np.ones(2), "1.bias": np.zeros(2),
    ... }
    >>> converted = instnorm.convert.state_dict(state, to="mindspore", norms=["1"])
    >>> list(converted.state)
    ['0.weight', '0.bias', '1.gamma', '1.beta', '1.moving_mean', '1.moving_variance']
    >>> converted.state["0.weight"].shape
    (2, 1, 1, 3)
    >>> converted.changes[1]
    Change(old='1.weight', new='1.gamma')
    """
    check_choice("to", to, Target)
    check_choice("running_stats", running_stats, RunningStats)
    _check_state(state)
    if model is not None and (layers or norms or others):
        raise ValueError("layers, norms and others have no use beside model, which tells it all")
    source, target = _source_and_target(model, to)
    folded = _with_weights_computed(state) if to != "pytorch" else _as_values(state)
    known = known_layers(source, to) if source is not None else {}
    known |= known_layers(target, to) if target is not None else {}
    groups = grouped(folded, to, {prefix: layer.kind for prefix, layer in known.items()})
    if known:
        choices = choices_by_model(groups, known, to)
    else:
        choices = choices_by_names(groups, to, layers or {}, norms, others)
    if running_stats == "refuse":
        _check_running_stats(groups, choices, to)
    if source is not None:
        _check_whole(folded, source)
    new = _NewState(to, keep_stats=running_stats == "keep")
    new.take_all(folded, groups, choices)
    if source is not None:
        new.complete(source, known)
    if target is None and source is not None and to == "pytorch":
        new.leave_out_what_is_not_learned(source)
    if target is None:
        unfound = [key for key in _results_of_others(state) if key not in new.state]
        return new.result(groups, choices, unfound, [])
    new.share(target)
    return new.result(groups, choices, *new.fit(target))


def _source_and_target(model: Any, to: Target) -> tuple[Any, Any]:
    """Tell which model the state is of, and which it is for."""
    models = model if isinstance(model, list | tuple) else [] if model is None else [model]
    source = target = None
    for one in models:
        if (flavour_of(one) == "pytorch") == (to == "pytorch"):
            target = one if target is None else _raise_two()
        else:
            source = one if source is None else _raise_two()
    return source, target


def _raise_two() -> NoReturn:
    raise ValueError("model: there are two of one framework, expected one of each")


def _check_state(state: Any) -> None:
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, got {type(state).__name__}")
    for key in state:
        if not isinstance(key, str):
            raise TypeError(f"state must have names that are str, got {type(key).__name__}")


def _check_whole(folded: Mapping[str, Value], source: Any) -> None:
    """Refuse a state that has not all that its model has."""
    by_identity: dict[int, list[str]] = {}
    for slot in slots_of(source, flavour_of(source)):
        by_identity.setdefault(slot.identity, []).append(slot.own)
    missing = [keys[0] for keys in by_identity.values() if not set(keys) & folded.keys()]
    if missing:
        hint = ""
        for prefix in ("module.", "_orig_mod."):
            if all(key.startswith(prefix) for key in folded):
                hint = f"; all its names begin with {prefix!r}, which a wrapper of a model adds"
        raise ValueError(f"the state has no entries of the model's {listed(missing)}{hint}")


def _check_running_stats(groups: list[Group], choices: Mapping[str, Choice], to: Target) -> None:
    with_stats = [group for group in groups if group.statistics]
    certain, unclear = [], []
    for group in with_stats:
        choice = choices[group.prefix]
        if not choice.kinds:
            continue
        matters = to != "pytorch" or not group.is_initial
        if matters and choice.is_instance_norm:
            certain += group.statistics
        elif choice.may_be_instance_norm and to != "pytorch":
            unclear += group.statistics
    if certain:
        raise ValueError(refusal(to, certain))
    if unclear:
        raise ValueError(
            f"cannot tell whose running statistics these are: {listed(unclear)}. A batch norm "
            "needs them; an instance norm's are ignored by MindSpore, which normalizes by the "
            "input's own in evaluation too. Say running_stats='keep' (--running-stats keep), with "
            "which a batch norm is right and an instance norm has them for nothing, or tell the "
            "layers by model= (--model) or layers= (--layer NAME=BatchNorm2d)"
        )


# --- weight norm ---------------------------------------------------------------------------


def _as_values(state: Mapping[str, Any]) -> dict[str, Value]:
    return {key: Value((key,), value) for key, value in state.items()}


def _with_weights_computed(state: Mapping[str, Any]) -> dict[str, Value]:
    """Replace what weight norm has learned by the weight that it computes."""
    folded: dict[str, Value] = {}
    taken: set[str] = set()
    for key, value in state.items():
        name, partners = _weight_normed(key)
        g, v = (state.get(partner) for partner in partners) if partners else (None, None)
        if g is None or v is None or not values.is_normed(g, v):
            folded[key] = Value((key,), value)
        elif key not in taken:
            if name in state:
                raise ValueError(f"the new name {name!r} is taken by another entry of the state")
            folded[name] = Value(partners, values.product(g, v))
            taken |= set(partners)
    return folded


def _weight_normed(key: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the weight, and those of g and v, if the key may be one of these."""
    prefix, _, last = key.rpartition(".")
    if last in ("original0", "original1"):
        outer, _, name = prefix.rpartition(".")
        if outer.rpartition(".")[2] == "parametrizations":
            layer = outer.removesuffix("parametrizations").removesuffix(".")
            return joined(layer, name), (f"{prefix}.original0", f"{prefix}.original1")
    if key.endswith(("_g", "_v")):
        return key[:-2], (f"{key[:-2]}_g", f"{key[:-2]}_v")
    return key, ()


def _results_of_others(state: Mapping[str, Any]) -> list[str]:
    """Return what spectral norm, pruning and other parametrizations compute from the entries.

    MindSpore has none of these, and looks for the result.
    """
    names = []
    for key in state:
        prefix, _, last = key.rpartition(".")
        plain = key.removesuffix("_orig")
        if plain != key and (f"{plain}_u" in state or f"{plain}_mask" in state):
            names.append(plain)
        elif last == "original" and ".parametrizations." in f".{prefix}":
            outer, _, name = prefix.rpartition(".")
            names.append(joined(outer.removesuffix("parametrizations").removesuffix("."), name))
    return names


# --- the new state ------------------------------------------------------------------------


class _NewState:
    """The state that is being made, and what is different in it."""

    def __init__(self, to: Target, *, keep_stats: bool) -> None:
        self.state: dict[str, Any] = {}
        self.changes: list[Change] = []
        self._to = to
        self._keep_stats = keep_stats
        self._olds: dict[str, tuple[str, ...]] = {}

    def take_all(
        self, folded: Mapping[str, Value], groups: list[Group], choices: Mapping[str, Choice]
    ) -> None:
        """Take all entries in, those of a layer at its first."""
        group_of = {old: group for group in groups for old in group.olds}
        done = set()
        for key, value in folded.items():
            group = group_of.get(value.olds[0])
            if group is None or not choices[group.prefix].kinds:
                self.add(key, value.value, value.olds)
            elif group.prefix not in done:
                done.add(group.prefix)
                self._move(group, choices[group.prefix])

    def add(
        self, key: str, value: Any, olds: tuple[str, ...], why: str = "", reshaped: bool = False
    ) -> None:
        """Take an entry in; `olds` is empty for one that is new."""
        if key in self.state:
            raise ValueError(f"the new name {key!r} is taken by another entry of the state")
        self.state[key] = value
        self._olds[key] = olds
        if olds != (key,) or reshaped:
            self.changes += [Change(old, key, why) for old in olds or (None,)]

    def drop(self, key: str, why: str) -> None:
        """Take an entry out again."""
        del self.state[key]
        self.changes = [change for change in self.changes if change.new != key]
        self.changes += [Change(old, None, why) for old in self._olds.pop(key)]

    def _move(self, group: Group, choice: Choice) -> None:
        """Take a layer's entries in, and create what the other framework has besides."""
        kind, target = choice.kinds[0], choice.target
        entries = {entry.pytorch: entry for entry in kind.entries}
        keeps = self._keep_stats or not choice.is_instance_norm
        for name, (olds, value) in group.values.items():
            if name == COUNTER and not (keeps and kind.keeps_pytorchs(target)):
                self.changes.append(Change(olds[0], None, "MindSpore has none"))
            elif name == COUNTER:
                self.add(olds[0], value, olds)
            elif name in STATISTICS_NAMES and not keeps:
                self.changes.append(
                    Change(olds[0], None, "an instance norm's, which MindSpore ignores")
                )
            else:
                self._add_entry(entries[name], group, choice)
        example = next(value for name, (_, value) in group.values.items() if name != COUNTER)
        for key, fill in self._fills(group, choice):
            if key not in self.state:
                self.add(key, values.filled_like(example, fill), (), "PyTorch's layer has none")
        has_stats = keeps and group.statistics and COUNTER not in group.values
        if self._to == "pytorch" and has_stats:
            key = joined(group.prefix, COUNTER)
            self.add(key, np.zeros((), np.int64), (), "MindSpore has none")

    def _add_entry(self, entry: Entry, group: Group, choice: Choice) -> None:
        kind = choice.kinds[0]
        olds, value = group.values[entry.pytorch]
        shape = values.shape_of(value) or ()
        reshape = None
        if kind.adds_axis(entry, choice.target):
            reshape = values.with_axis
        elif kind.extra_axis and entry.pytorch == "weight" and len(shape) == 4:
            reshape = values.without_axis
        if reshape is not None:
            value = reshape(value)
        why = f"{shape} -> {values.shape_of(value)}" if reshape else ""
        if len(olds) > 1:
            why = "g v / norm(v), weight norm"
        key = kind.key(group.prefix, entry, choice.target)
        self.add(key, value, olds, why, reshaped=reshape is not None)

    def _fills(self, group: Group, choice: Choice) -> list[tuple[str, float]]:
        found = []
        for kind in choice.kinds:
            for entry in kind.entries:
                fill = kind.fill(entry, choice.target)
                if fill is not None:
                    found.append((kind.key(group.prefix, entry, choice.target), fill))
        return found

    def complete(self, source: Any, known: Mapping[str, Known]) -> None:
        """Add what MindSpore's layers have and PyTorch's have not, or not under this name."""
        self.share(source)
        for layer in layers_of(source) if self._to != "pytorch" else ():
            for entry in layer.kind.entries if layer.kind else ():
                target = known[layer.prefix].target
                key = known[layer.prefix].kind.key(layer.prefix, entry, target)
                fill = known[layer.prefix].kind.fill(entry, target)
                if fill is not None and key not in self.state:
                    array = np.full(layer.normalized_shape(), fill, np.float32)
                    self.add(key, array, (), "PyTorch's layer has none")

    def leave_out_what_is_not_learned(self, source: Any) -> None:
        """Drop the scale 1 and the shift 0 of MindSpore's norms that are not affine."""
        for layer in layers_of(source):
            entries = layer.kind.entries if layer.kind else ()
            scales = [
                e for e in entries if e.fill is not None and e.pytorch not in STATISTICS_NAMES
            ]
            keys = {joined(layer.prefix, entry.pytorch): entry for entry in scales}
            if all(
                key in self.state
                and not getattr(layer.parameter(entry.mindspore), "requires_grad", True)
                and is_filled(self.state[key], entry.fill or 0.0)
                for key, entry in keys.items()
            ):
                for key in keys:
                    self.drop(key, "not affine in the model")

    def share(self, model: Any) -> None:
        """Give parameters that the model has in several places all their names.

        MindSpore's state has one of them: where the model is MindSpore's, that is known.
        """
        by_identity: dict[int, list[Any]] = {}
        for slot in slots_of(model, self._to):
            by_identity.setdefault(slot.identity, []).append(slot)
        for slots in by_identity.values():
            present = [slot.key for slot in slots if slot.key in self.state]
            if not present or len(slots) == 1:
                continue
            if flavour_of(model) == "pytorch" or self._to == "pytorch":
                for slot in slots:
                    if slot.key not in self.state:
                        self._repeat(present[0], slot.key)
                continue
            own = slots[0].own
            if own not in self.state:
                self.add(own, self.state[present[0]], self._olds[present[0]])
            for key in present:
                if key != own:
                    self.drop(key, f"the same as {own}")

    def _repeat(self, key: str, other: str) -> None:
        """Take an entry in under another name as well."""
        why = f"the same as {key}"
        self.add(other, self.state[key], (), why)
        if self._to == "pytorch" and other.endswith(STATISTICS_NAMES[0]):
            counter = joined(other.rpartition(".")[0], COUNTER)
            if counter not in self.state:
                self.add(counter, np.zeros((), np.int64), (), why)

    def fit(self, model: Any) -> tuple[list[str], list[str]]:
        """Compare with what the model wants; return what it will not find, and has no place for.

        Raises
        ------
        ValueError
            If a shape is another.
        """
        wanted = state_of(model)
        if self._to == "pytorch":
            self._undo_weight_norm(model, wanted)
        else:
            self._fill_in(model, wanted)
        self._leave_out(wanted)
        for key, value in self.state.items():
            shapes = [values.shape_of(v) for v in (value, wanted.get(key, value))]
            if shapes[0] != shapes[1]:
                raise ValueError(f"{key} has shape {shapes[0]}, and the model's has {shapes[1]}")
        unused = [key for key in self.state if key not in wanted]
        if self._to != "pytorch" and not unused:
            self._fill_norms_without_a_state(model)
        return [key for key in wanted if key not in self.state], unused

    def _fill_norms_without_a_state(self, model: Any) -> None:
        """Create the scale 1 and shift 0 of instance norms of which the state has nothing.

        They are not affine in PyTorch, where that is the default. A norm of another name would
        have left entries that the model has no place for.
        """
        for layer in layers_of(model):
            if layer.kind is None or not layer.kind.is_instance_norm:
                continue
            scales = {
                layer.own_name(entry): entry
                for entry in layer.kind.entries
                if entry.pytorch not in STATISTICS_NAMES
            }
            if not scales.keys() & self.state.keys():
                for key, entry in scales.items():
                    array = np.full(layer.normalized_shape(), entry.fill, np.float32)
                    self.add(key, array, (), "not affine in PyTorch: the state has nothing of it")

    def _undo_weight_norm(self, model: Any, wanted: Mapping[str, Any]) -> None:
        for layer in layers_of(model):
            keys = weight_norm_keys(layer)
            weight = joined(layer.prefix, "weight")
            if keys is None or weight not in self.state:
                continue
            g, v = (joined(layer.prefix, key) for key in keys)
            value, olds = self.state[weight], self._olds[weight]
            self.drop(weight, "")
            self.changes = [change for change in self.changes if change.old not in olds]
            self.add(g, values.length(value, values.shape_of(wanted[g]) or ()), olds, "norm(v)")
            self.add(v, value, olds, "weight norm")

    def _fill_in(self, model: Any, wanted: Mapping[str, Any]) -> None:
        """Create what MindSpore's layers have and never change."""
        for layer in layers_of(model):
            if (kind := layer.kind) is None:
                continue
            for entry in kind.entries:
                parameter = layer.parameter(entry.mindspore)
                key = layer.own_name(entry)
                if key in self.state or key not in wanted or entry.fill is None:
                    continue
                is_statistic = entry.pytorch in STATISTICS_NAMES
                is_fixed = kind.is_instance_norm if is_statistic else not parameter.requires_grad
                if is_fixed:
                    array = np.full(values.shape_of(parameter) or (), entry.fill, np.float32)
                    self.add(key, array, (), "MindSpore's layer does not change it")

    def _leave_out(self, wanted: Mapping[str, Any]) -> None:
        """Drop what changes nothing: the scale 1 and shift 0 of a layer that is not affine."""
        for key in [key for key in self.state if key not in wanted]:
            name = key.rpartition(".")[2]
            fill = {"weight": 1.0, "gamma": 1.0, "bias": 0.0, "beta": 0.0}.get(name)
            if fill is not None and is_filled(self.state[key], fill):
                self.drop(key, f"{fill:g} throughout, and the model has none")
            elif name == COUNTER:
                self.drop(key, "the model has none")

    def result(
        self,
        groups: list[Group],
        choices: Mapping[str, Choice],
        unfound: list[str],
        unused: list[str],
    ) -> Converted:
        converted = Converted(self.state, self.changes)
        converted.decisions = [
            Decision(group.prefix, choices[group.prefix].label, choices[group.prefix].reason)
            for group in groups
            if group.values
        ] + [Decision(key, "", "no layer of the table") for g in groups for key in g.others]
        converted.unfound = unfound
        converted.unused = unused
        return converted
