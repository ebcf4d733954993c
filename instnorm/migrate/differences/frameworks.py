"""One way to make and run the layers of PyTorch, MindSpore and both flavours of instnorm.

What the checks of the table need and no more. Arrays are NumPy's; their memory layout
is kept.
"""

from __future__ import annotations

import importlib
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from instnorm import functional, nn
from instnorm._layouts import Array
from instnorm.nn import mindspore
from instnorm.tensor import Tensor

# What a layer is made with; others are, with 3 channels.
_USUAL: dict[str, tuple[Any, ...]] = {
    "GroupNorm": (1, 3),
    "LayerNorm": ((4,),),
    "Conv2d": (3, 3, 3),
}


class Framework(ABC):
    """A namespace with InstanceNorm1d, 2d and 3d, and one layer in it that checks speak of.

    Parameters
    ----------
    namespace : module
    functions : sequence of module
        Where functions of tensors are.
    forward : str
        The name of the method that computes.
    name : str
        The layer's class.
    """

    def __init__(
        self,
        namespace: Any,
        functions: Sequence[Any] = (),
        forward: str = "forward",
        name: str = "InstanceNorm2d",
    ) -> None:
        self.namespace = namespace
        self.functions = functions
        self._forward = forward
        self._name = name

    def layer_class(self, rank: int | None = None) -> Any:
        """Return the class, for another number of axes where one is told."""
        name = self._name if rank is None else re.sub(r"\dd$", f"{rank}d", self._name)
        return getattr(self.namespace, name)

    def layer(self, *args: Any, rank: int | None = None, **options: Any) -> Any:
        """Make a layer, of three channels (in one group, of a last axis of 4) if not told."""
        if not args and "num_features" not in options:
            args = _USUAL.get(self._name, (3,))
        return self.layer_class(rank)(*args, **options)

    def sample(self) -> Array:
        """Return random input for the layer, of three channels and mean 5."""
        axes = int(self._name[-2]) if self._name[-1] == "d" else 2
        x = np.random.default_rng(0).normal(5, 2, (2, 3, *(4,) * axes))
        return x.astype(np.float32)

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
    def load(self, module: Any, state: Mapping[str, Array]) -> None:
        """Load a state the strict way."""

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

    def load(self, module: Any, state: Mapping[str, Array]) -> None:
        module.load_state_dict(state)

    def network_of(self, layer: Any) -> Any:
        return nn.Sequential(layer)

    def state(self, module: Any) -> dict[str, Array]:
        return dict(module.state_dict())


class PyTorch(Framework):
    """PyTorch, where it is installed."""

    def __init__(self, name: str = "InstanceNorm2d") -> None:
        self._torch: Any = importlib.import_module("torch")
        super().__init__(self._torch.nn, [self._torch.nn.functional], name=name)

    def dtype(self, name: str) -> Any:
        return getattr(self._torch, name)

    def tensor(self, x: Array, dtype: str = "float32") -> Any:
        return self._torch.from_numpy(x).to(self.dtype(dtype))

    def array(self, tensor: Any) -> Array:
        return np.asarray(tensor.detach())

    def load(self, module: Any, state: Mapping[str, Array]) -> None:
        module.load_state_dict({name: self._torch.from_numpy(a) for name, a in state.items()})

    def network_of(self, layer: Any) -> Any:
        return self._torch.nn.Sequential(layer)

    def state(self, module: Any) -> dict[str, Array]:
        return {name: self.array(value) for name, value in module.state_dict().items()}


class MindSpore(Framework):
    """MindSpore, where it is installed."""

    def __init__(self, name: str = "InstanceNorm2d") -> None:
        self._mindspore: Any = importlib.import_module("mindspore")
        functions = [self._mindspore.ops, self._mindspore.mint.nn.functional]
        super().__init__(self._mindspore.nn, functions, "construct", name)

    def dtype(self, name: str) -> Any:
        return getattr(self._mindspore, name)

    def tensor(self, x: Array, dtype: str = "float32") -> Any:
        return self._mindspore.Tensor(x.astype(dtype, copy=False))

    def array(self, tensor: Any) -> Array:
        return np.asarray(tensor.asnumpy())

    def load(self, module: Any, state: Mapping[str, Array]) -> None:
        m = self._mindspore
        parameters = {name: m.Parameter(m.Tensor(array)) for name, array in state.items()}
        m.load_param_into_net(module, parameters, strict_load=True)

    def network_of(self, layer: Any) -> Any:
        return self._mindspore.nn.SequentialCell([layer])

    def state(self, module: Any) -> dict[str, Array]:
        return {name: self.array(value) for name, value in module.parameters_dict().items()}


INSTNORM_PYTORCH = Instnorm(nn, [functional])
INSTNORM_MINDSPORE = Instnorm(mindspore, [functional])
