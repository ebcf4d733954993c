"""`convert` and `revert`: a whole model's instance norms, in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from instnorm.bridge.torch import modules

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


def convert(model: Model, *, memory_format: torch.memory_format | None = None) -> Model:
    """Let this package's kernels compute every instance norm of a model, in place.

    Each module stays the object that it is, with its parameters, buffers, hooks, training
    flag and name, and merely changes its class, as PyTorch's lazy modules do. So state
    dicts, optimizers and references to it stay valid. Modules of a class that is derived
    from PyTorch's are left alone, and so are calls of `torch.nn.functional.instance_norm`.

    Parameters
    ----------
    model : torch.nn.Module
        It may itself be an instance norm.
    memory_format : torch.memory_format, optional
        The layout to bring the model's parameters to: with ``torch.channels_last``, or
        ``torch.channels_last_3d`` for volumes, convolutions run, and hand on, channels-last.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    TypeError
        If `model` is no module.

    See Also
    --------
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
    if memory_format is not None:
        model.to(memory_format=memory_format)
    return _changed(model, _OURS)


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

    Examples
    --------
    >>> import torch
    >>> from instnorm.bridge.torch import convert, revert
    >>> type(revert(convert(torch.nn.InstanceNorm2d(3)))) is torch.nn.InstanceNorm2d
    True
    """
    _check(model)
    return _changed(model, _TORCHS)


def converted(model: nn.Module) -> list[str]:
    """Return the names of a model's modules that this package's kernels compute.

    Parameters
    ----------
    model : torch.nn.Module
        The model.

    Returns
    -------
    list of str
        As in ``model.named_modules()``; the model itself has the name ''.

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
    return [name for name, module in model.named_modules() if type(module) in _TORCHS]


def _check(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def _changed(model: Model, classes: Mapping[type[nn.Module], type[nn.Module]]) -> Model:
    for module in model.modules():
        module.__class__ = classes.get(type(module), type(module))
    return model
