"""What optimizers share: parameter groups, their options, and the state dict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from instnorm._layouts import Array
from instnorm.autograd import enable_grad
from instnorm.nn.module import array_from
from instnorm.tensor import Tensor


class Optimizer:
    """Base of optimizers: a subclass defines `_update`, and checks its options.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        What to optimize; a dict has the key 'params', and options of its own.
    defaults : dict
        The options of parameters that have none of their own.

    Attributes
    ----------
    param_groups : list of dict
        'params', the Tensors, and their options, which may be changed between steps.
    state : dict from Tensor to dict
        What is kept of each parameter from step to step: arrays of its shape, by PyTorch's
        names, and the number of steps.
    """

    #: Names in the state of a parameter that are arrays of its shape.
    _arrays: ClassVar[tuple[str, ...]]

    def __init__(
        self, params: Iterable[Tensor] | Iterable[dict[str, Any]], defaults: dict[str, Any]
    ) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of Tensors, got a Tensor; put it in a list")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
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
        self._check_options(group)
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
        for param in self._params():
            none = set_to_none or param.grad is None
            param.grad = None if none else param.grad.zeros_like()  # type: ignore[union-attr]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients, and returns the loss, which is returned.
        """
        for group in self.param_groups:
            self._check_options(group)
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param._grad is not None:
                    grad = param._grad.data
                    grad = np.asarray(-grad) if group["maximize"] else grad
                    self._update(param, grad, group)
                    param.mark_changed()
        return loss

    def _update(self, param: Tensor, grad: Array, options: dict[str, Any]) -> None:
        """Change ``param.data`` in place, going down along `grad`."""
        raise NotImplementedError(f"{type(self).__name__} must define _update()")

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raise an error if an option of a group is out of range."""

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept of the parameters, numbered in order, and their options.

        Returns
        -------
        dict
            'state': from a parameter's number to its state; 'param_groups': the options,
            and the numbers under 'params'.
        """
        numbers = {param: i for i, param in enumerate(self._params())}
        groups = [
            {**group, "params": [numbers[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        # In the parameters' order, whichever had a gradient first.
        state = {i: dict(self.state[p]) for p, i in numbers.items() if p in self.state}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, PyTorch's too, for the same parameters.

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
        state = {}
        for number, loaded in state_dict["state"].items():
            if not 0 <= int(number) < len(params):
                raise ValueError(
                    f"state_dict has the state of a parameter {number}, expected numbers from 0 "
                    f"to {len(params) - 1}"
                )
            param = params[int(number)]
            if found := self._loaded(loaded, number, param):
                state[param] = found
        for loaded in groups:
            self._check_options({**self.defaults, **loaded})
        self.state = state
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update({k: loaded[k] for k in loaded if k in self.defaults or k == "initial_lr"})

    def _loaded(self, loaded: Mapping[str, Any], number: object, param: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for name in self._arrays:
            if loaded.get(name) is None:
                continue
            array = array_from(loaded[name])
            if array.shape != param.shape:
                raise ValueError(
                    f"{name} of parameter {number} has shape {array.shape}, expected {param.shape}"
                )
            state[name] = np.array(array, dtype=param.dtype)
        if "step" in loaded:
            state["step"] = int(loaded["step"])
        return state

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.defaults.items())
        return f"{type(self).__name__}({options}, {len(self._params())} parameters)"


def check_number(options: Mapping[str, Any], name: str, least: float | None = 0) -> None:
    """Raise an error unless an option is a finite number, and at least `least`."""
    value = options[name]
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not (math.isfinite(value) and (least is None or value >= least)):
        bound = "" if least is None else f" and at least {least}"
        raise ValueError(f"{name} must be finite{bound}, got {value}")
