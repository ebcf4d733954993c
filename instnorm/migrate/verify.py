"""`verify`: the same input through a model of PyTorch's and one of MindSpore's, layer by layer."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from instnorm._layouts import Array
from instnorm.migrate.advice import Advice, advise
from instnorm.migrate.models import Layer, framework_of, layers_of, named_modules
from instnorm.migrate.values import array_of

# Two frameworks that are both right may be some times as far apart as one of them is off.
_ROUNDINGS = 8
# What has an effect in training alone.
_OF_TRAINING = ("momentum", "p", "keep_prob")


class Comparison(NamedTuple):
    """The outputs of one layer, or of a part of the model that has layers inside it.

    Attributes
    ----------
    name : str
        In both models; empty for the model itself.
    kind : str
        The class in PyTorch.
    error : float
        The largest difference over the largest output or 1; inf where shapes differ.
    input_error : float
        The same of its inputs.
    rounding : float
        The same of PyTorch's own outputs in float32 and in float64; 0 where they cannot be had.
    """

    name: str
    kind: str
    error: float
    input_error: float
    rounding: float

    def agrees(self, tolerance: float) -> bool:
        """Whether the difference is within the tolerance, or no more than rounding explains."""
        return self.error <= max(tolerance, _ROUNDINGS * self.rounding)


class Report(NamedTuple):
    """What `verify` found.

    Attributes
    ----------
    compared : list of Comparison
        In the order in which PyTorch computes them; the last is the model's output.
    first : Comparison or None
        The first that differs by more than the tolerance.
    reasons : list of str
        What is likely to make it differ.
    settings : list of str
        What makes no difference to these outputs, and does in training.
    """

    compared: list[Comparison]
    first: Comparison | None
    reasons: list[str]
    settings: list[str]


def verify(
    pytorch: Any, mindspore: Any, inputs: Sequence[Array], *, tolerance: float = 1e-5
) -> Report:
    """Run both models in evaluation on the same input, and compare the outputs of all layers.

    Parameters
    ----------
    pytorch : torch.nn.Module
    mindspore : mindspore.nn.Cell
        With the same names. Where there is no GPU, after `instnorm.bridge.mindspore.convert`:
        MindSpore has no instance norm for a CPU.
    inputs : sequence of ndarray
        The arguments.
    tolerance : float, default 1e-5
        Largest difference, over the largest output or 1. Where PyTorch's own outputs are off by
        rounding, which a run in float64 tells, 8 times that is allowed.

    Returns
    -------
    Report

    Raises
    ------
    TypeError
        If the models are not one of each framework.
    """
    for model, framework in ((pytorch, "torch"), (mindspore, "mindspore")):
        if framework_of(model) != framework:
            raise TypeError(f"expected a module of {framework}, got {type(model).__name__}")
    ours, theirs = _run_pytorch(pytorch, inputs), _run_mindspore(mindspore, inputs)
    rounding = _rounding(pytorch, inputs, ours)
    compared = list(_compared(pytorch, mindspore, ours, theirs, rounding))
    first = next((c for c in compared if not c.agrees(tolerance)), None)
    pairs = _pairs(pytorch, mindspore)
    reasons = [] if first is None else _reasons(first, pairs.get(first.name), tolerance)
    settings = [f"{name}: {text}" for name, pair in pairs.items() for text in pair.of_training()]
    return Report(compared, first, reasons, settings)


# --- running ------------------------------------------------------------------------------


class _Run(NamedTuple):
    """One call of one module: the number of the call, and what went in and came out."""

    module: Any
    number: int
    inputs: list[Array]
    outputs: list[Array]


class _Recorder:
    def __init__(self) -> None:
        self.runs: list[_Run] = []
        self._calls: dict[int, int] = {}

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        number = self._calls.get(id(module), 0)
        self._calls[id(module)] = number + 1
        self.runs.append(_Run(module, number, _arrays(inputs), _arrays(output)))


def _arrays(value: Any) -> list[Array]:
    if isinstance(value, tuple | list):
        return [array for item in value for array in _arrays(item)]
    if isinstance(value, dict):
        return [array for item in value.values() for array in _arrays(item)]
    is_tensor = hasattr(value, "asnumpy") or hasattr(value, "detach")
    return [array_of(value)] if is_tensor else []


def _run_pytorch(model: Any, inputs: Sequence[Array]) -> list[_Run]:
    torch: Any = importlib.import_module("torch")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return _recorded(model, lambda: model(*map(torch.from_numpy, inputs)))
    finally:
        for module, mode in modes:
            module.training = mode


def _run_mindspore(model: Any, inputs: Sequence[Array]) -> list[_Run]:
    mindspore: Any = importlib.import_module("mindspore")
    mode = model.training
    model.set_train(False)
    try:
        return _recorded(model, lambda: model(*map(mindspore.Tensor, inputs)))
    finally:
        model.set_train(mode)


def _recorded(model: Any, run: Callable[[], Any]) -> list[_Run]:
    recorder = _Recorder()
    modules = {id(module): module for _, module in named_modules(model)}
    hooks = [module.register_forward_hook(recorder) for module in modules.values()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.runs


def _rounding(model: Any, inputs: Sequence[Array], runs: list[_Run]) -> list[float]:
    """Return how far the outputs are off those of a copy of the model in float64."""
    wide = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in inputs]
    try:
        exact = _run_pytorch(copy.deepcopy(model).double(), wide)
    # Some models cannot be copied, or compute in float32 whatever they are given.
    except Exception:
        return [0.0] * len(runs)
    if len(exact) != len(runs):
        return [0.0] * len(runs)
    return [_error(run.outputs, other.outputs) for run, other in zip(runs, exact, strict=True)]


def _compared(
    pytorch: Any,
    mindspore: Any,
    ours: list[_Run],
    theirs: list[_Run],
    rounding: list[float],
) -> Iterator[Comparison]:
    names: dict[int, list[str]] = {}
    for name, module in named_modules(pytorch):
        names.setdefault(id(module), []).append(name)
    counterparts = {name: id(module) for name, module in named_modules(mindspore)}
    found = {(id(run.module), run.number): run for run in theirs}
    for run, own_error in zip(ours, rounding, strict=True):
        for name in names[id(run.module)]:
            other = found.get((counterparts.get(name, 0), run.number))
            if other is not None:
                yield Comparison(
                    name,
                    type(run.module).__name__,
                    _error(run.outputs, other.outputs),
                    _error(run.inputs, other.inputs),
                    own_error,
                )
                break


def _error(ours: list[Array], theirs: list[Array]) -> float:
    if [a.shape for a in ours] != [a.shape for a in theirs]:
        return math.inf
    errors = [0.0]
    for a, b in zip(ours, theirs, strict=True):
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        if not np.array_equal(np.isfinite(wide_a), np.isfinite(wide_b)):
            return math.inf
        finite = np.isfinite(wide_a)
        scale = np.abs(wide_a).max(initial=1.0, where=finite)
        errors.append(float(np.abs(wide_a - wide_b).max(initial=0.0, where=finite) / scale))
    return max(errors)


# --- why ----------------------------------------------------------------------------------------


class _Pair(NamedTuple):
    """A layer of PyTorch's with what stands in its place in MindSpore's model."""

    pytorch: Layer
    advice: Advice
    mindspore: Layer

    def settings(self) -> dict[str, str]:
        """Return what differs in how the layer was made, by the name of the argument."""
        call = self.advice.call
        if call is None:
            return {}
        cell = self.mindspore.module
        made = type(cell).__name__
        if made != call.name:
            return {"class": f"nn.{made}, expected {call}"}
        nn: Any = importlib.import_module("mindspore.nn")
        expected = Layer("", call.made(nn), self.mindspore.kind)
        found = {}
        for name in inspect.signature(type(expected.module).__init__).parameters:
            wanted = _setting(expected, name)
            own = _setting(self.mindspore, name)
            if wanted is not None and own is not None and not _same(wanted, own):
                found[name] = f"{_text(own)}, expected {_text(wanted)}"
        return found

    def of_training(self) -> list[str]:
        """Return the settings that have an effect in training alone."""
        # MindSpore's instance norm has a momentum and makes no use of it.
        if self.pytorch.kind is not None and self.pytorch.kind.is_instance_norm:
            return []
        return [self.explained(k, v) for k, v in self.settings().items() if k in _OF_TRAINING]

    def explained(self, name: str, text: str) -> str:
        """Return a setting with what is known of its difference."""
        known = [d for d in self.advice.differs if d.startswith(f"{name}:")]
        return "; ".join([f"{name} is {text}", *known])

    def differing_parameters(self) -> list[str]:
        """Return the names of entries that do not hold the same numbers in both."""
        kind = self.pytorch.kind
        found = []
        for entry in kind.entries if kind else ():
            ours = self.pytorch.parameter(entry.pytorch)
            theirs = self.mindspore.parameter(entry.mindspore)
            if theirs is None:
                theirs = self.mindspore.parameter(entry.pytorch)
            if ours is None or theirs is None:
                continue
            a, b = array_of(ours), array_of(theirs)
            if not np.allclose(a, b.reshape(a.shape) if a.size == b.size else np.nan):
                found.append(entry.pytorch)
        return found


def _setting(layer: Layer, name: str) -> Any:
    value = getattr(layer.holder(), name, None)
    if not isinstance(value, bool | int | float | str | tuple | list) or name.endswith("_init"):
        return None
    # MindSpore's batch norm keeps the complement of its argument.
    if name == "momentum" and layer.kind is not None and not layer.kind.is_instance_norm:
        return 1 - value if isinstance(value, float) else None
    return value


def _same(wanted: Any, own: Any) -> bool:
    if isinstance(wanted, float) and isinstance(own, float):
        return math.isclose(wanted, own, rel_tol=1e-6)
    return bool(wanted == own)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _pairs(pytorch: Any, mindspore: Any) -> dict[str, _Pair]:
    theirs = {layer.prefix: layer for layer in layers_of(mindspore)}
    return {
        layer.prefix: _Pair(layer, advice, theirs[layer.prefix])
        for layer, advice in zip(layers_of(pytorch), advise(pytorch), strict=True)
        if layer.prefix in theirs
    }


def _reasons(first: Comparison, pair: _Pair | None, tolerance: float) -> list[str]:
    reasons = []
    if not first.input_error <= tolerance:
        reasons.append(
            "its input differs already, though the layers before it agree: look at what is "
            "computed between layers (padding, resizing, activations, views of another layout)"
        )
    elif pair is None:
        reasons.append(
            "the layers inside it agree: look at what its forward and construct do besides"
        )
    if pair is not None:
        differing = pair.differing_parameters()
        if differing:
            reasons.append(f"its parameters differ: {', '.join(differing)}")
        settings = pair.settings()
        reasons += [pair.explained(k, v) for k, v in settings.items() if k not in _OF_TRAINING]
        if not reasons:
            reasons += pair.advice.differs
        kind = pair.pytorch.kind
        if kind is not None and kind.family.endswith("Norm"):
            reasons.append(f"see instnorm differences --layer {kind.pytorch}")
        elif kind is not None and kind.family.startswith("Conv"):
            reasons.append("see instnorm differences --layer Conv2d")
    if math.isinf(first.error):
        reasons.append("shapes differ, or what is not finite")
    return reasons
