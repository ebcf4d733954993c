"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from instnorm._layouts import Array
from instnorm._runtime.simd import layers
from instnorm.optim.optimizer import Optimizer, check_number
from instnorm.tensor import Tensor


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum as PyTorch defines it.

    For each parameter :math:`\theta` with gradient :math:`g`, in this order:

    .. math::
        g &\leftarrow -g \quad \text{if maximize} \\
        g &\leftarrow g + \mathrm{weight\_decay} \cdot \theta \\
        b &\leftarrow \mathrm{momentum} \cdot b + (1 - \mathrm{dampening}) \cdot g
            \quad (b = g \text{ at the first step}) \\
        g &\leftarrow g + \mathrm{momentum} \cdot b \text{ if nesterov, else } b \\
        \theta &\leftarrow \theta - lr \cdot g

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        What to optimize; a dict has the key 'params', and options of its own.
    lr : float, default 1e-3
        Learning rate.
    momentum : float, default 0
    dampening : float, default 0
    weight_decay : float, default 0
        Weight of the L2 penalty.
    nesterov : bool, default False
        Needs momentum, and no dampening.
    maximize : bool, default False
        Whether to go up rather than down.

    Raises
    ------
    ValueError
        If an option is out of range or not finite, there are no parameters, or one
        comes twice.
    TypeError
        If `params` is a Tensor itself, or holds something else than Tensors.

    References
    ----------
    torch.optim.SGD of PyTorch 2.13; I. Sutskever et al., "On the importance of
    initialization and momentum in deep learning", 2013

    Examples
    --------
    >>> import instnorm
    >>> w = instnorm.tensor([1.0], requires_grad=True)
    >>> optimizer = instnorm.optim.SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8], requires_grad=True)
    """

    _arrays = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _update(self, param: Tensor, grad: Array, options: dict[str, Any]) -> None:
        if not self._update_in_one_pass(param, grad, options):
            self._update_step_by_step(param, grad, options)

    def _update_in_one_pass(self, param: Tensor, grad: Array, options: dict[str, Any]) -> bool:
        """Let the compiled loop do it; False, and nothing done, where it cannot take the arrays."""
        buffer, first = None, False
        if options["momentum"] != 0:
            buffer = self.state.get(param, {}).get("momentum_buffer")
            first = buffer is None
            if first:
                buffer = np.empty_like(param.data)
        done = layers.descend_step(
            param.data,
            grad,
            buffer,
            first,
            lr=float(options["lr"]),
            momentum=float(options["momentum"]),
            dampening=float(options["dampening"]),
            weight_decay=float(options["weight_decay"]),
            nesterov=bool(options["nesterov"]),
            maximize=False,
        )
        if done and buffer is not None:
            self.state.setdefault(param, {})["momentum_buffer"] = buffer
        return done

    def _update_step_by_step(self, param: Tensor, grad: Array, options: dict[str, Any]) -> None:
        if options["weight_decay"] != 0:
            grad = grad + options["weight_decay"] * param.data
        if options["momentum"] != 0:
            state = self.state.setdefault(param, {})
            buffer = state.get("momentum_buffer")
            if buffer is None:
                buffer = state["momentum_buffer"] = np.array(grad)  # also of a NumPy scalar
            else:
                buffer *= options["momentum"]
                buffer += (1 - options["dampening"]) * grad
            grad = grad + options["momentum"] * buffer if options["nesterov"] else buffer
        param.data -= options["lr"] * grad

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            check_number(options, name)
        check_number(options, "dampening", least=None)
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError(
                "nesterov needs a momentum and no dampening, got "
                f"momentum={options['momentum']} and dampening={options['dampening']}"
            )
