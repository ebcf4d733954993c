"""Instance norm problems with their answers: inputs, exact results, and how far off each may be."""

import functools
from typing import NamedTuple

import ml_dtypes
import numpy as np

from helpers import reference
from instnorm import instance_norm, instance_norm_backward

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HALF = [np.dtype(np.float16), BFLOAT16]
DTYPES = [np.dtype(np.float32), np.dtype(np.float64), *HALF]

NAMES = ("y", "grad_input", "grad_weight", "grad_bias")


class Problem(NamedTuple):
    """Read-only arrays in C order, and what the four results must be."""

    x: np.ndarray
    grad_output: np.ndarray
    weight: np.ndarray | None
    bias: np.ndarray | None
    eps: float
    exact: tuple[np.ndarray, ...]
    allowed: tuple[np.ndarray, ...]


@functools.lru_cache(maxsize=8)
def problem(shape, dtype, parameter_dtype=None, *, affine=True, grad_dtype=None):
    """A problem of random numbers; parameters are of the dtype of x unless told otherwise."""
    dtype = np.dtype(dtype)
    parameter_dtype = np.dtype(parameter_dtype or dtype)
    rng = np.random.default_rng(shape)
    x = (1.6 * rng.standard_normal(shape) + 0.7).astype(dtype)
    g = (rng.standard_normal(shape) + 0.02).astype(grad_dtype or dtype)
    weight, bias = rng.uniform(0.5, 2, (2, shape[1])).astype(parameter_dtype)
    if not affine:
        weight = bias = None
    for array in (x, g):
        array.flags.writeable = False
    return posed(x, g, weight, bias)


def working_resolution(dtype):
    return np.finfo(np.float64 if dtype == np.float64 else np.float32).eps


def posed(x, g, weight, bias, eps=1e-3):
    """The problem of these arrays, solved in longdouble.

    Kernels may be off by some roundings in their working precision, at the scale of the
    terms that a result is the sum of, and by one rounding to half precision at the end.
    Backward gets the mean as float64, which itself is off by up to half a digit.
    """
    rough, rest, var = reference.statistics(x)
    x_hat = reference.forward(x, eps=eps)
    w, b = reference.per_channel(weight, x, 1), reference.per_channel(bias, x, 0)
    exact = (x_hat * w + b, *reference.backward(g, x, weight, eps=eps))

    long_g, over = np.abs(g.astype(reference.LONG)), (0, *reference.spatial(x))
    mean_error = np.abs(rough + rest) / np.sqrt(var + eps) * np.finfo(np.float64).eps
    parameter_dtype = x.dtype if weight is None else weight.dtype
    working = 4 * working_resolution(x.dtype)
    coarser = max(working, 4 * working_resolution(parameter_dtype))
    allowed = (
        working * (np.maximum(1, np.abs(x_hat)) * np.abs(w) + np.abs(b)),
        (working + mean_error) * reference.gradient_scale(g, x, weight, eps),
        (long_g * (coarser * np.abs(x_hat) + mean_error)).sum(over),
        (long_g * coarser).sum(over),
    )
    dtypes = (x.dtype, x.dtype, parameter_dtype, parameter_dtype)
    allowed = tuple(
        size + (reference.last_place(value, dtype) / 2 if dtype in HALF else 0)
        for size, value, dtype in zip(allowed, exact, dtypes, strict=True)
    )
    return Problem(x, g, weight, bias, eps, exact, allowed)


def solve(p, x=None, grad_output=None):
    """Results by the array functions, of the problem's arrays or of copies in other layouts."""
    x = p.x if x is None else x
    grad_output = p.grad_output if grad_output is None else grad_output
    y, mean, rstd = instance_norm(x, p.weight, p.bias, eps=p.eps, return_stats=True)
    gradients = instance_norm_backward(grad_output, x, p.weight, mean=mean, rstd=rstd)
    return (y, *gradients)


def assert_right(p, results, where=""):
    """Hold results, in the order of `NAMES` and perhaps fewer, to the exact ones."""
    for name, actual, exact, allowed in zip(NAMES, results, p.exact, p.allowed, strict=False):
        assert actual.shape == exact.shape, name
        error = np.abs(actual.astype(reference.LONG) - exact)
        assert (error <= allowed).all(), (
            f"{name} is off by {np.max(error / allowed):.3g} times what is allowed {where}"
        )


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
