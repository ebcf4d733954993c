"""`layer`: an instance norm of the other framework's flavour that computes the same."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from instnorm import nn
from instnorm.migrate._flavours import Flavour, RunningStats, check_choice, is_filled, refusal
from instnorm.nn import mindspore
from instnorm.tensor import Tensor

_PAIRS: tuple[tuple[type[Any], type[Any]], ...] = (
    (nn.InstanceNorm1d, mindspore.InstanceNorm1d),
    (nn.InstanceNorm2d, mindspore.InstanceNorm2d),
    (nn.InstanceNorm3d, mindspore.InstanceNorm3d),
)


def layer(layer: Any, to: Flavour, *, running_stats: RunningStats = "refuse") -> Any:
    """Make a layer of the other flavour that computes the same, with a copy of the state.

    The momentum is turned round: PyTorch's is the share of the new statistic, and what
    MindSpore documents is the share of the old one, so m becomes 1 - m, and None,
    PyTorch's way to keep the old, becomes 1. (It has no effect in MindSpore: see
    `instnorm differences`.)

    Parameters
    ----------
    layer : InstanceNorm1d, InstanceNorm2d or InstanceNorm3d
        Of `instnorm.nn` or of `instnorm.nn.mindspore`. It stays as it is.
    to : {'mindspore', 'pytorch'}
    running_stats : {'refuse', 'drop', 'keep'}, default 'refuse'
        What to do with running statistics, which PyTorch uses in evaluation and
        MindSpore ignores: raise, leave them out, or store them in the other flavour's
        place. Then MindSpore ignores them, and PyTorch normalizes by them.

    Returns
    -------
    InstanceNorm1d, InstanceNorm2d or InstanceNorm3d
        Of the other flavour, with the layer's mode (training or evaluation); the layer
        itself where it is of that flavour already.

    Raises
    ------
    TypeError
        If `layer` is none of these.
    ValueError
        If it has running statistics and `running_stats` is 'refuse', or an argument
        that the other flavour does not take, such as ``eps=0`` for MindSpore.

    Examples
    --------
    >>> import instnorm.convert
    >>> norm = instnorm.nn.InstanceNorm2d(3, affine=True)
    >>> list(instnorm.convert.layer(norm, to="mindspore").state_dict())
    ['gamma', 'beta', 'mean', 'variance']
    """
    check_choice("to", to, Flavour)
    check_choice("running_stats", running_stats, RunningStats)
    for pytorch_class, mindspore_class in _PAIRS:
        if isinstance(layer, pytorch_class):
            if to == "pytorch":
                return layer
            return _layer_to_mindspore(layer, mindspore_class, running_stats)
        if isinstance(layer, mindspore_class):
            if to == "mindspore":
                return layer
            return _layer_to_pytorch(layer, pytorch_class, running_stats)
    raise TypeError(
        "layer must be an InstanceNorm1d, 2d or 3d of instnorm.nn or instnorm.nn.mindspore, "
        f"got {type(layer).__name__}; for the state of other modules there is state_dict()"
    )


def _layer_to_mindspore(old: Any, new_class: type[Any], running_stats: RunningStats) -> Any:
    if old.track_running_stats and running_stats == "refuse":
        raise ValueError(refusal("mindspore", [f"those of {old!r}"]))
    parameters = [p for p in (old.weight, old.bias) if p is not None]
    buffers = [b for b in (old.running_mean, old.running_var) if b is not None]
    new = new_class(
        old.num_features,
        float(old.eps),
        1.0 if old.momentum is None else complement(old.momentum),
        affine=old.affine,
        dtype=next((t.dtype for t in parameters + buffers), np.dtype(np.float32)),
    )
    _copy(old.weight, new.gamma)
    _copy(old.bias, new.beta)
    if old.affine and old.bias is None:
        new.beta.requires_grad = False  # as the old layer has no bias to learn
    if running_stats == "keep" and old.track_running_stats:
        _copy(old.running_mean, new.moving_mean)
        _copy(old.running_var, new.moving_variance)
    return new.train(old.training)


def _layer_to_pytorch(old: Any, new_class: type[Any], running_stats: RunningStats) -> Any:
    moved = not (is_filled(old.moving_mean, 0.0) and is_filled(old.moving_variance, 1.0))
    if moved and running_stats == "refuse":
        raise ValueError(refusal("pytorch", [f"those of {old!r}"]))
    plain = is_filled(old.gamma, 1.0) and is_filled(old.beta, 0.0)
    no_bias = old.gamma.requires_grad and not old.beta.requires_grad and is_filled(old.beta, 0.0)
    new = new_class(
        old.num_features,
        old.eps,
        complement(old.momentum),
        # MindSpore applies gamma and beta even with affine=False, which only stops their training.
        affine=old.affine or not plain,
        track_running_stats=running_stats == "keep",
        dtype=old.gamma.dtype,
        bias=not no_bias,
    )
    for parameter, value in ((new.weight, old.gamma), (new.bias, old.beta)):
        if parameter is not None:
            _copy(value, parameter)
    if new.track_running_stats:
        _copy(old.moving_mean, new.running_mean)
        _copy(old.moving_variance, new.running_var)
    return new.train(old.training)


def _copy(old: Tensor | None, new: Tensor) -> None:
    if old is not None:
        new.data[...] = old.data
        new.mark_changed()
        new.requires_grad = old.requires_grad


def complement(momentum: float) -> float:
    """Return 1 - momentum: the share of the other statistic."""
    # In decimal, so that there and back gives the same: in binary 1 - (1 - 0.1) is not 0.1.
    return float(1 - Decimal(str(float(momentum))))
