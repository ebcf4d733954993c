"""Modules that hold others: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

import itertools
import operator
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any

from instnorm.nn.module import Module

if TYPE_CHECKING:
    from typing import Self


class _Row(Module):
    """Modules in a row, under the names '0', '1', ... unless they were given others."""

    def _set_row(self, named: Iterable[tuple[str, Module]]) -> None:
        self._modules.clear()
        for name, module in named:
            self.add_module(name, module)

    def _name_at(self, index: int) -> str:
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range for {len(self)} modules")
        return list(self._modules)[place]

    def __iter__(self) -> Iterator[Module]:
        return (module for module in self._modules.values() if module is not None)

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            part = type(self)()
            part._set_row(self._slice(index))
            return part
        return self._modules[self._name_at(index)]

    def _slice(self, index: slice) -> Iterable[tuple[str, Any]]:
        return list(self._modules.items())[index]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name_at(index), module)

    def __delitem__(self, index: int | slice) -> None:
        left = list(self)
        del left[index]
        self._set_row((str(i), module) for i, module in enumerate(left))

    def append(self, module: Module) -> Self:
        """Add a module at the end, and return the container."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end, and return the container."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put a module in front of the one at `index`."""
        if not isinstance(module, Module):
            raise TypeError(f"module must be a Module, got {type(module).__name__}")
        row = list(self)
        row.insert(index, module)
        self._set_row((str(i), m) for i, m in enumerate(row))
        return self

    def pop(self, index: int = -1) -> Module:
        """Take the module at `index` out, and return it."""
        module: Module = self[index]
        del self[index]
        return module


class Sequential(_Row):
    """Modules, each applied to the output of the one before.

    Parameters
    ----------
    *modules : Module
        Or one OrderedDict, whose keys name them.

    Examples
    --------
    >>> import instnorm
    >>> net = instnorm.nn.Sequential(instnorm.nn.Linear(4, 3), instnorm.nn.ReLU())
    >>> net
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            self._set_row(modules[0].items())
        else:
            self._set_row((str(i), module) for i, module in enumerate(modules))

    def forward(self, input: Any) -> Any:
        """Apply the modules in order."""
        for module in self:
            input = module(input)
        return input


class ModuleList(_Row):
    """A list of Modules, whose parameters are found.

    Parameters
    ----------
    modules : iterable of Module, optional

    Examples
    --------
    >>> import instnorm
    >>> layers = instnorm.nn.ModuleList([instnorm.nn.Linear(2, 2) for _ in range(3)])
    >>> len(list(layers.parameters()))
    6
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    def _slice(self, index: slice) -> Iterable[tuple[str, Any]]:
        return ((str(i), module) for i, module in enumerate(list(self)[index]))

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        """One line for each run of modules that look the same."""
        lines, start = [], 0
        for text, run in itertools.groupby(map(repr, self)):
            count = len(list(run))
            name = f"({start})" if count == 1 else f"({start}-{start + count - 1})"
            times = "" if count == 1 else f"{count} x "
            lines.append(f"{name}: {times}{text}".replace("\n", "\n  "))
            start += count
        inside = "".join(f"\n  {line}" for line in lines)
        return f"{type(self).__name__}({inside}\n)" if lines else f"{type(self).__name__}()"


class ModuleDict(Module):
    """Modules by name, whose parameters are found.

    Parameters
    ----------
    modules : mapping from str to Module, optional

    Examples
    --------
    >>> import instnorm
    >>> heads = instnorm.nn.ModuleDict({"class": instnorm.nn.Linear(4, 10)})
    >>> heads["class"](instnorm.zeros(2, 4)).shape
    (2, 10)
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add modules, in place of those of the same names."""
        for name, module in dict(modules).items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __getitem__(self, name: str) -> Any:
        return self._modules[name]

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._modules.keys()

    def values(self) -> ValuesView[Any]:
        """Return the modules."""
        return self._modules.values()

    def items(self) -> ItemsView[str, Any]:
        """Return pairs of name and module."""
        return self._modules.items()

    def pop(self, name: str) -> Any:
        """Take a module out, and return it."""
        return self._modules.pop(name)

    def clear(self) -> None:
        """Take all modules out."""
        self._modules.clear()
