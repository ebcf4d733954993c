"""Optimizers: stochastic gradient descent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from instnorm._runtime.simd import layers
from instnorm.nn.module import array_from
from instnorm.tensor import Tensor

__all__ = ["SGD"]

_OPTIONS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")


class SGD:
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
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of Tensors, got a Tensor; put it in a list")
        self.defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        self.param_groups: list[dict[str, Any]] = []
        self._buffers: dict[Tensor, npt.NDArray[Any]] = {}
        entries = list(params)
        if not entries:
            raise ValueError("params is empty, expected at least one Tensor")
        groups = entries if isinstance(entries[0], dict) else [{"params": entries}]
        for group in groups:
            self.add_param_group(group)  # type: ignore[arg-type]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, under the key 'params', with options of their own."""
        group = {**self.defaults, **param_group}
        params = group["params"]
        group["params"] = [params] if isinstance(params, Tensor) else list(params)
        _check_options(group)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for i, param in enumerate(group["params"]):
            if not isinstance(param, Tensor):
                raise TypeError(f"params[{i}] must be a Tensor, got {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError(f"params[{i}] is the result of an operation, expected a leaf")
            if id(param) in known:
                raise ValueError(f"params[{i}] comes twice")
            known.add(id(param))
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients, or set them to zero."""
        for group in self.param_groups:
            for param in group["params"]:
                none = set_to_none or param.grad is None
                param.grad = None if none else param.grad.zeros_like()

    def step(self) -> None:
        """Update the parameters that have a gradient."""
        for group in self.param_groups:
            _check_options(group)
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._update(param, param.grad.data, group)

    def _update(self, param: Tensor, grad: npt.NDArray[Any], options: dict[str, Any]) -> None:
        if not self._update_in_one_pass(param, grad, options):
            self._update_step_by_step(param, grad, options)
        param.mark_changed()

    def _update_in_one_pass(
        self, param: Tensor, grad: npt.NDArray[Any], options: dict[str, Any]
    ) -> bool:
        """Let the compiled loop do it. False: it does not take the arrays, and nothing is done."""
        buffer, first = None, False
        if options["momentum"] != 0:
            buffer = self._buffers.get(param)
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
            maximize=bool(options["maximize"]),
        )
        if done and buffer is not None:
            self._buffers[param] = buffer
        return done

    def _update_step_by_step(
        self, param: Tensor, grad: npt.NDArray[Any], options: dict[str, Any]
    ) -> None:
        if options["maximize"]:
            grad = -grad
        if options["weight_decay"] != 0:
            grad = grad + options["weight_decay"] * param.data
        if options["momentum"] != 0:
            buffer = self._buffers.get(param)
            if buffer is None:
                buffer = self._buffers[param] = np.array(grad)  # also where it is a NumPy scalar
            else:
                buffer *= options["momentum"]
                buffer += (1 - options["dampening"]) * grad
            grad = grad + options["momentum"] * buffer if options["nesterov"] else buffer
        param.data -= options["lr"] * grad

    def state_dict(self) -> dict[str, Any]:
        """Return the momentum buffers and options, with the parameters numbered in order.

        Returns
        -------
        dict
            'state': from a parameter's number to {'momentum_buffer': ndarray};
            'param_groups': the options, and the numbers under 'params'.
        """
        params = self._params()
        state = {
            i: {"momentum_buffer": self._buffers[p]}
            for i, p in enumerate(params)
            if p in self._buffers
        }
        groups, start = [], 0
        for group in self.param_groups:
            numbers = list(range(start, start + len(group["params"])))
            start += len(numbers)
            groups.append({**group, "params": numbers})
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, for the same parameters.

        Raises
        ------
        ValueError
            If groups, numbers or shapes do not fit; nothing is changed then.
        """
        for key in ("state", "param_groups"):
            if key not in state_dict:
                raise ValueError(f"state_dict has no key {key!r}, but {list(state_dict)}")
        groups, params = state_dict["param_groups"], self._params()
        sizes = [len(g["params"]) for g in self.param_groups]
        loaded_sizes = [len(g["params"]) for g in groups]
        if loaded_sizes != sizes:
            raise ValueError(
                f"state_dict has parameter groups of sizes {loaded_sizes}, expected {sizes}"
            )
        buffers = {}
        for number, state in state_dict["state"].items():
            if not 0 <= int(number) < len(params):
                raise ValueError(
                    f"state_dict has the state of a parameter {number}, expected numbers from 0 "
                    f"to {len(params) - 1}"
                )
            param, value = params[int(number)], state.get("momentum_buffer")
            if value is None:
                continue
            buffer = array_from(value)
            if buffer.shape != param.shape:
                raise ValueError(
                    f"momentum_buffer of parameter {number} has shape {buffer.shape}, "
                    f"expected {param.shape}"
                )
            buffers[param] = np.array(buffer, dtype=param.dtype)
        for loaded in groups:
            _check_options({**self.defaults, **loaded})
        self._buffers = buffers
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update({k: loaded[k] for k in _OPTIONS if k in loaded})

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={self.defaults[name]}" for name in _OPTIONS)
        return f"SGD({options}, {len(self._params())} parameters)"


def _check_options(options: Mapping[str, Any]) -> None:
    for name in ("lr", "momentum", "weight_decay", "dampening"):
        value = options[name]
        if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
            raise TypeError(f"{name} must be a number, got {type(value).__name__}")
        if not (math.isfinite(value) and (value >= 0 or name == "dampening")):
            least = "" if name == "dampening" else " and at least 0"
            raise ValueError(f"{name} must be finite{least}, got {value}")
    if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
        raise ValueError(
            "nesterov needs a momentum and no dampening, got "
            f"momentum={options['momentum']} and dampening={options['dampening']}"
        )
