"""One way to make and run the layers of PyTorch, MindSpore and both flavours of instnorm.

What the checks of the table need and no more. Arrays are NumPy's; their memory layout
is kept.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from instnorm import nn
from instnorm._layouts import Array
from instnorm.nn import mindspore
from instnorm.tensor import Tensor


class Framework(ABC):
    """A namespace with InstanceNorm1d, 2d and 3d.

    Parameters
    ----------
    namespace : module
    forward : str
        The name of the method that computes.
    """

    def __init__(self, namespace: Any, forward: str = "forward") -> None:
        self.namespace = namespace
        self._forward = forward

    def layer_class(self, rank: int = 2) -> Any:
        """Return InstanceNorm1d, 2d or 3d."""
        return getattr(self.namespace, f"InstanceNorm{rank}d")

    def layer(self, num_features: Any = 3, *, rank: int = 2, **options: Any) -> Any:
        """Make a layer, of three channels unless told otherwise."""
        return self.layer_class(rank)(num_features, **options)

    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Return the constructor's parameters."""
        return inspect.signature(self.layer_class().__init__).parameters

    def input_name(self) -> str:
        """Return the name of what a layer is called with."""
        return list(inspect.signature(getattr(self.layer_class(), self._forward)).parameters)[1]

    def documentation(self) -> str:
        """Return the class's docstring, with single spaces."""
        return " ".join((self.layer_class().__doc__ or "").split())

    def call(self, layer: Any, x: Array) -> Array:
        """Return the output."""
        return self.array(layer(self.tensor(x)))

    def gradients(self, layer: Any, x: Array, grad_output: Array) -> dict[str, Array]:
        """Return the gradients of the input and the parameters."""
        leaf = self.tensor(x)
        leaf.requires_grad = True
        layer(leaf).backward(self.tensor(grad_output))
        tensors = {"input": leaf, **dict(layer.named_parameters())}
        return {name: self.array(t.grad) for name, t in tensors.items() if t.grad is not None}

    def output_dtype(self, layer: Any, dtype: str) -> str:
        """Call the layer with an input of shape (2, 3, 4, 4)."""
        x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
        return str(layer(self.tensor(x, dtype)).dtype).removeprefix("torch.").lower()

    def nested_names(self, layer: Any) -> list[str]:
        """Return the names in the state of a network of this one layer, without its own."""
        return [name.removeprefix("0.") for name in self.state(self.network_of(layer))]

    @abstractmethod
    def dtype(self, name: str) -> Any:
        """Return the framework's dtype of this name."""

    @abstractmethod
    def tensor(self, x: Array, dtype: str = "float32") -> Any:
        """Make a tensor of the framework's."""

    @abstractmethod
    def array(self, tensor: Any) -> Array:
        """Return a tensor's values."""

    @abstractmethod
    def network_of(self, layer: Any) -> Any:
        """Make a network of one layer."""

    @abstractmethod
    def state(self, module: Any) -> dict[str, Array]:
        """Return the state of a layer by itself, or of a network."""


# ruff: noqa: D102 - from here on, methods have the docstrings of their base class


class Instnorm(Framework):
    """Either flavour of this package."""

    def dtype(self, name: str) -> Any:
        if name == "bfloat16":
            importlib.import_module("ml_dtypes")  # gives NumPy the name
        return np.dtype(name)

    def tensor(self, x: Array, dtype: str = "float32") -> Any:
        return Tensor(x.astype(self.dtype(dtype), copy=False))

    def array(self, tensor: Any) -> Array:
        return np.asarray(tensor.data)

    def network_of(self, layer: Any) -> Any:
        return nn.Sequential(layer)

    def state(self, module: Any) -> dict[str, Array]:
        return dict(module.state_dict())


class PyTorch(Framework):
    """PyTorch, where it is installed."""

    def __init__(self) -> None:
        self._torch: Any = importlib.import_module("torch")
        super().__init__(self._torch.nn)

    def dtype(self, name: str) -> Any:
        return getattr(self._torch, name)

    def tensor(self, x: Array, dtype: str = "float32") -> Any:
        return self._torch.from_numpy(x).to(self.dtype(dtype))

    def array(self, tensor: Any) -> Array:
        return np.asarray(tensor.detach())

    def network_of(self, layer: Any) -> Any:
        return self._torch.nn.Sequential(layer)

    def state(self, module: Any) -> dict[str, Array]:
        return {name: self.array(value) for name, value in module.state_dict().items()}


class MindSpore(Framework):
    """MindSpore, where it is installed."""

    def __init__(self) -> None:
        self._mindspore: Any = importlib.import_module("mindspore")
        super().__init__(self._mindspore.nn, forward="construct")

    def dtype(self, name: str) -> Any:
        return getattr(self._mindspore, name)

    def tensor(self, x: Array, dtype: str = "float32") -> Any:
        return self._mindspore.Tensor(x.astype(dtype, copy=False))

    def array(self, tensor: Any) -> Array:
        return np.asarray(tensor.asnumpy())

    def network_of(self, layer: Any) -> Any:
        return self._mindspore.nn.SequentialCell([layer])

    def state(self, module: Any) -> dict[str, Array]:
        return {name: self.array(value) for name, value in module.parameters_dict().items()}


INSTNORM_PYTORCH = Instnorm(nn)
INSTNORM_MINDSPORE = Instnorm(mindspore)
