"""Gradients that are kept within bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from instnorm.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale the gradients, in place, so that their norm all together is at most `max_norm`.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient count for nothing.
    max_norm : float
    norm_type : float, default 2.0
        The p of the norm; infinity for the largest absolute value.
    error_if_nonfinite : bool, default False
        Whether a norm that is NaN or infinite is an error.

    Returns
    -------
    Tensor
        The norm before.

    Raises
    ------
    RuntimeError
        If the norm is not finite and `error_if_nonfinite` is set.

    Examples
    --------
    >>> import instnorm
    >>> w = instnorm.tensor([1.0, 1.0], requires_grad=True)
    >>> (w * instnorm.tensor([30.0, 40.0])).sum().backward()
    >>> instnorm.nn.utils.clip_grad_norm_([w], max_norm=1.0)
    tensor(50.)
    >>> round(w.grad.norm().item(), 4)
    1.0
    """
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    grads = [p.grad for p in given if p.grad is not None]
    if not grads:
        return Tensor(0.0)
    norms = np.stack([grad.detach().norm(norm_type).data for grad in grads])
    total = Tensor(norms).norm(norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"the total norm of the gradients is {total.item()}, and error_if_nonfinite is set"
        )
    scale = min(max_norm / (total.item() + 1e-6), 1.0)
    for grad in grads:
        grad.data *= grad.dtype.type(scale)
        grad.mark_changed()
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of the gradients, in place, into ``[-clip_value, clip_value]``."""
    for parameter in [parameters] if isinstance(parameters, Tensor) else parameters:
        if parameter.grad is not None:
            np.clip(parameter.grad.data, -clip_value, clip_value, out=parameter.grad.data)
            parameter.grad.mark_changed()
