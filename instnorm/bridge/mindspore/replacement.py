"""`convert`: a whole network's instance norms, in place."""

from __future__ import annotations

from typing import Any

from mindspore import nn

from instnorm.bridge.mindspore import modules
from instnorm.bridge.mindspore.operators import operator_for

_OURS = {
    nn.InstanceNorm1d: modules.InstanceNorm1d,
    nn.InstanceNorm2d: modules.InstanceNorm2d,
    nn.InstanceNorm3d: modules.InstanceNorm3d,
}


def convert(net: Any) -> Any:
    """Make every instance norm of MindSpore in `net` one of this package, in place.

    The layers stay the same objects: parameters, their names, hooks and training flags
    are untouched. Subclasses of MindSpore's layers are left as they are.

    Parameters
    ----------
    net : mindspore.nn.Cell
        A network, or a layer by itself.

    Returns
    -------
    mindspore.nn.Cell
        `net`.

    Raises
    ------
    TypeError
        If `net` is no Cell.

    Examples
    --------
    >>> import mindspore, numpy as np
    >>> from instnorm.bridge.mindspore import convert
    >>> net = convert(mindspore.nn.SequentialCell(mindspore.nn.InstanceNorm2d(3)))
    >>> net(mindspore.Tensor(np.ones((1, 3, 4, 4), np.float32))).shape
    (1, 3, 4, 4)
    """
    if not isinstance(net, nn.Cell):
        raise TypeError(f"net must be a mindspore.nn.Cell, got {type(net).__name__}")
    for _, cell in net.cells_and_names():
        if type(cell) in _OURS:
            cell.__class__ = _OURS[type(cell)]
            cell.instance_bn = operator_for(cell.eps)
    return net
