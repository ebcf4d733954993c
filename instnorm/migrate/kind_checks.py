"""The check behind each row of the table of layers, on both real frameworks.

Its samples are made in PyTorch with random values, carried to MindSpore and loaded there by
MindSpore itself, run on the same input, and carried back.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from instnorm._layouts import Array
from instnorm.migrate.advice import advise
from instnorm.migrate.kinds import COUNTER, Kind, Sample
from instnorm.migrate.modules import arrays_of
from instnorm.migrate.state_dicts import state_dict


def carries(kind: Kind, sample: Sample, prepare: Callable[[Any], Any], tolerance: float) -> bool:
    """Whether MindSpore finds all of a layer's state, computes the same, and gives it back.

    Parameters
    ----------
    kind : Kind
    sample : Sample
        One of the row's.
    prepare : callable
        What makes a cell of MindSpore's run here: `instnorm.bridge.mindspore.convert`.
    tolerance : float
        Largest difference of the outputs.
    """
    torch: Any = importlib.import_module("torch")
    mindspore: Any = importlib.import_module("mindspore")
    layer = torch.nn.Sequential(sampled(sample))
    before = arrays_of(layer)
    x = _input(kind, sample)
    with torch.no_grad():
        expected = layer.eval()(torch.from_numpy(x)).numpy()

    call = advise(layer)[0].call
    assert call is not None
    cell = mindspore.nn.SequentialCell(call.made(mindspore.nn))
    state = state_dict(before, "mindspore", model=layer).state
    parameters = {
        name: mindspore.Parameter(mindspore.Tensor(array), name=name)
        for name, array in state.items()
    }
    if mindspore.load_param_into_net(cell, parameters, strict_load=True) != ([], []):
        return False
    cell.set_train(False)
    found = prepare(cell)(mindspore.Tensor(x)).asnumpy()

    after = state_dict(arrays_of(cell), "pytorch", model=layer).state
    return (
        found.shape == expected.shape
        and bool(np.abs(found - expected).max() <= tolerance)
        and all(np.array_equal(after[k], v) for k, v in before.items() if not k.endswith(COUNTER))
    )


def sampled(sample: Sample) -> Any:
    """Make the layer of PyTorch's, with random values."""
    torch: Any = importlib.import_module("torch")
    call = ast.parse(sample.layer, mode="eval").body
    assert isinstance(call, ast.Call)
    args = map(ast.literal_eval, call.args)
    options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    layer = getattr(torch.nn, ast.unparse(call.func))(*args, **options)
    with torch.no_grad():
        for key, value in layer.state_dict().items():
            if key == COUNTER:
                value.fill_(7)
            elif key == "running_var":
                value.uniform_(0.5, 2)
            else:
                value.normal_(0, 0.7)
    return layer


def _input(kind: Kind, sample: Sample) -> Array:
    x = np.random.default_rng(0).normal(size=sample.shape).astype(np.float32)
    return np.abs(3 * x).astype(np.int64) if kind.pytorch == "Embedding" else x
