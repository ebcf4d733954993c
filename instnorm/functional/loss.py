"""Losses."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from instnorm import _primitives as ops
from instnorm._layouts import Array
from instnorm._runtime.simd import layers
from instnorm.autograd import Function, is_grad_enabled
from instnorm.functional._inputs import Input, as_tensor
from instnorm.functional.activation import log_softmax
from instnorm.tensor import Tensor

Reduction: TypeAlias = Literal["none", "mean", "sum"]


def mse_loss(input: Input, target: Input, reduction: Reduction = "mean") -> Tensor:
    """Squared error, ``(input - target) ** 2``.

    Parameters
    ----------
    input, target : Tensor or ndarray
        Of the same shape.
    reduction : {'mean', 'sum', 'none'}, default 'mean'

    Returns
    -------
    Tensor
        A scalar; with 'none', of the shape of the input.
    """
    input, target = _alike(input, target)
    if _is_looped(input, target, reduction):
        return Error.apply(input, target, True, reduction)
    difference = input - target
    return _reduced(difference * difference, reduction)


def l1_loss(input: Input, target: Input, reduction: Reduction = "mean") -> Tensor:
    """Absolute error, ``abs(input - target)``.

    Parameters
    ----------
    input, target : Tensor or ndarray
        Of the same shape.
    reduction : {'mean', 'sum', 'none'}, default 'mean'

    Returns
    -------
    Tensor
        A scalar; with 'none', of the shape of the input.
    """
    input, target = _alike(input, target)
    if _is_looped(input, target, reduction):
        return Error.apply(input, target, False, reduction)
    return _reduced((input - target).abs(), reduction)


def smooth_l1_loss(
    input: Input, target: Input, reduction: Reduction = "mean", beta: float = 1.0
) -> Tensor:
    """Squared error over ``2 * beta`` below `beta`, absolute error less ``beta / 2`` above.

    Parameters
    ----------
    input, target : Tensor or ndarray
        Of the same shape.
    reduction : {'mean', 'sum', 'none'}, default 'mean'
    beta : float, default 1.0
        Not negative; 0 makes it `l1_loss`.

    Returns
    -------
    Tensor
        A scalar; with 'none', of the shape of the input.
    """
    if not beta >= 0:
        raise ValueError(f"beta must be at least 0, got {beta}")
    input, target = _alike(input, target)
    distance = (input - target).abs()
    if beta > 0:
        square = distance * distance * (0.5 / beta)
        distance = square.where(distance.data < beta, distance - 0.5 * beta)
    return _reduced(distance, reduction)


def binary_cross_entropy_with_logits(
    input: Input,
    target: Input,
    weight: Input | None = None,
    reduction: Reduction = "mean",
    pos_weight: Input | None = None,
) -> Tensor:
    """Cross entropy of ``sigmoid(input)`` and probabilities, computed without overflow.

    Parameters
    ----------
    input : Tensor or ndarray
        Scores (logits).
    target : Tensor or ndarray
        Probabilities, of the same shape.
    weight : Tensor or ndarray, optional
        How much each element counts; broadcasts to the input's shape.
    reduction : {'mean', 'sum', 'none'}, default 'mean'
    pos_weight : Tensor or ndarray, optional
        How much more the target's share of ones counts; broadcasts to the input's shape.

    Returns
    -------
    Tensor
        A scalar; with 'none', of the shape of the input.

    Examples
    --------
    >>> import instnorm
    >>> scores, truth = instnorm.tensor([0.0, 1000.0]), instnorm.tensor([1.0, 0.0])
    >>> instnorm.functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    tensor([6.931472e-01, 1.000000e+03])
    """
    x, y = as_tensor(input, "input"), as_tensor(target, "target")
    if x.shape != y.shape:
        raise ValueError(f"target has shape {y.shape}, expected that of input, {x.shape}")
    # -log(sigmoid(x)) is softplus(-x), and -log(1 - sigmoid(x)) is softplus(-x) + x.
    ones = y if pos_weight is None else y * as_tensor(pos_weight, "pos_weight")
    loss = (1 - y) * x + (1 - y + ones) * ops.Softplus.apply(-x)
    if weight is not None:
        loss = loss * as_tensor(weight, "weight")
    return _reduced(loss, reduction)


def binary_cross_entropy(
    input: Input,
    target: Input,
    weight: Input | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy of two probabilities; `binary_cross_entropy_with_logits` is more exact.

    Parameters
    ----------
    input : Tensor or ndarray
        Probabilities, such as ``sigmoid(x)``. Their logarithms are taken to be at least -100.
    target : Tensor or ndarray
        Probabilities, of the same shape.
    weight : Tensor or ndarray, optional
        How much each element counts; broadcasts to the input's shape.
    reduction : {'mean', 'sum', 'none'}, default 'mean'

    Returns
    -------
    Tensor
        A scalar; with 'none', of the shape of the input.

    Raises
    ------
    ValueError
        If the shapes differ, or an input is not from 0 to 1.
    """
    p, y = _alike(input, target)
    if not ((p.data >= 0) & (p.data <= 1)).all():
        raise ValueError("input must be probabilities, from 0 to 1; sigmoid(input) makes it so")
    loss = -(y * p.log().clamp(min=-100) + (1 - y) * (1 - p).log().clamp(min=-100))
    if weight is not None:
        loss = loss * as_tensor(weight, "weight")
    return _reduced(loss, reduction)


def _alike(input: Input, target: Input) -> tuple[Tensor, Tensor]:
    input, target = as_tensor(input, "input"), as_tensor(target, "target")
    if input.shape != target.shape:
        raise ValueError(f"target has shape {target.shape}, expected that of input, {input.shape}")
    return input, target


def _is_looped(input: Tensor, target: Tensor, reduction: str) -> bool:
    """Whether the compiled loops take these arguments."""
    a, b = input.data, target.data
    return (
        reduction in ("mean", "sum")
        and a.size > 0
        and a.dtype == b.dtype
        and a.dtype.char in "fd"
        and a.flags.c_contiguous
        and b.flags.c_contiguous
    )


class Error(Function):
    """The sum or mean of squared or absolute differences, in one pass."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, squared: bool, reduction: str) -> Array:
        """Add up in double."""
        a, b = ops.aligned(input.data), ops.aligned(target.data)
        ctx.save_for_backward(input, target)
        ctx.squared, ctx.scale = squared, 1 / a.size if reduction == "mean" else 1.0
        return np.asarray(layers.error_sum(a, b, squared) * ctx.scale, a.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Twice the difference, or its sign."""
        input, target = ctx.saved_tensors
        task = "square_gradient" if ctx.squared else "absolute_gradient"
        array = None
        if not is_grad_enabled():
            array = ops.looped(task, input.data, target.data, g.data.item() * ctx.scale)
        if array is not None:
            gradient = g.new(array)
        elif ctx.squared:
            gradient = (input - target) * (g * (2 * ctx.scale))
        else:
            gradient = g * (np.sign(input.data - target.data) * ctx.scale)
        need_input, need_target, *_ = ctx.needs_input_grad
        return gradient if need_input else None, -gradient if need_target else None, None, None


def _reduced(values: Tensor, reduction: str) -> Tensor:
    _check_reduction(reduction)
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def cross_entropy(
    input: Input,
    target: Input,
    weight: Input | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of class scores and the true classes.

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, classes, ...) or (classes,)
        Unnormalized scores (logits).
    target : Tensor or ndarray of shape (N, ...) or ()
        Class indices, integers; or of the input's shape and floating point, the probability
        of each class.
    weight : Tensor or ndarray of shape (classes,), optional
        How much each class counts.
    ignore_index : int, default -100
        Targets of this value count for nothing.
    reduction : {'mean', 'sum', 'none'}, default 'mean'
        'mean' divides by the sum of the weights of the targets that count.
    label_smoothing : float, default 0.0
        Share of the target that is spread evenly over all classes, from 0 to 1.

    Returns
    -------
    Tensor
        A scalar; with 'none', of the shape of the target.

    Raises
    ------
    TypeError
        If the targets are not integers.
    ValueError
        If the shapes do not fit, or `label_smoothing` is outside [0, 1].
    IndexError
        If a target is no class.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> scores = instnorm.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> round(instnorm.functional.cross_entropy(scores, np.array([0, 1])).item(), 4)
    0.1269
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")
    input = as_tensor(input, "input")
    if weight is None and label_smoothing == 0 and reduction in ("mean", "sum"):
        labels = as_tensor(target, "target").data
        if _are_plain_scores(input.data, labels):
            return CrossEntropy.apply(input, labels, ignore_index, reduction)
    axis = 1 if input.ndim > 1 else 0
    log_p = log_softmax(input, axis)
    target = as_tensor(target, "target")
    if target.dtype.kind not in "biu" and target.shape == input.shape:
        soft = target * (1 - label_smoothing) + label_smoothing / input.shape[axis]
        return _soft_loss(log_p, soft, weight, axis, reduction)
    hard = nll_loss(log_p, target, weight, ignore_index, reduction)
    if label_smoothing == 0:
        return hard
    smooth = _smoothing_loss(log_p, target, weight, ignore_index, reduction)
    return hard * (1 - label_smoothing) + smooth * (label_smoothing / log_p.shape[axis])


def _soft_loss(
    log_p: Tensor, target: Tensor, weight: Input | None, axis: int, reduction: Reduction
) -> Tensor:
    """Cross entropy with probabilities; its mean is over the samples, whatever the weights."""
    _check_reduction(reduction)
    products = log_p * target
    if weight is not None:
        along = as_tensor(weight, "weight")
        products = products * along.reshape(-1, *(1 for _ in log_p.shape[axis + 1 :]))
    losses = -products.sum(axis)
    return (
        losses.sum() / max(losses.numel(), 1)
        if reduction == "mean"
        else _reduced(losses, reduction)
    )


def _are_plain_scores(scores: Array, labels: Array) -> bool:
    """Whether the compiled loop takes these: one row of scores for each label."""
    return (
        scores.ndim == 2
        and scores.dtype.char in "fd"
        and scores.shape[1] > 0
        and labels.dtype == np.int64
        and labels.shape == scores.shape[:1]
    )


class CrossEntropy(Function):
    """The sum or mean of the cross entropies of rows of scores, in one pass."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, labels: Array, ignored: int, reduction: str) -> Array:
        """Sum in double, and keep the softmax."""
        scores, labels = np.ascontiguousarray(input.data), np.ascontiguousarray(labels)
        scores, labels = ops.aligned(scores), ops.aligned(labels)
        p = np.empty_like(scores)
        total, count = layers.cross_entropy(scores, labels, ignored, p)
        ctx.save_for_backward(input, p, labels)
        ctx.ignored = ignored
        with np.errstate(all="ignore"):  # a mean of none is NaN
            ctx.scale = 1.0 / np.float64(count) if reduction == "mean" else np.float64(1)
            return np.asarray(total * ctx.scale, input.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        """The softmax, less 1 at the label."""
        input, p, labels = ctx.saved_tensors
        if not is_grad_enabled():
            gradient = np.empty_like(p)
            layers.cross_entropy_gradient(
                p, labels, ctx.ignored, g.data.item() * float(ctx.scale), gradient
            )
            return g.new(gradient), None, None, None
        kept = (labels != ctx.ignored)[:, None]
        label = (np.arange(p.shape[1]) == labels[:, None]) & kept
        difference = (input.softmax(1) - label.astype(p.dtype)) * kept.astype(p.dtype)
        return difference * (g * float(ctx.scale)), None, None, None


def nll_loss(
    input: Input,
    target: Input,
    weight: Input | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-likelihood of the true classes, from log-probabilities.

    Parameters and result are those of `cross_entropy`, but that `input` holds
    log-probabilities.
    """
    _check_reduction(reduction)
    log_p, labels, kept, counts = _class_targets(input, target, weight, ignore_index)
    picked = ops.taken_along(log_p, labels[:, None], 1).reshape(labels.shape)
    if not kept.all():
        picked = picked.where(kept, 0.0)  # it may be -inf, which times 0 is NaN
    return _reduced_targets(-picked * counts, counts, target, reduction)


def _smoothing_loss(
    input: Tensor, target: Input, weight: Input | None, ignore_index: int, reduction: Reduction
) -> Tensor:
    """The loss of every class, summed, for each target that counts."""
    log_p, labels, kept, counts = _class_targets(input, target, weight, ignore_index)
    class_weight = (
        np.ones(log_p.shape[1], log_p.dtype) if weight is None else as_tensor(weight, "weight").data
    )
    along_classes = class_weight.reshape(1, -1, *(1 for _ in labels.shape[1:]))
    total = -(log_p * along_classes).sum(1).where(kept, 0.0)
    return _reduced_targets(total, counts, target, reduction)


def _class_targets(
    input: Input, target: Input, weight: Input | None, ignore_index: int
) -> tuple[Tensor, Array, Array, Array]:
    """Checked: batched log-probabilities, labels, which are not ignored, how much each counts."""
    input, labels = as_tensor(input, "input"), as_tensor(target, "target").data
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"target has dtype {labels.dtype}, expected integers: class indices; probabilities "
            f"have the shape of input, {input.shape}"
        )
    if input.ndim == 1 and labels.ndim == 0:
        input, labels = input.reshape(1, -1), labels.reshape(1)
    if input.ndim < 2 or labels.shape != input.shape[:1] + input.shape[2:]:
        raise ValueError(
            f"target has shape {labels.shape}, expected "
            f"{input.shape[:1] + input.shape[2:]} to fit input of shape {input.shape}"
        )
    classes = input.shape[1]
    kept = labels != ignore_index
    wrong = labels[kept & ((labels < 0) | (labels >= classes))]
    if wrong.size:
        raise IndexError(f"target {wrong[0]} is no class, expected from 0 to {classes - 1}")
    labels = np.where(kept, labels, 0)
    if weight is None:
        return input, labels, kept, kept.astype(input.dtype)
    class_weight = as_tensor(weight, "weight")
    if class_weight.shape != (classes,):
        raise ValueError(f"weight has shape {class_weight.shape}, expected ({classes},)")
    return input, labels, kept, class_weight.data[labels] * kept


def _reduced_targets(losses: Tensor, counts: Array, target: Input, reduction: str) -> Tensor:
    """Reduce the losses of the targets; a mean is that over the weights that counted."""
    if reduction == "none":
        return losses.reshape(as_tensor(target, "target").shape)
    total = losses.sum()
    return total / float(counts.sum()) if reduction == "mean" else total
