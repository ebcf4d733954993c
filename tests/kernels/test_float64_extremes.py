"""float64 at the ends of its range, and far from zero, against longdouble, whose range is larger."""

import numpy as np
import pytest
from helpers import reference
from helpers.layouts import channels_last, contiguous

from instnorm import instance_norm, instance_norm_backward

EPS = np.finfo(np.float64).eps
LENGTHS = [5, 300, 5000]  # short rows, one block, two blocks

pytestmark = pytest.mark.skipif(
    np.finfo(np.longdouble).maxexp <= np.finfo(np.float64).maxexp,
    reason="longdouble is no larger than float64 here",
)
both_layouts = pytest.mark.parametrize("layout", [contiguous, channels_last])


def errors(x, g, eps, layout):
    """Of y, grad_input and grad_weight, in eps at the scale of the terms that they are made of."""
    exact_y = reference.forward(x, eps=eps)
    exact_dx, exact_dw, _ = reference.backward(g, x, eps=eps)
    y, mean, rstd = instance_norm(layout(x), eps=eps, return_stats=True)
    dx, dw, _ = instance_norm_backward(layout(g), layout(x), mean=mean, rstd=rstd)
    long_g = np.abs(g.astype(reference.LONG))
    scales = (
        np.maximum(1, np.abs(exact_y)),
        reference.gradient_scale(g, x, None, eps),
        (long_g * np.abs(exact_y)).sum(axis=(0, 2)),
    )
    pairs = zip((y, dx, dw), (exact_y, exact_dx, exact_dw), scales, strict=True)
    return [float((np.abs(a - e) / scale).max()) / EPS for a, e, scale in pairs]


def sample(length, seed=0):
    rng = np.random.default_rng([seed, length])
    return rng.standard_normal((1, 2, length)), rng.standard_normal((1, 2, length))


@both_layouts
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("spread", [1e50, 1e99, 1e101, 1e150, 1e155, 1e200, 1e300, 1e306])
def test_large_spreads(spread, length, layout):
    x, g = sample(length)
    assert max(errors(x * spread, g, 1e-5, layout)) < 8


@both_layouts
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("spread", [1e-50, 1e-99, 1e-101, 1e-150, 1e-160, 1e-200, 1e-300, 1e-306])
def test_small_spreads_without_eps(spread, length, layout):
    x, g = sample(length)
    assert max(errors(x * spread, g, 0.0, layout)) < 8


@both_layouts
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("spread", [1e-310, 1e-200, 1e-160])
def test_small_spreads_with_eps(spread, length, layout):
    x, g = sample(length)
    error_y, error_dx, _ = errors(x * spread, g, 1e-5, layout)
    assert max(error_y, error_dx) < 8


@both_layouts
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("mean", [0.0, 10.0, 1e3, 1e5])
def test_y_far_from_zero(mean, length, layout):
    x, g = sample(length)
    assert errors(x + mean, g, 1e-5, layout)[0] < 8


@both_layouts
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("mean", [0.0, 1.0, 1e3, 1e4, 1e5])
def test_grad_input_far_from_zero(mean, length, layout):
    x, g = sample(length)
    assert errors(x + mean, g, 1e-5, layout)[1] < 8
