"""Activations as layers; `inplace` is taken for PyTorch's sake, the result is a new Tensor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from instnorm import functional as F
from instnorm.functional import Input
from instnorm.nn.module import Module
from instnorm.nn.parameter import Parameter, checked_dtype
from instnorm.tensor import Tensor


class ReLU(Module):
    """``max(0, x)``."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Input) -> Tensor:
        """Rectify."""
        return F.relu(input)

    def extra_repr(self) -> str:
        """Return what is not the default."""
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """``x`` above 0, ``negative_slope * x`` below."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Input) -> Tensor:
        """Rectify."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """``x`` above 0, ``weight * x`` below: a slope that is learned.

    Parameters
    ----------
    num_parameters : int, default 1
        One slope for all channels, or one for each.
    init : float, default 0.25
        The slope to start with.
    device : {None, 'cpu'}, optional
        For PyTorch's sake.
    dtype : dtype, optional
        float32 by default.
    """

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Parameter(np.full(num_parameters, init, checked_dtype(device, dtype)))

    def forward(self, input: Input) -> Tensor:
        """Rectify."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """Return the number of slopes."""
        return f"num_parameters={self.num_parameters}"


class GELU(Module):
    """``x`` times the normal distribution function of x; see `functional.gelu`."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Input) -> Tensor:
        """Apply the function to each element."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """Return the way it is computed."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """``x * sigmoid(x)``."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Input) -> Tensor:
        """Apply the function to each element."""
        return F.silu(input)

    def extra_repr(self) -> str:
        """Return what is not the default."""
        return "inplace=True" if self.inplace else ""


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, input: Input) -> Tensor:
        """Apply the function to each element."""
        return F.tanh(input)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    def forward(self, input: Input) -> Tensor:
        """Apply the function to each element."""
        return F.sigmoid(input)


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` along the axis `dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Input) -> Tensor:
        """Normalize along the axis."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """``x - log(sum(exp(x)))`` along the axis `dim`."""

    def forward(self, input: Input) -> Tensor:
        """Normalize along the axis."""
        return F.log_softmax(input, self.dim)


class Softplus(Module):
    """``log(1 + exp(x))``: a positive number."""

    def forward(self, input: Input) -> Tensor:
        """Compute the function."""
        return F.softplus(input)

    def extra_repr(self) -> str:
        """Return PyTorch's arguments, which are always these."""
        return "beta=1.0, threshold=20.0"
