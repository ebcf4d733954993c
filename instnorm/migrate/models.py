"""What a model of either framework tells of its layers: their kinds, names, and what is shared.

Modules of PyTorch, MindSpore and this package are read by what they have in common, so that no
framework has to be imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from instnorm.migrate._flavours import Flavour, Target
from instnorm.migrate.kinds import KIND_OF, Entry, Kind, joined


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a model, under one of its names.

    Attributes
    ----------
    prefix : str
    module : module
    kind : Kind or None
        None where the table has none.
    """

    prefix: str
    module: Any
    kind: Kind | None

    def holder(self) -> Any:
        """Return what has the entries as attributes."""
        inside = self.kind.inside if self.kind else ""
        return getattr(self.module, inside, self.module) if inside else self.module

    def parameter(self, name: str) -> Any:
        """Return the parameter or buffer that is registered by this name, or None."""
        holder = self.holder()
        if hasattr(holder, "_cells"):
            return getattr(holder, name, None)
        for registered in (holder._parameters, holder._buffers):
            if name in registered:
                return registered[name]
        return None

    def own_name(self, entry: Entry) -> str:
        """Return the name of an entry of a layer of MindSpore's in the state of its model."""
        assert self.kind is not None
        own = getattr(self.parameter(entry.mindspore), "name", None)
        return str(own or self.kind.key(self.prefix, entry, "mindspore"))

    def normalized_shape(self) -> tuple[int, ...]:
        """Return the shape of the parameters that a norm has or would have."""
        for name in ("num_features", "num_channels", "normalized_shape"):
            if hasattr(self.module, name):
                size = getattr(self.module, name)
                return tuple(size) if isinstance(size, tuple | list) else (int(size),)
        return ()


def framework_of(module: Any) -> str | None:
    """Return 'torch', 'mindspore', 'instnorm', or None where it is no module of these."""
    roots = {base.__module__.partition(".")[0] for base in type(module).__mro__}
    is_module = hasattr(module, "_modules") or hasattr(module, "_cells")
    known = [root for root in ("mindspore", "torch", "instnorm") if root in roots]
    return known[0] if known and is_module else None


def flavour_of(module: Any) -> Flavour:
    """Return whose names the state of a model has.

    This package has layers of both flavours: one of MindSpore's tells.
    """
    framework = framework_of(module)
    if framework is None:
        raise TypeError(
            f"model must be a module of PyTorch, MindSpore or instnorm, got {type(module).__name__}"
        )
    if framework == "instnorm":
        is_mindspores = any("nn.mindspore" in type(m).__module__ for _, m in _walk(module, ""))
        return "mindspore" if is_mindspores else "pytorch"
    return "pytorch" if framework == "torch" else "mindspore"


def layers_of(module: Any) -> list[Layer]:
    """Return the layers that have no others inside them, or are in the table.

    A layer that is shared comes under each of its names, as in PyTorch's state dicts.
    """
    return [
        Layer(prefix, inner, kind_of(inner))
        for prefix, inner in _walk(module, "")
        if kind_of(inner) or not _children(inner)
    ]


def kind_of(module: Any) -> Kind | None:
    """Return the row of the table for a module, by the first of its classes that is in it."""
    for base in type(module).__mro__:
        if base.__name__ in KIND_OF and base.__module__.partition(".")[0] in (
            "torch",
            "mindspore",
            "instnorm",
        ):
            return KIND_OF[base.__name__]
    return None


def named_modules(module: Any) -> list[tuple[str, Any]]:
    """Return all modules, the model itself first: layers of the table without what is in them."""
    return list(_walk(module, ""))


def _walk(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    yield prefix, module
    if kind_of(module) is None:
        for name, child in _children(module).items():
            yield from _walk(child, joined(prefix, name))


def _children(module: Any) -> dict[str, Any]:
    children = getattr(module, "_modules", None) or getattr(module, "_cells", None) or {}
    return {name: child for name, child in children.items() if child is not None}


def weight_norm_keys(layer: Layer) -> tuple[str, str] | None:
    """Return the names of g and v in a layer of PyTorch's with weight norm."""
    module = layer.module
    if {"weight_g", "weight_v"} <= getattr(module, "_parameters", {}).keys():
        return "weight_g", "weight_v"
    lists = getattr(getattr(module, "parametrizations", None), "_modules", {})
    if "original1" in getattr(lists.get("weight"), "_parameters", {}):
        return "parametrizations.weight.original0", "parametrizations.weight.original1"
    return None


@dataclasses.dataclass(frozen=True)
class Slot:
    """A place in the state of a model for one parameter.

    Attributes
    ----------
    key : str
        Its name by the layer's.
    own : str
        Its name in the model's own state: MindSpore's parameters that are shared have one.
    identity : int
        The same for slots of one parameter.
    """

    key: str
    own: str
    identity: int


def slots_of(module: Any, to: Target) -> list[Slot]:
    """Return the places for the parameters of all layers, by the names of `to`."""
    found = []
    is_mindspores = framework_of(module) == "mindspore"
    for layer in layers_of(module):
        if layer.kind is None:
            continue
        for entry in layer.kind.entries:
            for name in dict.fromkeys((entry.mindspore, entry.pytorch)):
                parameter = layer.parameter(name)
                if parameter is not None:
                    key = layer.kind.key(layer.prefix, entry, to)
                    own = parameter.name if is_mindspores else key
                    found.append(Slot(key, own, id(parameter)))
                    break
    return found


def state_of(module: Any) -> dict[str, Any]:
    """Return the state of a model: its own arrays or tensors, by name."""
    if framework_of(module) == "mindspore":
        return dict(module.parameters_dict())
    return dict(module.state_dict())
