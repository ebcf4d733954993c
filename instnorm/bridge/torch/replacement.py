"""`convert` and `revert`: a whole model's instance norms, in place."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from instnorm.bridge.torch import fusion, modules
from instnorm.bridge.torch.inplace import (
    Overwriting,
    norms_after_convolutions,
    overwrite_inputs,
)

Model = TypeVar("Model", bound=nn.Module)

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.InstanceNorm1d: modules.InstanceNorm1d,
    nn.InstanceNorm2d: modules.InstanceNorm2d,
    nn.InstanceNorm3d: modules.InstanceNorm3d,
    nn.LazyInstanceNorm1d: modules.LazyInstanceNorm1d,
    nn.LazyInstanceNorm2d: modules.LazyInstanceNorm2d,
    nn.LazyInstanceNorm3d: modules.LazyInstanceNorm3d,
}
_TORCHS = {ours: torchs for torchs, ours in _OURS.items()}


def convert(
    model: Model,
    *,
    memory_format: torch.memory_format | None = None,
    fuse_activation: bool = False,
    inplace: bool = False,
    output_memory_format: torch.memory_format | None = None,
) -> Model:
    """Let this package's kernels compute every instance norm of a model, in place.

    Each module stays the object that it is, with its parameters, buffers, hooks, training
    flag and name, and merely changes its class, as PyTorch's lazy modules do. So state
    dicts, optimizers and references to it stay valid. Modules of a class that is derived
    from PyTorch's are left alone, and so are calls of `torch.nn.functional.instance_norm`, which
    are for `enabled`. Norms are converted before they are parametrized, quantized or sharded.

    Parameters
    ----------
    model : torch.nn.Module
        It may itself be an instance norm.
    memory_format : torch.memory_format, optional
        The layout to bring the model's parameters to: with ``torch.channels_last``, or
        ``torch.channels_last_3d`` for volumes, convolutions run, and hand on, channels-last.
    fuse_activation : bool, default False
        Whether norms also apply the ReLU, LeakyReLU or PReLU that follows them and that nobody
        else uses, through a dropout too, and with the addition of a residual before it. They
        are found in `nn.Sequential`, and by `torch.fx` in the code of modules that it can
        trace; where it cannot, or the code depends on the mode of training, or on hooks,
        nothing changes. `converted` says what was found.
    inplace : bool, default False
        Whether norms whose input is the result of a convolution that nobody else needs take its
        memory, and keep only their output for the backward pass: those with a LeakyReLU that
        was fused, or without an activation, unless something writes into their output in turn.
        A weight that is 0, or far smaller than the bias, is an error in the forward pass then;
        so is, in the backward pass, what code that cannot be traced writes into an output.
    output_memory_format : torch.memory_format, optional
        The layout of what the norms return. PyTorch's always return contiguous memory, and code
        may rely on it, by a ``view`` after the norm: that takes ``torch.contiguous_format`` here.
        With ``torch.preserve_format`` it is the input's, as it is for a model that was not
        converted before. It can be set for a part of a model, by converting that part once more.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    TypeError
        If `model` is no module.
    ValueError
        If `output_memory_format` is another one.

    Warns
    -----
    UserWarning
        If there is nothing to convert, or a norm is left alone because it is parametrized
        (`torch.nn.utils.parametrize`) or sharded (`fully_shard`) already, with its name.

    See Also
    --------
    enabled : calls of `torch.nn.functional.instance_norm`.
    converted : the names of the modules that were replaced.
    revert : the way back.

    Examples
    --------
    >>> import torch
    >>> from instnorm.bridge.torch import convert, converted
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.InstanceNorm2d(8))
    >>> converted(convert(model, memory_format=torch.channels_last))
    ['1']
    """
    _check(model)
    if output_memory_format not in (None, torch.preserve_format, torch.contiguous_format):
        raise ValueError(
            f"output_memory_format is {output_memory_format}, expected torch.preserve_format or "
            "torch.contiguous_format"
        )
    if memory_format is not None:
        model.to(memory_format=memory_format)
    left_alone = _left_alone(model, _OURS, _TORCHS)
    if left_alone:
        warnings.warn(
            f"norms that could not be converted any more: {left_alone}; expected convert(model) "
            "before that",
            stacklevel=2,
        )
    elif not any(type(module) in (*_OURS, *_TORCHS) for module in model.modules()):
        warnings.warn("the model has no instance norm that could be converted", stacklevel=2)
    _changed(model, _OURS)
    if output_memory_format is not None:
        _set_output_format(model, output_memory_format)
    if not (fuse_activation or inplace):
        return model
    calls = fusion.Calls(model)
    after_convolutions = list(norms_after_convolutions(model, _is_ours, calls))
    if fuse_activation:
        fusion.fuse_sequences(model, _is_ours, calls)
        fusion.fuse_traced(model, _is_ours)
    if inplace:
        overwritten = Overwriting(model, _is_ours).norms
        overwrite_inputs(norm for norm in after_convolutions if norm not in overwritten)
    return model


def revert(model: Model) -> Model:
    """Give a model's instance norms back to PyTorch, in place: the opposite of `convert`.

    Parameters
    ----------
    model : torch.nn.Module
        It need not have been converted.

    Returns
    -------
    torch.nn.Module
        `model`. Its parameters keep their memory format.

    Raises
    ------
    TypeError
        If `model` is no module.

    Warns
    -----
    UserWarning
        If a norm stays converted because it was parametrized or sharded since.

    Examples
    --------
    >>> import torch
    >>> from instnorm.bridge.torch import convert, revert
    >>> type(revert(convert(torch.nn.InstanceNorm2d(3)))) is torch.nn.InstanceNorm2d
    True
    """
    _check(model)
    left_alone = _left_alone(model, _TORCHS, ())
    if left_alone:
        warnings.warn(f"norms that stay converted: {left_alone}", stacklevel=2)
    fusion.separate(model)
    _set_output_format(model, torch.preserve_format)
    return _changed(model, _TORCHS)


class Converted(list[str]):
    """The names of modules; `fused` says what each of them does besides, in words."""

    fused: dict[str, str]


def converted(model: nn.Module) -> Converted:
    """Return the names of a model's modules that this package's kernels compute.

    Parameters
    ----------
    model : torch.nn.Module
        The model.

    Returns
    -------
    list of str
        As in ``model.named_modules()``; the model itself has the name ''. Its attribute `fused`
        says by name what a norm does besides: "residual", "relu", "leaky_relu", "prelu",
        "inplace".

    Raises
    ------
    TypeError
        If `model` is no module.

    Examples
    --------
    >>> import torch
    >>> from instnorm.bridge.torch import convert, converted
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.InstanceNorm2d(8))
    >>> converted(model), converted(convert(model))
    ([], ['1'])
    """
    _check(model)
    classes = tuple(_TORCHS)
    ours = {name: module for name, module in model.named_modules() if isinstance(module, classes)}
    names = Converted(ours)
    names.fused = {
        name: fusion.described(module) for name, module in ours.items() if fusion.described(module)
    }
    return names


def _is_ours(module: nn.Module) -> bool:
    return type(module) in _TORCHS


def _left_alone(
    model: nn.Module, classes: Iterable[type[nn.Module]], others: Iterable[type[nn.Module]]
) -> str:
    """The norms whose class was replaced by one that is derived from one of `classes`, and by what.

    PyTorch makes such a class where it parametrizes or shards a module.
    """
    classes, others = tuple(classes), tuple(others)
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, classes) or isinstance(module, others):
            continue
        if parametrize.is_parametrized(module):
            found.append(f"{name!r} (parametrized)")
        elif any(base.__name__ == "FSDPModule" for base in type(module).__mro__):
            found.append(f"{name!r} (sharded by fully_shard)")
    return ", ".join(found)


def _set_output_format(model: nn.Module, memory_format: torch.memory_format) -> None:
    for module in model.modules():
        module.__dict__.pop(modules.OUTPUT_FORMAT, None)
        if _is_ours(module) and memory_format is not torch.preserve_format:
            module.__dict__[modules.OUTPUT_FORMAT] = memory_format


def _check(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def _changed(model: Model, classes: Mapping[type[nn.Module], type[nn.Module]]) -> Model:
    for module in model.modules():
        module.__class__ = classes.get(type(module), type(module))
    return model
