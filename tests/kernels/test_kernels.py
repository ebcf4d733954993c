"""The compiled kernels against their twins in `reference`, and their promises about numbers."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import reference, run_python
from helpers.problems import same_bits
from helpers.reference import gradient_scale

import instnorm
from instnorm._runtime import simd
from instnorm._runtime.simd import kernels

BLOCK = kernels.BLOCK_SIZE
# Around the widths of a vector, a flush and a block; and prime.
LENGTHS = [2, 3, 7, 15, 16, 17, 31, 32, 33, 49, 64, 127, 255, 256, 257, 511, 512, 513, 1021]
LENGTHS += [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 33, 3 * BLOCK - 1]
DTYPES = [np.float32, np.float64]
THREADS = [2, 3, 4, 7]


def forward(x, weight=None, bias=None, eps=1e-5, y=None):
    y = np.full_like(x, 7) if y is None else y
    mean, rstd = np.full(x.shape[:2], 7.0), np.full(x.shape[:2], 7.0)
    kernels.forward(x, y, weight, bias, mean, rstd, eps)
    return y, mean, rstd


def backward(grad_output, x, weight=None, *, mean, rstd, through=True, grad_input=None):
    grad_input = np.full_like(x, 7) if grad_input is None else grad_input
    grad_weight, grad_bias = np.full(x.shape[1], 7.0), np.full(x.shape[1], 7.0)
    kernels.backward(
        grad_output, x, grad_input, weight, mean, rstd, grad_weight, grad_bias, through
    )
    return grad_input, grad_weight, grad_bias


def sample(shape, dtype, seed=0, mean=0.0, spread=1.0):
    rng = np.random.default_rng(seed)
    return ((rng.standard_normal(shape) + mean) * spread).astype(dtype)


def parameters(channels, dtype, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(-2, 2, channels).astype(dtype), rng.uniform(-2, 2, channels).astype(dtype)


# --- forward -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_forward_is_its_twin(length, dtype):
    x = sample((3, 4, length), dtype, seed=length, mean=0.7, spread=1.6)
    weight, bias = parameters(4, dtype)
    scale = np.maximum(1, np.abs(reference.forward(x)))
    for w, b in [(None, None), (weight, None), (None, bias), (weight, bias)]:
        y, mean, rstd = forward(x, w, b)
        expected = reference.forward(x, w, b)
        allowed = scale * np.abs(reference.per_channel(w, x, 1))
        allowed = 4 * np.finfo(dtype).eps * (allowed + np.abs(reference.per_channel(b, x, 0)))
        assert (np.abs(y - expected) <= allowed).all()

    rough, rest, var = reference.statistics(x)
    np.testing.assert_allclose(
        mean, (rough + rest)[..., 0].astype(float), rtol=0, atol=np.finfo(dtype).eps
    )
    np.testing.assert_allclose(
        rstd, (1 / np.sqrt(var + 1e-5))[..., 0].astype(float), rtol=2 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize("parameter_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_of_either_precision(dtype, parameter_dtype):
    x = sample((2, 3, 50), dtype)
    weight, bias = parameters(3, parameter_dtype)
    y, *_ = forward(x, weight, bias)
    expected = reference.forward(x, weight, bias)
    assert np.abs(y - expected).max() < 20 * np.finfo(dtype).eps


def test_a_parameter_belongs_to_its_channel():
    x = sample((4, 5, 10), np.float32)
    weight, bias = np.arange(5.0), np.arange(5.0) * 100
    y, *_ = forward(x, weight, bias)
    plain, *_ = forward(x)
    for c in range(5):
        np.testing.assert_allclose(y[:, c], plain[:, c] * c + 100 * c, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 3, 4, 5, 6), (3, 2, 1, 1, 9)])
def test_spatial_axes_are_one_long_row(shape, dtype):
    x = sample(shape, dtype)
    y, mean, rstd = forward(x)
    flat, flat_mean, flat_rstd = forward(x.reshape(*shape[:2], -1))
    assert same_bits(y.reshape(flat.shape), flat)
    assert same_bits(mean, flat_mean)
    assert same_bits(rstd, flat_rstd)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [5, 300, 2 * BLOCK + 1])
def test_forward_in_place(length, dtype):
    x = sample((2, 3, length), dtype)
    expected, *_ = forward(x)
    forward(x, y=x)
    assert same_bits(x, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [4, 49, 257, BLOCK + 1])
def test_statistics_are_those_of_forward(length, dtype):
    x = sample((2, 3, length), dtype, mean=50)
    _, mean, rstd = forward(x, eps=1e-3)
    only_mean, only_rstd = np.empty((2, 3)), np.empty((2, 3))
    kernels.statistics(x, only_mean, only_rstd, 1e-3)
    assert same_bits(mean, only_mean)
    assert same_bits(rstd, only_rstd)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 4, 257, BLOCK + 1])
def test_forward_given_is_its_twin(length, dtype):
    x = sample((2, 3, length), dtype, mean=3)
    mean, var = sample((2, 3), float, seed=5, mean=3), sample((2, 3), float, seed=6) ** 2
    weight, bias = parameters(3, dtype)
    y = np.empty_like(x)
    kernels.forward_given(x, y, weight, bias, mean, 1 / np.sqrt(var + 1e-5))
    expected = reference.forward(x, weight, bias, mean=mean, var=var)
    scale = np.abs(expected).max((2,), keepdims=True) + 2
    assert (np.abs(y - expected) <= 4 * np.finfo(dtype).eps * scale).all()


# --- backward ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("affine", [False, True])
def test_backward_is_its_twin(length, dtype, affine):
    x = sample((3, 4, length), dtype, seed=length, mean=0.7, spread=1.6)
    g = sample((3, 4, length), dtype, seed=length + 1, mean=0.3)
    weight = parameters(4, dtype)[0] if affine else None
    _, mean, rstd = forward(x, eps=1e-3)
    actual = backward(g, x, weight, mean=mean, rstd=rstd)
    expected = reference.backward(g, x, weight, eps=1e-3)
    tolerance = 4 * np.finfo(dtype).eps
    assert (np.abs(actual[0] - expected[0]) <= tolerance * gradient_scale(g, x, weight, 1e-3)).all()
    x_hat = reference.forward(x, eps=1e-3)
    assert (np.abs(actual[1] - expected[1]) <= tolerance * np.abs(g * x_hat).sum((0, 2))).all()
    assert (np.abs(actual[2] - expected[2]) <= tolerance * np.abs(g).sum((0, 2))).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_far_from_zero(dtype):
    x = sample((2, 3, 400), dtype, mean=1e4)
    g = sample((2, 3, 400), dtype, seed=1)
    _, mean, rstd = forward(x)
    actual = backward(g, x, mean=mean, rstd=rstd)
    expected = reference.backward(g, x)
    # The mean comes as a double, so it is itself off by up to half a digit of 1e4.
    tolerance = 4 * np.finfo(dtype).eps + 1e4 * np.finfo(np.float64).eps
    assert (np.abs(actual[0] - expected[0]) <= tolerance * gradient_scale(g, x, None, 1e-5)).all()
    np.testing.assert_allclose(actual[1], expected[1].astype(float), atol=1e-4)


@pytest.mark.parametrize("spread", [1e-20, 1e-3, 1e18, 1e30])
def test_backward_at_spreads_whose_squares_leave_float32(spread):
    x = sample((2, 3, 300), np.float32, spread=spread)
    g = sample((2, 3, 300), np.float32, seed=1)
    _, mean, rstd = forward(x, eps=0)
    actual = backward(g, x, mean=mean, rstd=rstd)
    expected = reference.backward(g, x, eps=0)
    allowed = 4 * np.finfo(np.float32).eps * gradient_scale(g, x, None, 0)
    assert (np.abs(actual[0] - expected[0]) <= allowed + np.finfo(np.float32).tiny).all()
    np.testing.assert_allclose(actual[1], expected[1].astype(float), rtol=1e-5)


@pytest.mark.parametrize("size", [1e-35, 1e-30, 1e30, 1e35])
def test_backward_of_gradients_near_the_ends_of_float32(size):
    x = sample((2, 3, 300), np.float32)
    g = sample((2, 3, 300), np.float32, seed=1)
    _, mean, rstd = forward(x)
    small = backward(g, x, mean=mean, rstd=rstd)
    scaled = backward((g * np.float32(size)), x, mean=mean, rstd=rstd)
    for a, b in zip(small, scaled, strict=True):
        np.testing.assert_allclose(b.astype(float) / size, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "spread"), [(1e20, 1e25), (1e-25, 1e-20), (1e30, 1e30)])
def test_backward_where_products_leave_float32(size, spread):
    x = sample((2, 3, 300), np.float32, spread=spread)
    g = sample((2, 3, 300), np.float32, seed=1, spread=size)
    _, mean, rstd = forward(x, eps=0)
    actual = backward(g, x, mean=mean, rstd=rstd)
    expected = reference.backward(g, x, eps=0)
    allowed = 4 * np.finfo(np.float32).eps * gradient_scale(g, x, None, 0)
    assert (np.abs(actual[0] - expected[0]) <= allowed + np.finfo(np.float32).tiny).all()
    np.testing.assert_allclose(actual[1], expected[1].astype(float), rtol=1e-5)


@pytest.mark.parametrize("length", [5, 49, 300])
def test_backward_where_the_sum_of_gradients_leaves_float32(length):
    """And the products do not, as x is small."""
    x = sample((2, 3, length), np.float32, spread=1e-30)
    g = np.full_like(x, 3e38)
    _, mean, rstd = forward(x, eps=0)
    _, _, grad_bias = backward(g, x, mean=mean, rstd=rstd)
    np.testing.assert_allclose(grad_bias, g.sum((0, 2), dtype=float), rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [False, True])
def test_backward_with_statistics_that_are_constants(dtype, affine):
    x, g = sample((2, 3, 40), dtype), sample((2, 3, 40), dtype, seed=1)
    weight = parameters(3, dtype)[0] if affine else None
    mean, rstd = sample((2, 3), float, seed=2), np.exp(sample((2, 3), float, seed=3))
    actual = backward(g, x, weight, mean=mean, rstd=rstd, through=False)
    expected = reference.backward_given(g, x, weight, mean=mean, rstd=rstd)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(
            a, e.astype(float), rtol=1e-5 if dtype == np.float32 else 1e-13, atol=1e-5
        )


@pytest.mark.parametrize(
    ("rstd", "g"), [(1e-42, 1e30), (1e-37, 1e10), (1e37, 1e-10), (1e40, 1e-20)]
)
def test_backward_with_given_statistics_outside_float32(rstd, g):
    """What forward normalizes by such statistics, backward differentiates."""
    x = np.zeros((1, 1, 3), np.float32)
    grad_output = np.full_like(x, g)
    grad_input, *_ = backward(
        grad_output, x, mean=np.zeros((1, 1)), rstd=np.full((1, 1), rstd), through=False
    )
    np.testing.assert_allclose(grad_input, grad_output.astype(float) * rstd, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [5, 300, 2 * BLOCK + 1])
@pytest.mark.parametrize("into", ["grad_output", "x"])
def test_backward_in_place(length, dtype, into):
    x, g = sample((2, 3, length), dtype), sample((2, 3, length), dtype, seed=1)
    _, mean, rstd = forward(x)
    expected = backward(g, x, mean=mean, rstd=rstd)
    actual = backward(g, x, mean=mean, rstd=rstd, grad_input={"grad_output": g, "x": x}[into])
    for a, e in zip(actual, expected, strict=True):
        assert same_bits(a, e)


def test_gradient_of_the_sum_is_zero():
    x = sample((2, 3, 500), np.float64)
    _, mean, rstd = forward(x)
    grad_input, grad_weight, grad_bias = backward(np.ones_like(x), x, mean=mean, rstd=rstd)
    assert np.abs(grad_input).max() < 1e-14
    assert np.abs(grad_weight).max() < 1e-11
    assert (grad_bias == 1000).all()


# --- promise 1: ulps -------------------------------------------------------------

PROMISED_ULPS = {np.float32: 2, np.float64: 4}
SPREADS = [1e-3, 1.0, 1e18, 1e30]


@pytest.mark.parametrize("length", [2, 3, 8, 49, 200])
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5])
def test_the_twin_itself_is_right(length, mean):
    """Against rational numbers, to a thousandth of the ulps that are promised."""
    x = sample((1, 1, length), np.float64, mean=mean)
    twin = reference.forward(x, [0.5], [2.0])[0, 0]
    for a, e in zip(twin, reference.exact_row(x[0, 0], 0.5, 2.0), strict=True):
        assert abs(Fraction(*a.as_integer_ratio()) - e) < 4e-3 * np.finfo(float).eps * max(
            1, abs(e)
        )


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ulps_of_all_short_rows(dtype, mean, spread):
    worst = 0.0
    for length in range(2, 201):
        x = sample((1, 8, length), dtype, seed=length, mean=mean, spread=spread)
        worst = max(worst, reference.ulps(forward(x)[0], reference.forward(x)).max())
    assert worst <= PROMISED_ULPS[dtype]


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ulps_of_longer_rows(dtype, mean, spread):
    worst = 0.0
    for length in [257, 300, 1000, BLOCK - 1, BLOCK + 1, 25_000]:
        x = sample((1, 3, length), dtype, seed=length, mean=mean, spread=spread)
        worst = max(worst, reference.ulps(forward(x)[0], reference.forward(x)).max())
    assert worst <= PROMISED_ULPS[dtype]


@pytest.mark.parametrize("length", [3, 5, 7, 16, 130, 257, 300, 1000, BLOCK])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ulps_with_an_outlier(dtype, length):
    """One element far from the others makes nearly the whole variance, and a large |y|."""
    x = sample((1, 40_000 // length, length), dtype, spread=1.3)
    x[..., 0] *= 20
    assert reference.ulps(forward(x)[0], reference.forward(x)).max() <= PROMISED_ULPS[dtype]


@pytest.mark.parametrize(
    ("dtype", "length", "seed"),
    [
        (np.float32, 5, 238),
        (np.float32, 49, 3),
        (np.float32, 257, 322),
        (np.float32, 300, 186),
        (np.float32, 1000, 329),
        (np.float32, 2048, 354),
        (np.float64, 5, 87),
        (np.float64, 300, 35),
    ],
)
def test_ulps_of_the_worst_rows_found(dtype, length, seed):
    """The worst of 400 seeds at these lengths, by a search with an earlier kernel."""
    x = np.random.default_rng(seed).standard_normal((1, 2000 // length + 1, length))
    x = (x * 1.3).astype(dtype)
    x[..., 0] *= 20
    assert reference.ulps(forward(x)[0], reference.forward(x)).max() <= PROMISED_ULPS[dtype]


@pytest.mark.parametrize("mean", [0.0, 4e3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ulps_of_a_1080p_image(dtype, mean):
    x = sample((1, 1, 1080 * 1920), dtype, seed=4, spread=1.3, mean=mean)
    assert reference.ulps(forward(x)[0], reference.forward(x)).max() <= PROMISED_ULPS[dtype]


def test_an_image_that_grows_brighter_from_line_to_line():
    """The blocks' means differ by far more than the elements of a block."""
    x = sample((1, 1, 200, 500), np.float32)
    x = x + np.arange(200, dtype=np.float32)[:, None] * 100
    assert reference.ulps(forward(x)[0], reference.forward(x)).max() <= 2


@pytest.mark.parametrize("spread", [1e-42, 1e-38, 1e-25, 1e37])
def test_spreads_at_the_ends_of_float32(spread):
    x = sample((1, 3, 300), np.float32, spread=spread)
    y, *_ = forward(x, eps=0)
    assert reference.ulps(y, reference.forward(x, eps=0)).max() <= 2


# --- promise 2: the same bits ------------------------------------------------------

# Many rows; and few long ones, whose blocks are shared among the threads.
SHAPES = [(2, 100, 64, 64), (32, 300, 7, 11, 1), (1, 1, 600_000), (1, 3, 600, 500), (5, 1, 123_457)]


def everything(module, x, g, weight, bias):
    """All that a build of the kernels computes."""
    rows = x.shape[:2]
    y, mean, rstd = np.empty_like(x), np.empty(rows), np.empty(rows)
    given, own_mean, own_rstd = np.empty_like(x), np.empty(rows), np.empty(rows)
    grad_input, grad_weight, grad_bias = np.empty_like(x), np.empty(rows[1]), np.empty(rows[1])
    module.forward(x, y, weight, bias, mean, rstd, 1e-5)
    module.statistics(x, own_mean, own_rstd, 1e-5)
    module.forward_given(x, given, weight, bias, mean, rstd)
    module.backward(g, x, grad_input, weight, mean, rstd, grad_weight, grad_bias, True)
    return [y, mean, rstd, own_mean, own_rstd, given, grad_input, grad_weight, grad_bias]


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_number_of_threads_gives_the_same_bits(shape, dtype):
    x, g = sample(shape, dtype, mean=2), sample(shape, dtype, seed=1)
    weight, bias = parameters(shape[1], dtype)
    instnorm.set_num_threads(1)
    serial = everything(kernels, x, g, weight, bias)
    for threads in THREADS:
        instnorm.set_num_threads(threads)
        assert kernels.get_num_threads() == (threads if kernels.HAS_OPENMP else 1)
        for a, b in zip(serial, everything(kernels, x, g, weight, bias), strict=True):
            assert same_bits(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [49, 300, BLOCK + 5])
def test_a_row_is_the_same_in_any_batch(length, dtype):
    x, g = sample((6, 4, length), dtype), sample((6, 4, length), dtype, seed=1)
    weight, bias = parameters(4, dtype)
    y, mean, rstd = forward(x, weight, bias)
    grad_input, *_ = backward(g, x, weight, mean=mean, rstd=rstd)
    for part in [slice(0, 1), slice(1, 4), slice(5, 6)]:
        part_y, part_mean, part_rstd = forward(x[part], weight, bias)
        part_grad, *_ = backward(g[part], x[part], weight, mean=part_mean, rstd=part_rstd)
        assert same_bits(part_y, y[part])
        assert same_bits(part_grad, grad_input[part])


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 300), (1, 3, 123_457)])
def test_nan_and_inf_spoil_their_own_row_only(shape, bad, dtype):
    instnorm.set_num_threads(2)
    x, g = sample(shape, dtype), sample(shape, dtype, seed=1)
    y, mean, rstd = forward(x)
    gradients = backward(g, x, mean=mean, rstd=rstd)
    for place in (0, shape[2] // 2, shape[2] - 1):
        spoilt = x.copy()
        spoilt[0, 1, place] = bad
        others = np.ones(shape[:2], bool)
        others[0, 1] = False
        spoilt_y, spoilt_mean, spoilt_rstd = forward(spoilt)
        spoilt_gradients = backward(g, spoilt, mean=spoilt_mean, rstd=spoilt_rstd)
        assert np.isnan(spoilt_y[0, 1]).all()
        assert np.isnan(spoilt_rstd[0, 1])
        assert not np.isfinite(spoilt_mean[0, 1])
        assert same_bits(spoilt_y[others], y[others])
        assert np.isnan(spoilt_gradients[0][0, 1]).all()
        assert same_bits(spoilt_gradients[0][others], gradients[0][others])
        assert same_bits(spoilt_gradients[1][[0, 2]], gradients[1][[0, 2]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_the_gradient_spoils_its_own_row_only(dtype):
    x, g = sample((2, 3, 300), dtype), sample((2, 3, 300), dtype, seed=1)
    _, mean, rstd = forward(x)
    expected, *_ = backward(g, x, mean=mean, rstd=rstd)
    g[1, 2, 17] = np.nan
    actual, _, grad_bias = backward(g, x, mean=mean, rstd=rstd)
    assert np.isnan(actual[1, 2]).all()
    actual[1, 2] = expected[1, 2]
    assert same_bits(actual, expected)
    assert np.isnan(grad_bias).tolist() == [False, False, True]


FUSED = [level for level in simd.available() if simd._module("_core", level).HAS_FMA]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", FUSED[1:])
def test_every_simd_level_with_fma_gives_the_same_bits(level, dtype):
    modules = [simd._module("_core", FUSED[0]), simd._module("_core", level)]
    for length in [*range(1, 70), *LENGTHS, 120_001]:
        x, g = sample((3, 3, length), dtype, mean=2), sample((3, 3, length), dtype, seed=1)
        weight, bias = parameters(3, dtype)
        for a, b in zip(*[everything(m, x, g, weight, bias) for m in modules], strict=True):
            assert same_bits(a, b)


# --- constant rows -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eps", [0.0, 1e-5, 1.0])
@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e-40, 3e38, 123456.789])
@pytest.mark.parametrize("length", [2, 49, 300, BLOCK + 1, 3 * BLOCK])
def test_a_constant_row_gives_exactly_the_bias(length, value, eps, dtype):
    x = np.full((2, 3, length), value, dtype)
    weight, bias = parameters(3, dtype)
    assert (forward(x, eps=eps)[0] == 0).all()
    assert (forward(x, weight, bias, eps=eps)[0] == bias[:, None]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_at_a_constant_row_with_eps_0_is_0(dtype):
    x, g = np.full((1, 1, 300), 0.1, dtype), sample((1, 1, 300), dtype)
    _, mean, rstd = forward(x, eps=0)
    assert rstd[0, 0] == 0
    grad_input, grad_weight, grad_bias = backward(g, x, mean=mean, rstd=rstd)
    assert (grad_input == 0).all()
    assert grad_weight[0] == 0
    np.testing.assert_allclose(grad_bias, g.sum(dtype=float), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_element_next_to_a_constant(dtype):
    """The smallest step that the dtype holds: var is not lost."""
    x = np.ones((1, 1, 300), dtype)
    x[0, 0, 41] = np.nextafter(dtype(1), dtype(2))
    y, *_ = forward(x, eps=0)
    # Float64 cannot hold the mean of these to the last digit; the kernel carries the rest.
    np.testing.assert_allclose(y, reference.forward(x, eps=0).astype(float), rtol=1e-5)


# --- what the entries refuse ---------------------------------------------------------


def arguments(name):
    x = np.zeros((2, 3, 4), np.float32)
    stats = {"mean": np.zeros((2, 3)), "rstd": np.ones((2, 3))}
    parameters = {"weight": np.ones(3, np.float32), "bias": np.ones(3)}
    return {
        "forward": {"x": x, "y": x.copy(), **parameters, **stats, "eps": 0.1},
        "statistics": {"x": x, **stats, "eps": 0.1},
        "forward_given": {"x": x, "y": x.copy(), **parameters, **stats},
        "backward": {
            "grad_output": x.copy(),
            "x": x,
            "grad_input": x.copy(),
            "weight": parameters["weight"],
            **stats,
            "grad_weight": np.zeros(3),
            "grad_bias": np.zeros(3),
            "through_statistics": True,
        },
    }[name]


ARRAYS = [
    (entry, name)
    for entry in ("forward", "statistics", "forward_given", "backward")
    for name, value in arguments(entry).items()
    if isinstance(value, np.ndarray)
]


@pytest.mark.parametrize(("entry", "name"), ARRAYS)
def test_unfit_arrays_are_refused(entry, name):
    good = arguments(entry)
    array = good[name]
    spaced = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)[..., ::2]
    unaligned = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    for bad in (
        array.astype(np.int64),
        array.astype(np.float16),
        array.astype(array.dtype.newbyteorder()),
        spaced,
        unaligned,
        np.zeros((1, 1, 1), array.dtype),
        np.concatenate([array, array]),
        array.tolist(),
    ):
        if (entry, name) == ("statistics", "x") and getattr(bad, "dtype", None) == np.float16:
            continue  # as good as float32: no other array has to fit it
        with pytest.raises((TypeError, ValueError)):
            getattr(kernels, entry)(**{**good, name: bad})
    getattr(kernels, entry)(**good)


WRITTEN = ["y", "grad_input", "grad_weight", "grad_bias"]


@pytest.mark.parametrize(
    ("entry", "name"),
    [(e, n) for e, n in ARRAYS if n in WRITTEN]
    + [("forward", "mean"), ("forward", "rstd"), ("statistics", "mean"), ("statistics", "rstd")],
)
def test_outputs_must_be_writeable(entry, name):
    values = arguments(entry)
    values[name].flags.writeable = False
    with pytest.raises(ValueError, match=f"{name} must be writeable"):
        getattr(kernels, entry)(**values)


@pytest.mark.parametrize("entry", ["forward", "statistics", "forward_given", "backward"])
def test_inputs_may_be_read_only(entry):
    values = arguments(entry)
    outputs = {"forward": ["y", "mean", "rstd"], "statistics": ["mean", "rstd"]}.get(entry, WRITTEN)
    for name, value in values.items():
        if isinstance(value, np.ndarray) and name not in outputs:
            value.flags.writeable = False
    getattr(kernels, entry)(**values)


TOO_FEW_AXES = """
import numpy as np
from kernels.test_kernels import arguments, kernels
for entry in ("forward", "statistics", "forward_given", "backward"):
    for shape in [(), (4,)]:
        try:
            getattr(kernels, entry)(**{**arguments(entry), "x": np.zeros(shape, np.float32)})
        except (IndexError, ValueError):
            continue
        raise SystemExit(f"{entry} took an array of shape {shape}")
"""


def test_too_few_axes_are_an_error_and_no_crash():
    run_python(TOO_FEW_AXES)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 0)])
def test_empty_arrays(shape):
    x = np.zeros(shape, np.float32)
    channels = np.zeros(shape[1])
    y, mean, rstd = forward(x, channels, channels)
    assert y.shape == shape
    _, grad_weight, grad_bias = backward(x, x, channels, mean=mean, rstd=rstd)
    assert (grad_weight == 0).all()
    assert (grad_bias == 0).all()
