"""One way to make and run the layers of PyTorch, MindSpore and both flavours of instnorm.

What the checks of the table need and no more. Arrays are NumPy's; their memory layout
is kept.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from instnorm import nn
from instnorm.nn import mindspore
from instnorm.tensor import Tensor

__all__ = ["INSTNORM_MINDSPORE", "INSTNORM_PYTORCH", "Framework", "MindSpore", "PyTorch"]

Array: TypeAlias = npt.NDArray[Any]


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

    @abstractmethod
    def dtype(self, name: str) -> Any:
        """Return the framework's dtype of this name."""

    @abstractmethod
    def call(self, layer: Any, x: Array) -> Array:
        """Return the output."""

    @abstractmethod
    def output_dtype(self, layer: Any, dtype: str) -> str:
        """Call the layer with an input of shape (2, 3, 4, 4)."""

    @abstractmethod
    def state(self, layer: Any) -> dict[str, Array]:
        """Return the state of the layer by itself."""

    @abstractmethod
    def nested_names(self, layer: Any) -> list[str]:
        """Return the names in the state of a network of this one layer, without its own."""


class Instnorm(Framework):
    """Either flavour of this package."""

    def dtype(self, name: str) -> Any:
        """Return NumPy's dtype of this name."""
        if name == "bfloat16":
            importlib.import_module("ml_dtypes")  # gives NumPy the name
        return np.dtype(name)

    def call(self, layer: Any, x: Array) -> Array:
        """Return the output."""
        output: Array = layer(x).data
        return output

    def gradients(self, layer: Any, x: Array, grad_output: Array) -> dict[str, Array]:
        """Return the gradients of the input and the parameters."""
        leaf = Tensor(x, requires_grad=True)
        layer(leaf).backward(grad_output)
        tensors = {"input": leaf, **dict(layer.named_parameters())}
        return {name: t.grad.data for name, t in tensors.items() if t.grad is not None}

    def output_dtype(self, layer: Any, dtype: str) -> str:
        """Call the layer with an input of shape (2, 3, 4, 4)."""
        return str(layer(_some_input().astype(self.dtype(dtype))).dtype)

    def state(self, layer: Any) -> dict[str, Array]:
        """Return the state of the layer by itself."""
        return dict(layer.state_dict())

    def nested_names(self, layer: Any) -> list[str]:
        """Return the names in the state of a network of this one layer, without its own."""
        return [name.removeprefix("0.") for name in nn.Sequential(layer).state_dict()]


class PyTorch(Framework):
    """PyTorch, where it is installed."""

    def __init__(self) -> None:
        self._torch: Any = importlib.import_module("torch")
        super().__init__(self._torch.nn)

    def dtype(self, name: str) -> Any:
        """Return PyTorch's dtype of this name."""
        return getattr(self._torch, name)

    def call(self, layer: Any, x: Array) -> Array:
        """Return the output."""
        with self._torch.no_grad():
            output: Array = layer(self._torch.from_numpy(x)).numpy()
        return output

    def gradients(self, layer: Any, x: Array, grad_output: Array) -> dict[str, Array]:
        """Return the gradients of the input and the parameters."""
        leaf = self._torch.from_numpy(x).requires_grad_()
        layer(leaf).backward(self._torch.from_numpy(grad_output))
        tensors = {"input": leaf, **dict(layer.named_parameters())}
        return {name: t.grad.numpy() for name, t in tensors.items() if t.grad is not None}

    def output_dtype(self, layer: Any, dtype: str) -> str:
        """Call the layer with an input of shape (2, 3, 4, 4)."""
        x = self._torch.from_numpy(_some_input()).to(self.dtype(dtype))
        return str(layer(x).dtype).removeprefix("torch.")

    def state(self, layer: Any) -> dict[str, Array]:
        """Return the state of the layer by itself."""
        return {name: value.numpy() for name, value in layer.state_dict().items()}

    def nested_names(self, layer: Any) -> list[str]:
        """Return the names in the state of a network of this one layer, without its own."""
        return [name.removeprefix("0.") for name in self._torch.nn.Sequential(layer).state_dict()]


class MindSpore(Framework):
    """MindSpore, where it is installed."""

    def __init__(self) -> None:
        self._mindspore: Any = importlib.import_module("mindspore")
        super().__init__(self._mindspore.nn, forward="construct")

    def dtype(self, name: str) -> Any:
        """Return MindSpore's dtype of this name."""
        return getattr(self._mindspore, name)

    def call(self, layer: Any, x: Array) -> Array:
        """Return the output."""
        output: Array = layer(self._mindspore.Tensor(x)).asnumpy()
        return output

    def output_dtype(self, layer: Any, dtype: str) -> str:
        """Call the layer with an input of shape (2, 3, 4, 4)."""
        return str(self.call(layer, _some_input().astype(dtype)).dtype)

    def state(self, layer: Any) -> dict[str, Array]:
        """Return the state of the layer by itself."""
        return {name: value.asnumpy() for name, value in layer.parameters_dict().items()}

    def nested_names(self, layer: Any) -> list[str]:
        """Return the names in the state of a network of this one layer, without its own."""
        names = self._mindspore.nn.SequentialCell([layer]).parameters_dict()
        return [name.removeprefix("0.") for name in names]


INSTNORM_PYTORCH = Instnorm(nn)
INSTNORM_MINDSPORE = Instnorm(mindspore)


def _some_input() -> Array:
    return np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
