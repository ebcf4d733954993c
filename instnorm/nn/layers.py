"""The other layers of toy models: convolution, linear, activations, pooling, containers."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from instnorm import functional as F
from instnorm.nn import init
from instnorm.nn.module import Module
from instnorm.nn.parameter import Parameter
from instnorm.tensor import Tensor


class _Affine(Module):
    """A layer with a weight and a bias."""

    def _make_parameters(
        self,
        shape: tuple[int, ...],
        bias: bool,
        dtype: npt.DTypeLike | None,
        out_channels: int,
    ) -> None:
        dtype = np.float32 if dtype is None else dtype
        self.weight = Parameter(np.empty(shape, dtype))
        self.register_parameter("bias", Parameter(np.empty(out_channels, dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly from ±1 / sqrt(fan_in), as PyTorch does."""
        fan_in, _ = init.fans(self.weight)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)


class Linear(_Affine):
    """``x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool, default True
    dtype : dtype, optional
        Of the parameters; float32 by default.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self._make_parameters((out_features, in_features), bias, dtype, out_features)

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Map the last axis."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Identity(Module):
    """The input itself; any arguments are accepted and ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Return the input."""
        return F.as_tensor(input, "input")


class Flatten(Module):
    """Join the axes from `start_dim` to `end_dim`; by default all but the first."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Flatten."""
        return F.as_tensor(input, "input").flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class ReLU(Module):
    """``max(0, x)``."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Rectify."""
        return F.relu(input)


class LeakyReLU(Module):
    """``x`` above 0, ``negative_slope * x`` below."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Rectify."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"negative_slope={self.negative_slope}"


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Apply the function to each element."""
        return F.tanh(input)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Apply the function to each element."""
        return F.sigmoid(input)


class Upsample(Module):
    """Resize to `size` or by `scale_factor`, taking the nearest element."""

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
    ) -> None:
        super().__init__()
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Resize the spatial axes."""
        return F.interpolate(input, self.size, self.scale_factor, self.mode)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        what = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{what}, mode={self.mode!r}"


class ReflectionPad2d(Module):
    """Pad images by reflection; `padding` is one width or (left, right, top, bottom)."""

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        super().__init__()
        self.padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor | npt.NDArray[Any]) -> Tensor:
        """Pad the last two axes."""
        return F.pad(input, self.padding, mode="reflect")

    def extra_repr(self) -> str:
        """Return the widths."""
        return str(self.padding)


class Sequential(Module):
    """Modules, each applied to the output of the one before.

    Parameters
    ----------
    *modules : Module
        Or one OrderedDict, whose keys name them.

    Examples
    --------
    >>> import instnorm
    >>> net = instnorm.nn.Sequential(instnorm.nn.Linear(4, 3), instnorm.nn.ReLU())
    >>> net
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            named = list(modules[0].items())
        else:
            named = [(str(i), module) for i, module in enumerate(modules)]
        for name, module in named:
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        """Apply the modules in order."""
        for module in self:
            input = module(input)
        return input

    def __iter__(self) -> Iterator[Module]:
        return (module for module in self._modules.values() if module is not None)

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(OrderedDict(list(self._modules.items())[index]))
        return list(self)[index]

    def append(self, module: Module) -> Sequential:
        """Add a module at the end, and return the Sequential."""
        self.add_module(str(len(self)), module)
        return self
