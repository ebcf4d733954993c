"""float16 and bfloat16: each result is rounded once, nothing on the way is in half precision."""

import ml_dtypes
import numpy as np
import pytest
from helpers import reference
from helpers.layouts import LAYOUTS, byte_swapped, channels_last, contiguous
from helpers.problems import BFLOAT16, DTYPES, HALF, assert_right, problem, same_bits, solve

import instnorm
from instnorm import functional as F
from instnorm import instance_norm, instance_norm_backward, nn

FLOAT16 = np.dtype(np.float16)

# Arm's own conversions, which NumPy uses, tell of those among all numbers.
signalling_nans = pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
in_both_types = pytest.mark.parametrize("dtype", HALF, ids=str)
in_every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
in_both_layouts = pytest.mark.parametrize(
    "layout", [contiguous, channels_last], ids=lambda layout: layout.__name__
)

# Rows around the width of a vector, rows of some blocks, few and many channels; all of them odd.
SIZES = [(2, 3, 3, 5), (3, 17, 9, 11), (1, 65, 40, 3), (2, 5, 61, 67), (1, 1, 203, 301)]


def sample(shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def all_numbers(dtype):
    """Every bit pattern of a half type: subnormals, both zeros, infinities and all NaNs."""
    return np.arange(2**16, dtype=np.uint16).view(dtype)


def assert_equal(actual, expected):
    """In every element, NaN where NaN is expected; as float32, for NumPy knows no bfloat16."""
    expected = np.asarray(expected).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(actual).astype(np.float32), expected)


def checkerboard(shape, dtype, size):
    x = np.empty(shape, dtype)
    rows = x.reshape(*shape[:2], -1)
    rows[..., 0::2], rows[..., 1::2] = dtype.type(size), dtype.type(-size)
    return x


# --- rounding --------------------------------------------------------------------------


def wrongly_rounded(actual, exact, largest_weight=1.0):
    """Share of the elements that are not the exact result rounded to even.

    None may be further off than by one rounding and the 2 ulps that float32 is promised to be
    right to; which near zero are more than the last place.
    """
    dtype = actual.dtype
    promised = 2 * np.finfo(np.float32).eps * np.maximum(largest_weight, np.abs(exact))
    error = np.abs(actual.astype(reference.LONG) - exact)
    assert (error <= reference.last_place(exact, dtype) / 2 + promised).all()
    return (actual != reference.rounded(exact, dtype)).mean()


@in_both_layouts
@pytest.mark.parametrize("mean", [0, 30])
@in_both_types
@pytest.mark.parametrize("shape", [(1, 1, 203, 301), (2, 64, 31, 33), (64, 16, 7, 7)])
def test_forward_is_rounded_once_to_even(shape, dtype, mean, layout):
    x = (sample(shape) + mean).astype(dtype)
    y = instance_norm(layout(x))
    assert wrongly_rounded(y, reference.forward(x)) < 1e-3
    weight = np.exp(sample(shape[1:2], np.float32))
    y = instance_norm(layout(x), weight)
    assert wrongly_rounded(y, reference.forward(x, weight), weight.max()) < 1e-3


@in_both_layouts
@in_both_types
@pytest.mark.parametrize("shape", [(1, 1, 203, 301), (2, 64, 31, 33), (64, 16, 7, 7)])
def test_backward_is_rounded_once_to_even(shape, dtype, layout):
    p = problem(shape, dtype, np.float32)
    _, grad_input, *_ = solve(p, layout(p.x), layout(p.grad_output))
    expected = reference.rounded(p.exact[1], dtype)
    # The sums that are taken off cancel here and there, which costs some more digits there.
    assert (grad_input == expected).mean() > 0.998
    p = problem(shape, dtype)
    assert_right(p, solve(p, layout(p.x), layout(p.grad_output)))


@signalling_nans
@in_both_layouts
@in_both_types
@pytest.mark.parametrize("shape", [(1, 16, 4096), (1, 65536, 1), (3, 17, 1301), (1, 1, 65539)])
@pytest.mark.parametrize("weight", [1.5, 0.5, 0.375, 1.25, -3.0, 2.0])
def test_ties_go_to_the_even_neighbour(weight, shape, dtype, layout):
    """The products have some bits more than fit: half of them lie between two neighbours."""
    x = all_numbers(dtype)
    x = np.resize(x[np.isfinite(x.astype(np.float32))], shape)
    channels = shape[1]
    y = instance_norm(
        layout(x),
        np.full(channels, weight, np.float32),
        mean=np.zeros(channels),
        var=np.ones(channels),
        eps=0,
    )
    expected = reference.rounded(x.astype(reference.LONG) * weight, dtype)
    assert_equal(y, expected)


@signalling_nans
@in_both_layouts
@in_both_types
@pytest.mark.parametrize("shape", [(1, 16, 4096), (1, 65536, 1), (3, 17, 1301), (1, 1, 65539)])
def test_every_number_is_read_and_written(shape, dtype, layout):
    numbers = all_numbers(dtype)
    x = layout(np.resize(numbers[~np.isinf(numbers.astype(np.float32))], shape))
    given = {"mean": np.zeros(shape[1]), "var": np.ones(shape[1]), "eps": 0}
    for array in (x, byte_swapped(x)):
        assert_equal(instance_norm(array, **given), x)
    before = x.copy()
    instance_norm(x, **given, out=x)
    assert_equal(x, before)


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 17, 9, 11)])
def test_infinity_stays_infinite_where_the_statistics_are_given(shape, dtype, layout):
    x = sample(shape, dtype)
    x[..., 0], x[..., 2] = np.inf, -np.inf
    given = {"mean": sample(shape[1:2]), "var": np.ones(shape[1]), "eps": 0}
    y = instance_norm(layout(x), **given).astype(float)
    assert (y[..., 0] == np.inf).all()
    assert (y[..., 2] == -np.inf).all()
    assert np.isfinite(np.delete(y, [0, 2], axis=-1)).all()


@signalling_nans
@in_both_layouts
@in_both_types
@pytest.mark.parametrize("shape", [(1, 16, 4096), (3, 17, 1301)])
def test_every_number_is_a_gradient(shape, dtype, layout):
    g = layout(np.resize(all_numbers(dtype), shape))
    mean, rstd = np.zeros(shape[1]), np.ones(shape[1])
    grad_input, *_ = instance_norm_backward(
        g, np.ones_like(g), mean=mean, rstd=rstd, use_input_stats=False
    )
    assert_equal(grad_input, g)


@signalling_nans
@in_both_layouts
@in_both_types
@pytest.mark.parametrize("wide", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 17, 7, 7), (2, 17, 3), (2, 3, 40, 40), (1, 32, 40, 40)])
def test_any_nan_among_the_parameters_makes_nan(shape, wide, dtype, layout):
    # All bits of it are set: rounded as a number, it would become 0.
    nan = np.full(shape[1:2], -1, np.dtype(wide).str.replace("f", "i")).view(wide)
    wide_nan = np.full(shape[1:2], -1, np.int64).view(float)
    x, g = layout(sample(shape, dtype)), layout(sample(shape, dtype, 1))
    mean, rstd = np.zeros(shape[1]), np.ones(shape[1])
    _, mean_of_x, rstd_of_x = instance_norm(x, return_stats=True)
    for y in (
        instance_norm(x, nan),
        instance_norm(x, None, nan),
        instance_norm(x, mean=wide_nan, var=rstd),
        instance_norm_backward(g, x, nan, mean=mean_of_x, rstd=rstd_of_x)[0],
        instance_norm_backward(g, x, mean=mean, rstd=wide_nan, use_input_stats=False)[0],
    ):
        assert np.isnan(y.astype(np.float32)).all()
    below = instance_norm(x, activation="leaky_relu", negative_slope=wide_nan[:1])
    expected = instance_norm(x).astype(np.float32)
    assert_equal(below, np.where(expected > 0, expected, np.nan))


# --- the ends of the range -------------------------------------------------------------

# The smallest subnormals, ordinary numbers, and such that their squares or sums overflow.
EXTREMES = [(FLOAT16, 2.0**-24), (FLOAT16, 512), (FLOAT16, 60000), (FLOAT16, 65504)]
EXTREMES += [(BFLOAT16, 2.0**-133), (BFLOAT16, 1e-30), (BFLOAT16, 512), (BFLOAT16, 3.3e38)]


@in_both_layouts
@pytest.mark.parametrize(("dtype", "size"), EXTREMES, ids=str)
@pytest.mark.parametrize(
    "shape", [(2, 3, 8, 8), (2, 17, 3, 2), (1, 5, 64, 64), (1, 1, 300, 400), (1, 65, 30, 40)]
)
def test_checkerboards(shape, dtype, size, layout):
    x = layout(checkerboard(shape, dtype, size))
    y, mean, rstd = instance_norm(x, eps=0, return_stats=True)
    assert_equal(y, np.sign(x))
    assert_equal(mean, 0)
    np.testing.assert_allclose(rstd, 1 / abs(float(x.flat[0])), rtol=2 * np.finfo(np.float32).eps)


@in_both_layouts
@pytest.mark.parametrize(("dtype", "size"), EXTREMES[:-1], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 65, 30, 40)])
def test_gradients_at_the_ends_of_the_range(shape, dtype, size, layout):
    """grad_input is proportional to 1 / size: grad_output is made so small or large as to fit."""
    x = checkerboard(shape, dtype, size)
    g = (sample(shape) * min(1.0, size) ** 0.5).astype(dtype)
    _, mean, rstd = instance_norm(layout(x), eps=0, return_stats=True)
    grad_input, grad_weight, _ = instance_norm_backward(
        layout(g), layout(x), np.ones(shape[1]), mean=mean, rstd=rstd
    )
    exact, exact_weight, _ = reference.backward(g, x, eps=0)
    unit = reference.last_place(exact, dtype)
    expected = reference.rounded(exact, dtype).astype(reference.LONG)
    scale = 4 * np.finfo(np.float32).eps * reference.gradient_scale(g, x, None, 0)
    finite = np.isfinite(expected)
    assert finite.mean() > 0.5
    assert (np.abs(grad_input.astype(reference.LONG) - exact) <= unit / 2 + scale)[finite].all()
    np.testing.assert_allclose(
        grad_weight,
        exact_weight.astype(float),
        atol=1e-5 * np.abs(g.astype(float)).sum() / shape[1],
    )


@in_both_layouts
@in_both_types
@pytest.mark.parametrize("length", [2, 9, 300])
def test_what_is_beyond_the_range_is_infinite_without_a_warning(length, dtype, layout):
    largest = float(ml_dtypes.finfo(dtype).max)
    x = layout(checkerboard((2, 3, length, 4), dtype, 1))
    weight = np.full(3, largest * 2)
    y, mean, rstd = instance_norm(x, weight, eps=0, return_stats=True)
    assert_equal(y, np.where(x > 0, np.inf, -np.inf))
    y = instance_norm(x, None, np.full(3, -largest * 2))
    assert_equal(y, -np.inf)

    g = layout(np.full(x.shape, largest, dtype))
    g[..., :2] = -largest
    grad_input, *_ = instance_norm_backward(
        g, x, weight.astype(np.float64), mean=mean, rstd=rstd * 1e3, use_input_stats=False
    )
    assert_equal(grad_input, np.where(g > 0, np.inf, -np.inf))
    *_, grad_bias = instance_norm_backward(np.abs(g), x, mean=mean, rstd=rstd)
    assert grad_bias.dtype == dtype
    assert_equal(grad_bias, np.inf)


@in_both_layouts
@in_both_types
def test_just_at_the_end_of_the_range(dtype, layout):
    """What rounds to the largest number is that, and what lies half a step beyond is infinite."""
    largest = float(ml_dtypes.finfo(dtype).max)
    half_a_step = largest - float(np.nextafter(dtype.type(largest), dtype.type(0)))
    half_a_step /= 2
    factors = np.array([largest, largest + 0.99 * half_a_step, largest + half_a_step])
    x = layout(checkerboard((2, 3, 5, 2), dtype, 1))
    given = {"mean": np.zeros(3), "var": np.ones(3), "eps": 0}
    y = np.abs(instance_norm(x, factors, **given))
    assert (y[:, :2] == largest).all()
    assert np.isinf(y[:, 2].astype(float)).all()


# --- statistics ------------------------------------------------------------------------


@in_both_layouts
@in_both_types
@pytest.mark.parametrize("mean", [0.0, 1.0, 300.0])
@pytest.mark.parametrize("shape", SIZES)
def test_statistics_are_not_in_half_precision(shape, mean, dtype, layout):
    x = (sample(shape) + mean).astype(dtype)
    long = x.astype(float).reshape(*shape[:2], -1)
    _, used_mean, used_rstd = instance_norm(layout(x), return_stats=True)
    np.testing.assert_allclose(used_mean, long.mean(2), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(used_rstd, (long.var(2) + 1e-5) ** -0.5, rtol=1e-6)


@in_both_layouts
@in_both_types
def test_a_sum_that_half_precision_cannot_hold(dtype, layout):
    """70,000 ones, and another number: added up in float16 they would be 2048, or inf."""
    x = np.ones((1, 3, 70_000), dtype)
    x[..., 0] = 2
    y, mean, _ = instance_norm(layout(x), return_stats=True, eps=0)
    np.testing.assert_allclose(mean, 70_001 / 70_000, rtol=1e-9)
    assert wrongly_rounded(y, reference.forward(x, eps=0)) == 0
    g = np.ones((1, 3, 70_000), dtype)
    *_, grad_bias = instance_norm_backward(
        layout(g), layout(x), np.ones(3, np.float32), mean=mean, rstd=np.ones((1, 3))
    )
    assert grad_bias.tolist() == [70_000] * 3


# --- parameters ------------------------------------------------------------------------


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("parameter_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SIZES[:4])
def test_parameters_of_any_dtype(shape, parameter_dtype, dtype, layout):
    p = problem(shape, dtype, parameter_dtype)
    results = solve(p, layout(p.x), layout(p.grad_output))
    assert_right(p, results)
    assert [a.dtype for a in results] == [dtype, dtype, parameter_dtype, parameter_dtype]


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("grad_dtype", DTYPES, ids=str)
def test_grad_output_of_any_dtype(grad_dtype, dtype, layout):
    """It is taken in the precision that the kernels work in, whatever comes."""
    p = problem((2, 5, 7, 9), dtype, grad_dtype=grad_dtype)
    results = solve(p, layout(p.x), layout(p.grad_output))
    assert results[1].dtype == dtype
    assert_right(p, results)


@in_both_types
def test_weight_and_bias_of_two_dtypes(dtype):
    p = problem((2, 5, 7, 9), dtype, np.float32)
    expected = instance_norm(p.x, p.weight, p.bias)
    bias = p.bias.astype(np.float64)
    assert same_bits(instance_norm(p.x, p.weight, bias), expected)
    assert same_bits(instance_norm(p.x, p.weight.astype(np.float64), p.bias), expected)


# --- Tensors and layers ----------------------------------------------------------------


@in_both_types
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "cropped"])
@pytest.mark.parametrize("parameter_dtype", [np.float32, None])
def test_a_step_of_training(parameter_dtype, layout, dtype):
    """Input and gradients stay in half precision; float32 parameters get float32 gradients."""
    p = problem((2, 3, 5, 7), dtype, parameter_dtype)
    layer = nn.InstanceNorm2d(3, eps=p.eps, affine=True, dtype=p.weight.dtype)
    layer.load_state_dict({"weight": p.weight, "bias": p.bias})
    x = instnorm.Tensor(LAYOUTS[layout](p.x), requires_grad=True)
    y = layer(x)
    y.backward(instnorm.Tensor(LAYOUTS[layout](p.grad_output)))
    results = [t.data for t in (y, x.grad, layer.weight.grad, layer.bias.grad)]
    assert_right(p, results)
    assert [a.dtype for a in results] == [dtype, dtype, *[p.weight.dtype] * 2]
    instnorm.optim.SGD(layer.parameters(), lr=0.5).step()
    assert layer.weight.dtype == p.weight.dtype
    assert (layer.weight.data != p.weight).all()


@in_both_types
def test_gradients_add_up_over_two_uses(dtype):
    p = problem((2, 3, 5, 7), dtype)
    x = instnorm.Tensor(channels_last(p.x), requires_grad=True)
    y = F.instance_norm(x, eps=p.eps)
    once = instnorm.grad(y, [x], instnorm.Tensor(p.grad_output))[0].data
    for _ in range(2):
        F.instance_norm(x, eps=p.eps).backward(instnorm.Tensor(p.grad_output))
    assert x.grad.dtype == dtype
    assert_equal(x.grad.data, once + once)


@in_both_types
@pytest.mark.parametrize("tracking", [False, True])
def test_evaluation(tracking, dtype):
    p = problem((2, 3, 5, 7), dtype)
    layer = nn.InstanceNorm2d(3, track_running_stats=tracking, dtype=dtype).eval()
    y = layer(channels_last(p.x)).data
    given = {"mean": np.zeros(3), "var": np.ones(3)} if tracking else {}
    assert wrongly_rounded(y, reference.forward(p.x, **given)) < 0.02
