"""Slow twins of the kernels, written from the formulas in NumPy and knowing nothing of them.

`forward` and `backward` work in longdouble, over whole arrays. `exact_row` works in
rational numbers: it is what the others, and the promise about ulps, are held to.
"""

from decimal import Decimal, localcontext
from fractions import Fraction

import ml_dtypes
import numpy as np

LONG = np.longdouble


def spatial(x):
    return tuple(range(2, x.ndim))


def rows(statistic, x):
    """A (C,) or (N, C) array in a shape that broadcasts with x."""
    statistic = np.broadcast_to(np.asarray(statistic, LONG), x.shape[:2])
    return statistic.reshape(x.shape[:2] + (1,) * (x.ndim - 2))


def per_channel(parameter, x, default):
    if parameter is None:
        return LONG(default)
    return np.asarray(parameter).astype(LONG).reshape((1, -1) + (1,) * (x.ndim - 2))


def statistics(x):
    """Mean and biased variance over the spatial axes, in longdouble, axes kept.

    Two passes over the differences: the first mean is rounded, the second makes up for it.
    The mean comes in two parts, so that x minus both loses nothing.
    """
    x = np.asarray(x).astype(LONG)
    rough = x.mean(spatial(x), keepdims=True)
    rest = (x - rough).mean(spatial(x), keepdims=True)
    centred = (x - rough) - rest
    return rough, rest, (centred**2).mean(spatial(x), keepdims=True)


def forward(x, weight=None, bias=None, *, mean=None, var=None, eps=1e-5):
    """Instance norm of an array of shape (N, C, spatial...), in longdouble."""
    own_mean, rest, own_var = statistics(x)
    if mean is not None:
        own_mean, rest = rows(mean, x), LONG(0)
    total = (own_var if var is None else rows(var, x)) + LONG(eps)
    with np.errstate(divide="ignore"):
        rstd = np.where(total == 0, LONG(0), 1 / np.sqrt(total))
    x_hat = ((np.asarray(x).astype(LONG) - own_mean) - rest) * rstd
    return x_hat * per_channel(weight, x, 1) + per_channel(bias, x, 0)


def backward(grad_output, x, weight=None, *, eps=1e-5):
    """Gradients for input, weight and bias, by way of the chain rule step by step.

    y = w h + b; h = d r; d = x - m; r = (v + eps)^(-1/2); v = mean(d^2); m = mean(x).
    """
    axes = spatial(x)
    g = np.asarray(grad_output).astype(LONG)
    mean, rest, var = statistics(x)
    d = (np.asarray(x).astype(LONG) - mean) - rest
    total = var + LONG(eps)
    with np.errstate(divide="ignore"):
        r = np.where(total == 0, LONG(0), 1 / np.sqrt(total))
    grad_weight = (g * d * r).sum((0, *axes))
    grad_bias = g.sum((0, *axes))
    grad_h = g * per_channel(weight, x, 1)
    grad_r = (grad_h * d).sum(axes, keepdims=True)
    grad_v = grad_r * (-(r**3) / 2)
    count = np.prod([x.shape[axis] for axis in axes])
    grad_d = grad_h * r + grad_v * 2 * d / count
    grad_input = grad_d - grad_d.mean(axes, keepdims=True)
    return grad_input, grad_weight, grad_bias


def backward_given(grad_output, x, weight=None, *, mean, rstd):
    """The same where the statistics are constants."""
    g = np.asarray(grad_output).astype(LONG)
    h = (np.asarray(x).astype(LONG) - rows(mean, x)) * rows(rstd, x)
    over = (0, *spatial(x))
    return g * per_channel(weight, x, 1) * rows(rstd, x), (g * h).sum(over), g.sum(over)


def gradient_scale(grad_output, x, weight, eps):
    """The size of the terms that grad_input is made of: what rounding is relative to."""
    mean, rest, var = statistics(x)
    rstd = 1 / np.sqrt(var + LONG(eps))
    x_hat = np.abs(np.asarray(x).astype(LONG) - mean - rest) * rstd
    g = np.abs(np.asarray(grad_output).astype(LONG))
    axes = spatial(x)
    terms = g + g.mean(axes, keepdims=True) + x_hat * (g * x_hat).mean(axes, keepdims=True)
    return np.abs(per_channel(weight, x, 1)) * rstd * terms


def exact_row(x, weight=1.0, bias=0.0, eps=1e-5):
    """One row, each element as a Fraction that is right to some 50 digits."""
    values = [Fraction(float(v)) for v in x]
    mean = sum(values) / len(values)
    total = sum((v - mean) ** 2 for v in values) / len(values) + Fraction(eps)
    with localcontext() as context:
        context.prec = 60
        root = (Decimal(total.numerator) / Decimal(total.denominator)).sqrt()
    scale = Fraction(float(weight)) / Fraction(root) if root else Fraction(0)
    return [(v - mean) * scale + Fraction(float(bias)) for v in values]


def ulps(actual, exact):
    """Error of each element in units in the last place, at the scale max(1, |exact|)."""
    scale = np.maximum(1, np.abs(exact)).astype(actual.dtype)
    return np.abs(actual.astype(LONG) - exact) / np.spacing(scale).astype(LONG)


def last_place(exact, dtype):
    """The unit in the last place of each element, once it is of this dtype."""
    info = ml_dtypes.finfo(dtype)
    _, exponent = np.frexp(exact)
    return np.ldexp(LONG(1), np.maximum(exponent - 1, info.minexp) - info.nmant)


def rounded(exact, dtype):
    """Longdouble values in another dtype, rounded once, ties to even."""
    unit = last_place(exact, dtype)
    with np.errstate(over="ignore"):
        return (np.rint(exact / unit) * unit).astype(np.float64).astype(dtype)
