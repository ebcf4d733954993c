"""`convert`, `revert` and `converted`: a whole network's instance norms, in place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from mindspore import nn, ops
from mindspore.rewrite.common import namespace

from instnorm.bridge.mindspore import fusion, modules
from instnorm.bridge.mindspore.operators import InstanceNorm, Options

_OURS = {
    nn.InstanceNorm1d: modules.InstanceNorm1d,
    nn.InstanceNorm2d: modules.InstanceNorm2d,
    nn.InstanceNorm3d: modules.InstanceNorm3d,
}
# `amp.auto_mixed_precision` rewrites the code of the cells of a network, but for these: what it
# makes of a class with two bases has no constructor that it could call.
namespace._subtree_black_list.extend((modules.Layer, fusion.Absorbed))
_MINDSPORES = {ours: mindspores for mindspores, ours in _OURS.items()}


def convert(net: Any, *, fuse_activation: bool = False) -> Any:
    """Make every instance norm of MindSpore in `net` one of this package, in place.

    The layers stay the same objects: parameters, their names, hooks and training flags
    are untouched. Subclasses of MindSpore's layers are left as they are, but for those that
    `mindspore.amp.auto_mixed_precision` makes of them.

    Parameters
    ----------
    net : mindspore.nn.Cell
        A network, or a layer by itself.
    fuse_activation : bool, default False
        Whether norms also apply the `nn.ReLU`, `nn.LeakyReLU`, `nn.PReLU` or `mint.nn.PReLU` that
        follows them in an `nn.SequentialCell`, also through inner ones and through a dropout, and
        that nobody else uses. The activation's cell stays, with its parameter, and hands on what
        it gets; where the norm has hooks, it activates as before. `converted` says what was found.

    Returns
    -------
    mindspore.nn.Cell
        `net`.

    Raises
    ------
    TypeError
        If `net` is no Cell.
    ValueError
        If a norm was made to recompute by ``recompute(use_reentrant=False)`` already.

    See Also
    --------
    converted : the names of the cells that were replaced.
    revert : the way back.

    Examples
    --------
    >>> import mindspore, numpy as np
    >>> from mindspore import nn
    >>> from instnorm.bridge.mindspore import convert, converted
    >>> net = convert(nn.SequentialCell(nn.InstanceNorm2d(3), nn.ReLU()), fuse_activation=True)
    >>> net(mindspore.Tensor(np.ones((1, 3, 4, 4), np.float32))).shape
    (1, 3, 4, 4)
    >>> converted(net), converted(net).fused
    (['0'], {'0': 'relu'})
    """
    _check(net)
    found = [(cell, ours) for cell in _cells_of(net) if (ours := _ours_for(cell))]
    _check_code(cell for cell, _ in found)
    for cell, ours in found:
        fusion.become(cell, ours)
        cell.instance_bn = InstanceNorm(Options(cell.eps))
    if fuse_activation:
        fusion.fuse_sequences(net, _is_ours)
    return net


def revert(net: Any) -> Any:
    """Give a network's instance norms back to MindSpore, in place: the opposite of `convert`.

    Parameters
    ----------
    net : mindspore.nn.Cell
        It need not have been converted.

    Returns
    -------
    mindspore.nn.Cell
        `net`.

    Raises
    ------
    TypeError
        If `net` is no Cell.
    ValueError
        If a converted norm, or an activation that it applies, was made to recompute by
        ``recompute(use_reentrant=False)``.

    Examples
    --------
    >>> import mindspore
    >>> from instnorm.bridge.mindspore import convert, revert
    >>> type(revert(convert(mindspore.nn.InstanceNorm2d(3)))) is mindspore.nn.InstanceNorm2d
    True
    """
    _check(net)
    norms = list(filter(_is_ours, _cells_of(net)))
    _check_code([*norms, *fusion.absorbed(net)])
    fusion.separate(net)
    for norm in norms:
        fusion.become(norm, _MINDSPORES[type(norm)])
        norm.instance_bn = ops.operations.InstanceNorm(norm.eps, norm.momentum)
    return net


class Converted(list[str]):
    """The names of cells; `fused` says what each of them does besides, in words."""

    fused: dict[str, str]


def converted(net: Any) -> Converted:
    """Return the names of a network's cells that this package's kernels compute.

    Parameters
    ----------
    net : mindspore.nn.Cell
        The network.

    Returns
    -------
    list of str
        As in ``net.cells_and_names()``; the network itself has the name ''. Its attribute `fused`
        says by name what a norm does besides: "relu", "leaky_relu" or "prelu".

    Raises
    ------
    TypeError
        If `net` is no Cell.

    Examples
    --------
    >>> from mindspore import nn
    >>> from instnorm.bridge.mindspore import convert, converted
    >>> net = nn.SequentialCell(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8))
    >>> converted(net), converted(convert(net))
    ([], ['1'])
    """
    _check(net)
    ours = {name: cell for name, cell in net.cells_and_names() if _is_ours(cell)}
    names = Converted(ours)
    names.fused = {name: words for name, cell in ours.items() if (words := fusion.described(cell))}
    return names


def _cells_of(net: Any) -> Iterator[Any]:
    """Each cell of a network, those included that are run without being listed.

    `amp.auto_mixed_precision` puts the cells that it rewrites into the `cell_list` of a sequence
    alone.
    """
    for _, cell in net.cells_and_names():
        yield cell
        listed = set(map(id, cell._cells.values()))
        run = cell.__dict__.get("cell_list")
        for each in run if isinstance(run, list) else ():
            if isinstance(each, nn.Cell) and id(each) not in listed:
                yield each


def _is_ours(cell: Any) -> bool:
    return type(cell) in _MINDSPORES


def _ours_for(cell: Any) -> Any:
    """The class that a cell is to have; None for one that is to stay as it is."""
    for mindspores, ours in _OURS.items():
        if type(cell) is mindspores or _is_rewritten(type(cell), mindspores):
            return ours
    return None


def _is_rewritten(cls: type, layer: type) -> bool:
    """Whether `amp.auto_mixed_precision` made a class by rewriting a layer's code.

    It derives such a class from the layer's, or from a copy of that in a module whose name is the
    last part of the name of the layer's module.
    """
    base = cls.__bases__[0]
    return (
        re.fullmatch(layer.__name__ + r"Opt(_\d+)?", cls.__name__) is not None
        and base.__name__ == layer.__name__
        and base.__module__.rpartition(".")[2] == layer.__module__.rpartition(".")[2]
    )


def _check(net: object) -> None:
    if not isinstance(net, nn.Cell):
        raise TypeError(f"net must be a mindspore.nn.Cell, got {type(net).__name__}")


def _check_code(cells: Iterable[Any]) -> None:
    for cell in filter(fusion.keeps_code, cells):
        raise ValueError(
            f"a cell of the network, {type(cell).__name__}, recomputes by recompute(use_reentrant="
            "False), which keeps the code that it has; expected that to be called after convert, "
            "and not before revert"
        )
