"""`module`: the parameters of a model of one framework, into a model of the other."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from instnorm._layouts import Array
from instnorm.migrate._flavours import RunningStats, listed
from instnorm.migrate.models import flavour_of, framework_of, state_of
from instnorm.migrate.state_dicts import Converted, state_dict
from instnorm.migrate.values import array_of


def module(source: Any, target: Any, *, running_stats: RunningStats = "refuse") -> Converted:
    """Carry the state of a model into one of the other framework.

    Both have the same layers under the same names, such as ``body.2.norm``. `source` stays as it
    is. `target` is written to only once every entry is known to have its place.

    Parameters
    ----------
    source, target : module
        One of PyTorch and one of MindSpore, or of this package's flavours.
    running_stats : {'refuse', 'drop', 'keep'}, default 'refuse'
        As for `state_dict`.

    Returns
    -------
    Converted
        What became of every entry.

    Raises
    ------
    TypeError
        If one is no module.
    ValueError
        If both are of one framework, or entries of `target` would not be found, or entries of
        `source` have no place there; besides as for `state_dict`.

    Examples
    --------
    >>> import instnorm.convert
    >>> from instnorm import nn
    >>> source = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, affine=True))
    >>> target = nn.Sequential(nn.Conv2d(1, 2, 3), nn.mindspore.InstanceNorm2d(2))
    >>> _ = source[1].weight.data.fill(3)
    >>> _ = instnorm.convert.module(source, target)
    >>> target[1].gamma.tolist()
    [3.0, 3.0]
    """
    to = flavour_of(target)
    if flavour_of(source) == to:
        raise ValueError(f"source and target are both {to}'s, expected one of each framework")
    converted = state_dict(
        arrays_of(source), to, model=[source, target], running_stats=running_stats
    )
    if converted.unfound or converted.unused:
        raise ValueError(
            f"target would not find {listed(converted.unfound)}, and has no place for "
            f"{listed(converted.unused)}"
        )
    load(target, converted.state)
    return converted


def arrays_of(model: Any) -> dict[str, Array]:
    """Return the state of a model as arrays."""
    return {name: array_of(value) for name, value in state_of(model).items()}


def load(model: Any, state: Mapping[str, Array]) -> None:
    """Write arrays into a model, each in the dtype that the model has there.

    Entries that the model has not are passed over, as by MindSpore's ``load_param_into_net``.
    """
    framework = framework_of(model)
    if framework == "instnorm":
        model.load_state_dict(state)
        return
    own = state_of(model)
    for name in own.keys() & state.keys():
        array = np.asarray(state[name])
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        if framework == "torch":
            torch: Any = importlib.import_module("torch")
            own[name].copy_(torch.from_numpy(np.array(array)))
        else:
            mindspore: Any = importlib.import_module("mindspore")
            own[name].set_data(mindspore.Tensor(np.array(array), own[name].dtype))
