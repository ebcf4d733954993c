"""float64 at the ends of its range, and far from zero, against longdouble, which has more of it."""

import numpy as np
import pytest
from helpers import reference
from helpers.layouts import channels_last, contiguous

import instnorm
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


# --- beside other rows, and with what follows the affine map -----------------------------------

FAR = [2.0**600, 2.0**-600]


@both_layouts
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("factor", FAR)
def test_rows_beside_keep_their_bits(factor, length, layout):
    rng = np.random.default_rng(length)
    x, g = rng.standard_normal((2, 2, 11, length))
    scaled = x.copy()
    scaled[1, 4] *= factor
    others = np.ones((2, 11), bool)
    others[1, 4] = False

    def results(x):
        y, mean, rstd = instance_norm(layout(x), eps=0.0, return_stats=True)
        dx, _, _ = instance_norm_backward(layout(g), layout(x), mean=mean, rstd=rstd)
        return np.array(y), mean, rstd, np.array(dx)

    for name, expected, found in zip(
        ("y", "mean", "rstd", "dx"), results(x), results(scaled), strict=True
    ):
        if name == "dx" and layout is channels_last:
            # A sample's channels go the same way, here another one than without.
            np.testing.assert_allclose(found[others], expected[others], rtol=0, atol=100 * EPS)
            np.testing.assert_array_equal(found[0], expected[0])
        else:
            np.testing.assert_array_equal(found[others], expected[others])


@both_layouts
@pytest.mark.parametrize("length", [12, *LENGTHS[1:]])
@pytest.mark.parametrize("factor", FAR)
@pytest.mark.parametrize("mask", [None, "prefix", "scattered"])
def test_scale_is_all_that_x_loses(factor, length, layout, mask):
    rng = np.random.default_rng(length)
    x, g, residual = rng.standard_normal((3, 2, 9, length))
    weight, bias = rng.uniform(0.5, 2, (2, 9))
    options = {"residual": layout(residual), "activation": "leaky_relu"}
    options["negative_slope"] = rng.uniform(0.1, 0.5, 9)
    if mask == "prefix":
        options["mask"] = np.arange(length) < np.array([[4], [length - 3]])
    elif mask == "scattered":
        options["mask"] = rng.random((2, length)) < 0.7

    def results(x):
        y, mean, rstd = instance_norm(
            layout(x), weight, bias, eps=0.0, return_stats=True, **options
        )
        gradients = instance_norm_backward(
            layout(g), layout(x), weight, bias=bias, mean=mean, rstd=rstd, **options
        )
        return [y, *gradients]

    expected, found = results(x), results(x * factor)
    found[1] = found[1] * factor
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=50 * EPS * max(1, np.abs(e).max()))


@both_layouts
@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("factor", FAR)
def test_threads_change_no_bit(factor, layout):
    x, g = sample(300_000)
    found = []
    for threads in (1, 2, 3):
        instnorm.set_num_threads(threads)
        y, mean, rstd = instance_norm(layout(x * factor), eps=0.0, return_stats=True)
        dx, _, _ = instance_norm_backward(layout(g), layout(x * factor), mean=mean, rstd=rstd)
        found.append([y, mean, rstd, dx])
    for others in found[1:]:
        for a, e in zip(others, found[0], strict=True):
            np.testing.assert_array_equal(a, e)


@both_layouts
@pytest.mark.parametrize("length", LENGTHS)
def test_in_place_at_any_spread(length, layout):
    x, g = sample(length)
    x *= 1e200
    y, mean, rstd = instance_norm(layout(x), return_stats=True)
    dx, _, _ = instance_norm_backward(layout(g), layout(x), mean=mean, rstd=rstd)
    x_there, g_there = layout(x), layout(g)
    instance_norm_backward(g_there, x_there, mean=mean, rstd=rstd, out=g_there)
    instance_norm(x_there, out=x_there)
    np.testing.assert_array_equal(x_there, y)
    np.testing.assert_array_equal(g_there, dx)


@both_layouts
@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_no_number_and_what_is_constant(length, layout):
    x, _ = sample(length)
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = x * 1e200
        spoilt[0, 1, 3] = bad
        y = instance_norm(layout(spoilt), eps=0.0)
        assert np.isnan(y[0, 1]).any()
        assert np.isfinite(y[0, 0]).all()
    for constant in (0.0, 1e-310, 7.0, 1e300):
        assert not instance_norm(layout(np.full_like(x, constant)), eps=0.0).any()


@both_layouts
def test_sums_over_many_elements_beside_a_row_of_large_spread(layout):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 3, 84_000))
    x[:, 1] *= 1e200
    # Sums of the same sign, whose roundings add up.
    g = np.arange(84_000) * 0.1 + rng.standard_normal(x.shape)
    assert max(errors(x, g, 1e-5, layout)) < 16
