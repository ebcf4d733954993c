"""Activation, residual, mask, and an affine map for each sample, in the kernels' own pass."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from helpers import layouts
from helpers.layouts import channels_last
from helpers.problems import DTYPES, same_bits

import instnorm
from instnorm import arrays, instance_norm, instance_norm_backward
from instnorm._runtime.simd import kernels

# Short rows of fewer than eight elements and more, long ones, several blocks; channels that fill
# a cache line and that do not.
SHAPES = [(2, 3, 5), (3, 5, 7, 7), (2, 9, 16), (2, 3, 25, 25), (1, 2, 100, 101), (2, 33, 300)]
SLOPES = {"number": 0.1, "each": "each", "one": np.array([0.3])}


class Problem:
    """Arguments of both passes, and what they should give, composed in long double."""

    def __init__(
        self, shape, dtype, activation, slope, residual, mask, per_sample, given=False, seed=0
    ):
        rng = np.random.default_rng(seed)
        self.shape, self.activation, self.given = shape, activation, given
        n, c = shape[:2]
        self.x = (rng.standard_normal(shape) * 2 + 0.5).astype(dtype)
        self.grad = rng.standard_normal(shape).astype(dtype)
        self.residual = rng.standard_normal(shape).astype(dtype) if residual else None
        size = (n, c) if per_sample else (c,)
        wide = np.float64 if np.dtype(dtype) == np.float64 else np.float32
        self.weight = (rng.uniform(0.5, 2, size) * rng.choice([-1, 1], size)).astype(wide)
        self.bias = rng.uniform(-1, 1, size).astype(wide)
        self.slope = rng.uniform(0.05, 0.5, c) if isinstance(slope, str) else slope
        self.mask = None
        if mask is not None:
            self.mask = np.zeros((n, *shape[2:]), bool)
            rows = self.mask.reshape(n, -1)
            for i, row in enumerate(rows):
                row[: 2 + i + len(row) // 2] = True
                if mask == "scattered":
                    rng.shuffle(row)
        self.mean = rng.standard_normal((n, c)) if given else None
        self.var = rng.uniform(0.5, 2, (n, c)) if given else None

    def options(self):
        return {
            "mask": self.mask,
            "residual": self.residual,
            "activation": self.activation,
            "negative_slope": self.slope,
        }

    def forward(self, **others):
        return instance_norm(
            self.x, self.weight, self.bias, mean=self.mean, var=self.var, **self.options(), **others
        )

    def spread(self, parameter):
        parameter = np.asarray(parameter, np.longdouble)
        parameter = parameter.reshape((1,) * (2 - parameter.ndim) + parameter.shape)
        return parameter.reshape(*parameter.shape, *(1 for _ in self.shape[2:]))

    def expected(self):
        """y, grad_input, grad_weight, grad_bias, grad_residual, grad_slope.

        `scales` are those of the sums' absolute terms, which rounding is relative to.
        """
        axes = tuple(range(2, len(self.shape)))
        kept = np.ones(self.shape, bool)
        if self.mask is not None:
            kept = np.broadcast_to(np.expand_dims(self.mask, 1), self.shape)
        wide = np.longdouble
        x, g = (np.where(kept, a.astype(wide), 0) for a in (self.x, self.grad))
        count = kept.sum(axes, keepdims=True).astype(wide)
        if self.given:
            mean, var = self.spread(self.mean), self.spread(self.var)
        else:
            mean = x.sum(axes, keepdims=True) / count
            var = (np.where(kept, x - mean, 0) ** 2).sum(axes, keepdims=True) / count
        rstd = 1 / np.sqrt(var + wide(1e-5))
        x_hat = np.where(kept, (x - mean) * rstd, 0)
        weight = self.spread(self.weight)
        v = x_hat * weight + self.spread(self.bias)
        if self.residual is not None:
            v = v + self.residual.astype(wide)
        slope = self.spread(self.slope) if self.activation == "leaky_relu" else 0
        y, passed, grad_slope = v, g, np.zeros_like(v)
        if self.activation is not None:
            y, passed = np.where(v > 0, v, v * slope), np.where(v > 0, g, g * slope)
            grad_slope = np.where(v > 0, 0, g * v)
        grad_input = passed
        if not self.given:

            def mean_of(a):
                return a.sum(axes, keepdims=True) / count

            grad_input = passed - mean_of(passed) - x_hat * mean_of(passed * x_hat)
        over = axes if self.weight.ndim == 2 else (0, *axes)
        slope_axes = (0, *axes) if np.size(self.slope) > 1 else None
        self.scales = [np.abs(t).sum(over).max() for t in (passed * x_hat, passed)]
        self.scales.append(np.abs(grad_slope).sum(slope_axes).max())
        return (
            np.where(kept, y, 0),
            np.where(kept, grad_input * weight * rstd, 0),
            (passed * x_hat).sum(over),
            passed.sum(over),
            passed,
            grad_slope.sum(slope_axes).reshape(np.shape(self.slope)),
        )

    def backward(self, mean, rstd, **others):
        return instance_norm_backward(
            self.grad,
            self.x,
            self.weight,
            bias=self.bias,
            mean=mean,
            rstd=rstd,
            use_input_stats=not self.given,
            **self.options(),
            **others,
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
@pytest.mark.parametrize("length", [4, 300])
@pytest.mark.parametrize("use_input_stats", [False, True])
def test_a_sample_of_which_nothing_counts_adds_nothing(dtype, layout, length, use_input_stats):
    rng = np.random.default_rng(0)
    x, g = (layout(a) for a in rng.standard_normal((2, 2, 3, length)).astype(dtype))
    mean, rstd = np.zeros((2, 3)), np.ones((2, 3))
    mask = np.arange(2)[:, None] == np.ones(length)

    def gradients(n, mask=None):
        return instance_norm_backward(
            g[n], x[n], mean=mean[n], rstd=rstd[n], mask=mask, use_input_stats=use_input_stats
        )

    found, expected = gradients(slice(2), mask), gradients(slice(1, 2))
    assert not found[0][0].any()
    np.testing.assert_array_equal(found[0][1:], expected[0])
    for gradient, alone in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(gradient, alone)


def error(actual, expected, dtype, scale=None):
    """In units of the dtype's resolution, at the scale of the largest element or a given one."""
    expected = np.asarray(expected, np.longdouble)
    scale = max(1, np.abs(expected).max(initial=0) if scale is None else scale)
    difference = np.abs(np.asarray(actual).astype(np.longdouble) - expected).max(initial=0)
    return float(difference / scale / float(ml_dtypes.finfo(dtype).eps))


COMBINATIONS = [
    (activation, slope, residual, mask, per_sample)
    for (activation, slope), residual, mask, per_sample in itertools.product(
        [
            (None, 0.01),
            ("relu", 0.01),
            ("leaky_relu", 0.1),
            ("leaky_relu", "each"),
            ("leaky_relu", np.array([0.3])),
        ],
        [False, True],
        [None, "prefix", "scattered"],
        [False, True],
    )
]


@pytest.mark.parametrize("last", [False, True], ids=["rows", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_passes(shape, dtype, last):
    for combination in COMBINATIONS:
        problem = Problem(shape, dtype, *combination)
        if last:
            for name in ("x", "grad", "residual"):
                if getattr(problem, name) is not None:
                    setattr(problem, name, channels_last(getattr(problem, name)))
        y, mean, rstd = problem.forward(return_stats=True)
        expected = problem.expected()
        assert y.strides == problem.x.strides, combination
        assert error(y, expected[0], dtype) < 3, combination
        found = problem.backward(mean, rstd)
        assert found[0].strides == problem.x.strides, combination
        wide = problem.weight.dtype
        assert error(found[0], expected[1], dtype) < 6, combination
        for gradient, by, scale in zip(found[1:3], expected[2:4], problem.scales, strict=False):
            assert gradient.shape == problem.weight.shape
            assert error(gradient, by, wide, scale) < 3, combination
        if problem.residual is not None:
            assert error(found.grad_residual, expected[4], dtype) < 2, combination
        if isinstance(problem.slope, np.ndarray):
            assert error(found.grad_slope, expected[5], wide, problem.scales[2]) < 3, combination
        if problem.residual is None and not isinstance(problem.slope, np.ndarray):
            assert len(found) == 3


@pytest.mark.parametrize("last", [False, True], ids=["rows", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_that_are_given(shape, last):
    for combination in COMBINATIONS:
        problem = Problem(shape, np.float64, *combination, given=True)
        if last:
            problem.x, problem.grad = channels_last(problem.x), channels_last(problem.grad)
        y, mean, rstd = problem.forward(return_stats=True)
        expected = problem.expected()
        assert error(y, expected[0], np.float64) < 4, combination
        found = problem.backward(mean, rstd)
        assert error(found[0], expected[1], np.float64) < 6, combination
        for actual, by, scale in zip(found[1:3], expected[2:4], problem.scales, strict=False):
            assert error(actual, by, np.float64, scale) < 3, combination


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_activation_changes_no_bit_of_what_it_is_applied_to(shape, dtype):
    for last in (False, True):
        problem = Problem(shape, dtype, None, 0.01, False, None, True)
        if last:
            problem.x = channels_last(problem.x)
        plain = problem.forward()
        problem.activation = "relu"
        fused = problem.forward()
        assert same_bits(fused, np.where(plain > 0, plain, np.zeros_like(plain)))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_full_mask_changes_no_bit(shape):
    problem = Problem(shape, np.float32, None, 0.01, False, None, False)
    y, mean, rstd = problem.forward(return_stats=True)
    found = problem.backward(mean, rstd)
    problem.mask = np.ones((shape[0], *shape[2:]), bool)
    assert same_bits(problem.forward(), y)
    for masked, plain in zip(problem.backward(mean, rstd), found, strict=True):
        assert same_bits(masked, plain)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("length", [12, 300, 9000])
def test_a_mask_at_the_end_gives_the_bits_of_shorter_rows(length, last):
    problem = Problem((3, 4, length), np.float32, "leaky_relu", 0.1, True, None, False)
    if last:
        problem.x = channels_last(problem.x)
    count = length * 2 // 3
    problem.mask = np.zeros((3, length), bool)
    problem.mask[:, :count] = True
    masked = problem.forward()
    problem.x, problem.residual = (a[:, :, :count].copy("K") for a in (problem.x, problem.residual))
    problem.mask = None
    assert same_bits(masked[:, :, :count], problem.forward())
    assert not masked[:, :, count:].any()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", ["prefix", "scattered"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_does_not_count_is_not_looked_at(shape, dtype, kind, last):
    problem = Problem(shape, dtype, "leaky_relu", 0.1, True, kind, False)
    away = np.broadcast_to(~np.expand_dims(problem.mask, 1), shape)
    results = []
    for value in (0.0, np.nan, np.inf, np.finfo(dtype).max / 2):
        for array in (problem.x, problem.grad, problem.residual):
            array[away] = value
        if last:
            problem.x = channels_last(problem.x)
        with np.errstate(all="ignore"):
            y, mean, rstd = problem.forward(return_stats=True)
            found = problem.backward(mean, rstd)
        assert not y[away].any()
        assert not found.grad_input[away].any()
        results.append((y, mean, rstd, *found[:4]))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert same_bits(a, b)


@pytest.mark.parametrize("kind", [None, "prefix", "scattered"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 700, 401), (3, 5, 300, 200), (7, 64, 40, 40)])
def test_any_number_of_threads_gives_the_same_bits(shape, last, kind, restore_threads):
    problem = Problem(shape, np.float32, "leaky_relu", "each", True, kind, True)
    if last:
        problem.x = channels_last(problem.x)
    results = []
    for threads in (1, 2, 3):
        instnorm.set_num_threads(threads)
        y, mean, rstd = problem.forward(return_stats=True)
        results.append((y, mean, rstd, *problem.backward(mean, rstd)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert same_bits(a, b)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_range_of_float32(shape, scale, last):
    for combination in COMBINATIONS:
        problem = Problem(shape, np.float32, *combination)
        problem.x *= np.float32(scale)
        if last:
            problem.x = channels_last(problem.x)
        y, mean, rstd = problem.forward(return_stats=True)
        found = problem.backward(mean, rstd)
        expected = problem.expected()
        assert error(y, expected[0], np.float32) < 3, combination
        assert error(found[0] * scale, expected[1] * scale, np.float32) < 6, combination


def test_the_derivative_at_zero_is_that_of_torch():
    x = np.zeros((1, 1, 4))
    g = np.ones((1, 1, 4))
    y, mean, rstd = instance_norm(x, activation="relu", return_stats=True)
    assert not y.any()
    for activation, slope, expected in (("relu", 0.01, 0.0), ("leaky_relu", 0.25, 0.25)):
        found = instance_norm_backward(
            g, x, mean=mean, rstd=rstd, activation=activation, negative_slope=slope
        )
        assert (found[2] == 4 * expected).all()


# --- the gradient from the output -------------------------------------------------------


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("mask", [None, "prefix", "scattered"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_from_the_output(shape, dtype, mask, residual, last):
    for activation, per_sample, given in itertools.product(
        (None, "leaky_relu"), (False, True), (False, True)
    ):
        problem = Problem(shape, dtype, activation, 0.1, residual, mask, per_sample, given)
        if last:
            problem.x = channels_last(problem.x)
        y, mean, rstd = problem.forward(return_stats=True)
        expected = problem.expected()
        problem.x = y
        found = arrays.gradients(
            problem.grad,
            y,
            problem.weight,
            bias=problem.bias,
            mean=mean,
            rstd=rstd,
            use_input_stats=not given,
            from_output=True,
            **problem.options(),
        )
        assert error(found.grad_input, expected[1], dtype) < 60
        for actual, by, scale in zip(found[1:3], expected[2:4], problem.scales, strict=False):
            assert error(actual, by, dtype, scale) < 30


# --- bad arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"activation": "gelu"}, ValueError, "activation is 'gelu'"),
        ({"activation": ["relu"]}, ValueError, "activation is"),
        ({"mask": np.ones((2, 4))}, TypeError, "mask has dtype float64, expected bool"),
        ({"mask": np.ones((2, 3, 4), bool)}, ValueError, r"expected \(2, 4\)"),
        ({"mask": np.eye(2, 4, dtype=bool)}, ValueError, "mask counts 1 in sample 0"),
        ({"residual": np.ones((2, 3, 5))}, ValueError, r"residual has shape \(2, 3, 5\)"),
        ({"residual": np.ones((2, 3, 4), int)}, TypeError, "residual has dtype int64"),
        ({"negative_slope": "0.1", "activation": "leaky_relu"}, TypeError, "negative_slope"),
        (
            {"negative_slope": np.ones(2), "activation": "leaky_relu"},
            arrays.ArgumentError,
            r"negative_slope has shape \(2,\), expected \(1,\) or \(3,\)",
        ),
        ({"weight": np.ones((3, 3))}, arrays.ArgumentError, r"expected \(3,\) or \(2, 3\)"),
    ],
    ids=str,
)
def test_bad_arguments(options, kind, message):
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    with pytest.raises(kind, match=message):
        instance_norm(x, **options)


def test_a_mask_for_statistics_that_are_given_may_count_nothing():
    x = np.ones((1, 2, 3))
    y = instance_norm(x, mean=np.zeros(2), var=np.ones(2), mask=np.zeros((1, 3), bool))
    assert not y.any()


@pytest.mark.parametrize("axis", [1, -1])
def test_every_layout_and_channel_axis(axis):
    problem = Problem((2, 3, 4, 6), np.float64, "leaky_relu", "each", True, "scattered", True)
    y, mean, rstd = problem.forward(return_stats=True)
    expected = problem.expected()
    for name, layout in layouts.LAYOUTS.items():
        x = layout(problem.x)
        given, residual = (np.moveaxis(a, 1, axis) for a in (x, problem.residual))
        options = {**problem.options(), "residual": residual, "channel_axis": axis}
        y = instance_norm(given, problem.weight, problem.bias, **options)
        assert error(np.moveaxis(y, axis, 1), expected[0], np.float64) < 4, name
        found = instance_norm_backward(
            np.moveaxis(problem.grad, 1, axis),
            given,
            problem.weight,
            bias=problem.bias,
            mean=mean,
            rstd=rstd,
            **options,
        )
        for array, by in ((found.grad_input, expected[1]), (found.grad_residual, expected[4])):
            assert error(np.moveaxis(array, axis, 1), by, np.float64) < 40, name
        assert error(found.grad_slope, expected[5], np.float64, problem.scales[2]) < 3, name


def test_out_may_be_the_input_or_the_residual():
    for name in ("x", "residual"):
        problem = Problem((2, 3, 30, 30), np.float32, "relu", 0.1, True, "scattered", False)
        expected, mean, rstd = problem.forward(return_stats=True)
        gradient = problem.backward(mean, rstd)[0]
        before = getattr(problem, name).copy()
        out = getattr(problem, name)
        problem.backward(mean, rstd, out=out)
        assert same_bits(out, gradient)
        out[...] = before
        assert problem.forward(out=out) is out
        assert same_bits(out, expected)


def test_the_kernels_refuse_what_would_be_a_memory_error():
    x = np.ones((2, 3, 8), np.float32)
    mean, rstd = np.empty((2, 3)), np.empty((2, 3))
    for options in (
        {"mask": np.ones((2, 7), bool)},
        {"residual": np.ones((2, 3, 7), np.float32)},
        {"activation": 2, "slope": np.ones(2)},
        {"activation": 3},
    ):
        with pytest.raises(ValueError, match=r"expected"):
            kernels.forward(x, x.copy(), None, None, mean, rstd, 1e-5, **options)
