"""Statistics of a model's norms over tiles of an input: collected, and then used for each tile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from torch import nn

from instnorm.bridge.torch import modules
from instnorm.bridge.torch.replacement import converted
from instnorm.statistics import Statistics


@contextlib.contextmanager
def collect_statistics(model: nn.Module) -> Iterator[dict[str, Statistics]]:
    """Add up the statistics of what each converted norm of a model is given, in a ``with`` block.

    Parameters
    ----------
    model : torch.nn.Module
        A converted model. It computes as it would outside the block.

    Yields
    ------
    dict from str to Statistics
        For each name in `converted(model)`, of all inputs since the block began.

    Raises
    ------
    TypeError
        If `model` is no module.
    ValueError
        If no norm of the model is converted.

    See Also
    --------
    fixed_statistics : normalize by them.

    Examples
    --------
    >>> import torch
    >>> from instnorm.bridge.torch import collect_statistics, convert, fixed_statistics
    >>> model = convert(torch.nn.Sequential(torch.nn.InstanceNorm2d(3)))
    >>> image = torch.rand(1, 3, 8, 8)
    >>> tiles = image.split(4, dim=3)
    >>> with collect_statistics(model) as s:
    ...     for tile in tiles:
    ...         _ = model(tile)
    >>> with fixed_statistics(model, s):
    ...     y = torch.cat([model(tile) for tile in tiles], dim=3)
    >>> torch.allclose(y, model(image), atol=1e-5)
    True
    """
    found = {name: Statistics() for name in _names(model)}
    with _entries(model, modules.COLLECTED, found):
        yield found


@contextlib.contextmanager
def fixed_statistics(model: nn.Module, statistics: Mapping[str, Statistics]) -> Iterator[None]:
    """Normalize by statistics that are given, in a ``with`` block, instead of the input's own.

    A model's first norm is exact then for a whole image in tiles. Where it has several, the input
    of each depends on those before it: collect under the statistics of the round before, and after
    k rounds the first k are exact, up to what convolutions see beyond a tile's border.

    Parameters
    ----------
    model : torch.nn.Module
        A converted model.
    statistics : mapping from str to Statistics
        What `collect_statistics` gave for this model, of as many samples as the input has, or one.

    Raises
    ------
    TypeError
        If `model` is no module.
    ValueError
        If the names are not those of the converted norms, or nothing was collected for one.
    """
    names = _names(model)
    if set(statistics) != set(names):
        raise ValueError(
            f"statistics has the names {sorted(statistics)}, expected those of the converted "
            f"norms, {sorted(names)}"
        )
    for name, collected in statistics.items():
        if not collected.count.size:
            raise ValueError(f"statistics[{name!r}] is empty: the norm was given nothing")
    with _entries(model, modules.FIXED, statistics):
        yield


def _names(model: nn.Module) -> list[str]:
    names = converted(model)
    if not names:
        raise ValueError("the model has no converted norm: expected convert(model) first")
    return names


@contextlib.contextmanager
def _entries(model: nn.Module, key: str, statistics: Mapping[str, Statistics]) -> Iterator[None]:
    norms = {name: model.get_submodule(name).__dict__ for name in statistics}
    before = {name: entries.get(key) for name, entries in norms.items()}
    for name, entries in norms.items():
        entries[key] = statistics[name]
    try:
        yield
    finally:
        for name, entries in norms.items():
            entries[key] = before[name]
            if before[name] is None:
                del entries[key]
