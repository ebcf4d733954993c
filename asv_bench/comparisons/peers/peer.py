"""What a peer is: a way to compute instance norm that can be timed.

A peer has a `name` (for the command line), a `label` (for table and picture) and two
methods. Each takes a Case and returns a function of no arguments, which computes the
result anew at each call, and which is what is timed.

`forward` gives y; `training` gives y and the gradients of input, weight and bias.
`arrays` brings what these functions return to ndarrays of the case's shape.
"""

from typing import Any

import numpy as np
from benchmarks.common import Inputs, dtype_named

EPS = 1e-5
PASSES = {"forward": "forward", "forward+backward": "training"}


class NotSupportedError(Exception):
    """The peer cannot compute this case; the message says why."""


class Case(Inputs):
    """One shape, dtype and layout, with its arrays."""

    def __init__(self, shape, dtype, layout):
        super().__init__(shape, dtype, layout)
        self.shape, self.dtype, self.layout = shape, dtype_named(dtype), layout

    @property
    def axes(self):
        return tuple(range(2, len(self.shape)))

    def per_channel(self, parameter):
        """A parameter in a shape that broadcasts with x."""
        return parameter.reshape((-1,) + (1,) * len(self.axes))


class Peer:
    """Base of the peers: how their results become ndarrays."""

    name = label = ""

    def forward(self, case):
        raise NotImplementedError

    def training(self, case):
        raise NotImplementedError

    def arrays(self, case: Case, result: Any):
        return tuple(np.asarray(part) for part in result)


def exact(case):
    """y and the three gradients in float64, from the formulas."""
    x, g, weight = (a.astype(np.float64) for a in (case.x, case.grad_output, case.weight))
    mean = x.mean(case.axes, keepdims=True)
    x -= mean
    rstd = 1 / np.sqrt((x**2).mean(case.axes, keepdims=True) + EPS)
    x *= rstd
    weight = case.per_channel(weight)
    y = x * weight + case.per_channel(case.bias.astype(np.float64))
    over = (0, *case.axes)
    grad_weight, grad_bias = (g * x).sum(over), g.sum(over)
    slope = (g * x).mean(case.axes, keepdims=True)
    g -= g.mean(case.axes, keepdims=True)
    g -= x * slope
    g *= weight * rstd
    return y, g, grad_weight, grad_bias


def error(results, expected):
    """The largest error of any part, relative to the part's largest element or 1."""
    errors = [_part_error(*parts) for parts in zip(results, expected, strict=True)]
    return np.inf if np.isnan(errors).any() else max(errors)


def _part_error(actual, right):
    if actual.shape != right.shape:
        return np.inf
    return float(np.abs(actual - right).max() / max(1.0, right.max(), -right.min()))


# Well above what rounding does to any formula in the dtype, well below a wrong formula.
TOLERANCE = {"float64": 1e-10, "float32": 2e-3, "float16": 1e-2, "bfloat16": 8e-2}
