"""Any call of the array functions, of any values, layouts and aliases, against longdouble.

`make fuzz SECONDS=...` runs this for as long as one likes; `make test` runs some of it. A new
argument of the array functions is an entry of `ARGUMENTS`, and of the twins in `helpers.reference`.
What is found becomes a test of its own where the subject's tests are.
"""

import os
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
from arrays.test_epilogue import Problem, error
from helpers import reference
from helpers.layouts import LAYOUTS, WRITEABLE, channels_last
from helpers.problems import DTYPES, HALF, posed, same_bits
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import instnorm
import instnorm.functional as F
from instnorm import Tensor, instance_norm, instance_norm_backward

some = settings(
    max_examples=int(os.environ.get("INSTNORM_FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = [pytest.mark.usefixtures("restore_threads"), pytest.mark.timeout(3600)]

# --- values ---------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(DTYPES)


def normal(rng, shape, dtype):
    return rng.standard_normal(shape)


def far_from_zero(rng, shape, dtype):
    mean = {"d": 1e5, "f": 1e5}.get(dtype.char, 30.0)
    return rng.standard_normal(shape) + mean * rng.uniform(
        -1, 1, shape[:2] + (1,) * (len(shape) - 2)
    )


def of_any_spread(rng, shape, dtype):
    low, high = {"d": (-290, 290), "f": (-36, 36), "e": (-3, 3)}.get(dtype.char, (-36, 36))
    exponents = rng.integers(low, high, shape[:2] + (1,) * (len(shape) - 2))
    return rng.standard_normal(shape) * 10.0**exponents


def with_outliers(rng, shape, dtype):
    values = rng.standard_normal(shape)
    values[rng.random(shape) < 0.02] *= 1e3
    return values


def nearly_constant(rng, shape, dtype):
    values = np.full(shape, rng.uniform(-3, 3))
    values[rng.random(shape) < 0.1] += 0.125
    return values


def rising(rng, shape, dtype):
    steps = np.arange(np.prod(shape[2:])).reshape(shape[2:])
    return steps * rng.uniform(0.01, 1) + rng.standard_normal(shape)


VALUES = {
    f.__name__: f
    for f in (normal, far_from_zero, of_any_spread, with_outliers, nearly_constant, rising)
}


def values_of(kind, rng, shape, dtype):
    values = VALUES[kind](rng, shape, dtype)
    return (np.clip(values, -65504, 65504) if dtype.char == "e" else values).astype(dtype)


# --- calls ----------------------------------------------------------------------------------


def shapes():
    """Mostly of some thousand elements; rows short and long, and now and then for threads."""
    return st.one_of(
        st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(2, 60)),
        st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(250, 9000)),
        st.tuples(*[st.integers(1, 3), st.integers(1, 20)], st.integers(1, 17), st.integers(2, 17)),
        st.tuples(*[st.integers(1, 5)] * 4, st.integers(2, 5)),
        st.tuples(
            st.integers(1, 2), st.sampled_from([1, 3, 16]), st.integers(280, 300), st.just(300)
        ),
    )


def parameter(rng, shape, dtype):
    return (rng.uniform(0.25, 2, shape[1]) * rng.choice([-1, 1], shape[1])).astype(dtype)


# Of each optional argument that is an array: how values for it are made.
ARGUMENTS = {"weight": parameter, "bias": parameter}


class Call(NamedTuple):
    """Arrays in C order, and how the functions get them."""

    x: np.ndarray
    grad_output: np.ndarray
    arguments: dict[str, Any]
    eps: float
    layouts: tuple[str, str]
    out: str | None
    threads: int

    def __repr__(self):
        given = {name: value.dtype.name for name, value in self.arguments.items()}
        return (
            f"Call({self.x.shape}, {self.x.dtype}, grad_output {self.grad_output.dtype}, {given}, "
            f"eps={self.eps}, layouts={self.layouts}, out={self.out}, threads={self.threads})"
        )


@st.composite
def calls(draw):
    shape, dtype, grad_dtype = draw(shapes()), draw(dtypes), draw(dtypes)
    if draw(st.booleans()):
        grad_dtype = dtype
    rng = np.random.default_rng(draw(seeds))
    x = values_of(draw(st.sampled_from(sorted(VALUES))), rng, shape, dtype)
    g = values_of(
        draw(st.sampled_from(["normal", "with_outliers", "rising"])), rng, shape, grad_dtype
    )
    # Both parameters of the dtype of x, or of another one.
    parameter_dtype = draw(st.just(dtype) | dtypes)
    arguments = {
        name: make(rng, shape, parameter_dtype)
        for name, make in ARGUMENTS.items()
        if draw(st.booleans())
    }
    names = st.sampled_from(sorted(LAYOUTS))
    out = draw(st.none() | st.sampled_from(["x", *sorted(WRITEABLE)]))
    layouts = draw(st.sampled_from(sorted(WRITEABLE)) if out == "x" else names), draw(names)
    eps = draw(st.sampled_from([1e-5, 1e-3, 1.0, 0.0]))
    return Call(x, g, arguments, eps, layouts, out, draw(st.integers(1, 4)))


def memory_of(array):
    """The bytes of what the array is a view into, and which of them are not the array's."""
    whole = array if array.base is None else array.base
    data = whole.ravel(order="K").view(np.uint8)
    assert np.shares_memory(data, whole)
    outside = np.ones(data.size, bool)
    start = array.__array_interface__["data"][0] - data.__array_interface__["data"][0]
    strides = (*array.strides, 1)
    np.ndarray((*array.shape, array.itemsize), bool, outside, start, strides)[...] = False
    return data, outside


def out_of(call, x):
    """The array to write to, in the byte order of x; perhaps x itself."""
    if call.out in (None, "x"):
        return x if call.out else None
    return WRITEABLE[call.out](np.full_like(call.x, 7)).view(x.dtype)


@some
@given(calls())
def test_any_call_is_right_and_writes_nothing_else(call):
    expected = solved(call)
    assume(expected is not None)
    instnorm.set_num_threads(call.threads)
    x, g = LAYOUTS[call.layouts[0]](call.x), LAYOUTS[call.layouts[1]](call.grad_output)
    out = out_of(call, x)
    guard = None
    if out is not None:
        data, outside = memory_of(out)
        guard = data, outside, data[outside].copy()
    weight, bias = call.arguments.get("weight"), call.arguments.get("bias")
    y, mean, rstd = instance_norm(x, weight, bias, eps=call.eps, out=out, return_stats=True)
    results = [np.array(y)]
    if call.out != "x":
        gradients = instance_norm_backward(g, x, weight, mean=mean, rstd=rstd, out=out)
        results += map(np.array, gradients)
        assert same_bits(np.array(x, order="C").astype(call.x.dtype), call.x)
    assert same_bits(np.array(g, order="C").astype(g.dtype.newbyteorder("=")), call.grad_output)
    if guard:
        data, outside, before = guard
        assert (data[outside] == before).all(), "memory beside out was written"
    for name, actual, exact, allowed in zip(
        ("y", "grad_input", "grad_weight", "grad_bias"), results, *expected, strict=False
    ):
        error = np.abs(actual.astype(reference.LONG) - exact)
        with np.errstate(divide="ignore", invalid="ignore"):
            assert (error <= allowed).all(), f"{name} is off by {np.nanmax(error / allowed):.3g}"


def solved(call):
    """The exact results, and how far off each may be; None where there is nothing to hold to."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        _, _, var = reference.statistics(call.x)
        if not (var + call.eps > 0).all():
            return None  # a constant row: what it gives is another test's subject
        p = posed(call.x, call.grad_output, call.arguments.get("weight"), None, eps=call.eps)
        bias = reference.per_channel(call.arguments.get("bias"), call.x, 0)
        exact = [p.exact[0] + bias, *p.exact[1:]]
        allowed = [p.allowed[0] + np.abs(bias) * 2.0**-20, *p.allowed[1:]]
        # float64 sums are in float64: n terms are off by about sqrt(n) / 10 roundings.
        if call.x.dtype == np.float64:
            allowed[1] = allowed[1] * (1 + np.sqrt(np.prod(call.x.shape[2:])) / 40)
        widest = {"e": 2.0**-24, "f": 2.0**-149, "d": 2.0**-1074}
        for i, (dtype, value) in enumerate(zip(dtypes_of(call), exact, strict=True)):
            largest = 65504 if dtype.char == "e" else 3e38 if dtype.char != "d" else 1e308
            if np.abs(value).max() >= largest * 0.99:
                return None
            # bfloat16 and float32 have one range of exponents.
            allowed[i] = allowed[i] + 4 * reference.LONG(widest.get(dtype.char, 2.0**-133))
            if call.x.dtype in HALF or dtype in HALF:
                allowed[i] = allowed[i] + reference.last_place(value, dtype)
    return exact, allowed


def dtypes_of(call):
    parameter_dtype = call.arguments["weight"].dtype if "weight" in call.arguments else call.x.dtype
    return call.x.dtype, call.x.dtype, parameter_dtype, parameter_dtype


# --- aliases --------------------------------------------------------------------------------


@st.composite
def overlapping(draw):
    """Byte offsets, into one block of memory, of all arrays of a call."""
    shape = draw(
        st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(2, 90))
        | st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(250, 5000))
    )
    dtype, parameter_dtype = draw(dtypes), draw(dtypes)
    axes = draw(st.permutations(range(3)))
    same_axes = draw(st.booleans())
    of_out = axes if same_axes else draw(st.permutations(range(3)))
    nbytes = int(np.prod(shape)) * dtype.itemsize
    place = st.sampled_from([0, 0, 2, 4, 8, 64, nbytes // 2, nbytes]) | st.integers(0, nbytes)
    offsets = {
        n: draw(place) for n in ("x", "grad_output", "out", "weight", "bias", "mean", "rstd")
    }
    apart = draw(st.sets(st.sampled_from(["x", "grad_output", "weight", "bias", "mean", "rstd"])))
    return shape, dtype, parameter_dtype, axes, of_out, offsets, apart, draw(seeds)


@some
@given(overlapping())
def test_arrays_in_one_another_give_what_arrays_apart_give(case):
    shape, dtype, parameter_dtype, axes, axes_of_out, offsets, apart, seed = case
    rng = np.random.default_rng(seed)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    block = np.zeros(2 * nbytes + 16 * shape[0] * shape[1] + 64, np.uint8)

    def put(name, shape, dtype, axes=None, values=None):
        where = block if name not in apart else np.zeros(block.size, np.uint8)
        order = range(len(shape)) if axes is None else axes
        array = np.ndarray([shape[a] for a in order], dtype, where, offsets[name])
        array = array.transpose(np.argsort(order))
        if values is not None:
            array[...] = values
        return array

    rows = shape[:2]
    arrays = {
        "x": put("x", shape, dtype, axes, rng.uniform(0.5, 2, shape)),
        "grad_output": put("grad_output", shape, dtype, axes, rng.uniform(0.5, 2, shape)),
        "weight": put("weight", rows[1:], parameter_dtype, None, rng.uniform(0.5, 2, rows[1])),
        "bias": put("bias", rows[1:], parameter_dtype, None, rng.uniform(0.5, 2, rows[1])),
        "mean": put("mean", rows, np.dtype(float), None, rng.uniform(0.5, 2, rows)),
        "rstd": put("rstd", rows, np.dtype(float), None, rng.uniform(0.5, 2, rows)),
    }
    out = put("out", shape, dtype, axes_of_out)
    # What overlaps was overwritten in part; what is there now counts, so long as it is a number.
    copies = {name: array.copy(order="K") for name, array in arrays.items()}
    for array in copies.values():
        with np.errstate(all="ignore"):
            wide = array.astype(float)
        assume(bool(np.isfinite(wide).all() and (np.abs(wide) < 1e30).all()))
    assume(bool((copies["rstd"] >= 0).all()))
    before = block.copy()
    outside = np.ones(block.size, bool)
    np.ndarray((*shape, dtype.itemsize), bool, outside, offsets["out"], (*out.strides, 1))[...] = (
        False
    )

    def forward(a, out):
        given = {"mean": a["mean"], "var": a["rstd"]} if seed % 2 else {}
        return [instance_norm(a["x"], a["weight"], a["bias"], out=out, **given)]

    def backward(a, out):
        return instance_norm_backward(
            a["grad_output"], a["x"], a["weight"], mean=a["mean"], rstd=a["rstd"], out=out
        )

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for call in (forward, backward):
            block[...] = before
            expected = call(copies, None)
            actual = call(arrays, out)
            assert actual[0] is out
            for a, e in zip(actual, expected, strict=True):
                assert np.array_equal(a.astype(float), e.astype(float), equal_nan=True)
            assert (block[outside] == before[outside]).all(), "memory beside out was written"


# --- rows by themselves ---------------------------------------------------------------------


@some
@given(calls(), st.sampled_from([np.nan, np.inf, -np.inf]), seeds)
def test_what_is_no_number_spoils_its_own_row_only(call, bad, seed):
    rng = np.random.default_rng(seed)
    n, c = (int(rng.integers(size)) for size in call.x.shape[:2])
    spoilt = call.x.copy()
    spoilt[(n, c, *(int(rng.integers(size)) for size in call.x.shape[2:]))] = bad
    layout = LAYOUTS[call.layouts[0]]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = instance_norm(layout(call.x), eps=call.eps)
        y = instance_norm(layout(spoilt), eps=call.eps)
    others = np.ones(call.x.shape[:2], bool)
    others[n, c] = False
    assert same_bits(np.array(y[others]), np.array(expected[others]))
    assert np.isnan(y[n, c].astype(float)).any()


# --- what follows the affine map ------------------------------------------------------------

slopes = st.sampled_from([0.1, "each", 0.0, 1.0]) | st.just(np.array([0.3]))


@some
@given(
    shape=shapes(), dtype=dtypes, activation=st.sampled_from([None, "relu", "leaky_relu"]),
    slope=slopes, residual=st.booleans(), mask=st.sampled_from([None, "prefix", "scattered"]),
    per_sample=st.booleans(), given_statistics=st.booleans(), last=st.booleans(), seed=seeds,
    threads=st.integers(1, 4),
)  # fmt: skip
def test_any_epilogue_is_right(
    shape,
    dtype,
    activation,
    slope,
    residual,
    mask,
    per_sample,
    given_statistics,
    last,
    seed,
    threads,
):
    assume(mask is None or np.prod(shape[2:]) >= 12)  # what counts has no more than a row has
    options = (activation, slope, residual, mask, per_sample)
    problem = Problem(shape, dtype, *options, given=given_statistics, seed=seed)
    if last:
        for name in ("x", "grad", "residual"):
            if getattr(problem, name) is not None:
                setattr(problem, name, channels_last(getattr(problem, name)))
    instnorm.set_num_threads(threads)
    y, mean, rstd = problem.forward(return_stats=True)
    expected, wide = problem.expected(), problem.weight.dtype
    assert error(y, expected[0], dtype) < 4
    found = problem.backward(mean, rstd)
    # Of the terms that it is the sum of, which cancel in rows of few elements.
    terms = np.abs(problem.grad.astype(float)).max() * np.abs(problem.weight).max() * rstd.max()
    assert error(found[0], expected[1], dtype, max(1, terms)) < 8
    for gradient, by, scale in zip(found[1:3], expected[2:4], problem.scales, strict=False):
        assert error(gradient, by, wide, scale) < 4
    if residual:
        assert error(found.grad_residual, expected[4], dtype) < 2
    if activation == "leaky_relu" and isinstance(problem.slope, np.ndarray):
        assert error(found.grad_slope, expected[5], wide, problem.scales[2]) < 4


@some
@given(
    shape=shapes(), dtype=dtypes, activation=st.sampled_from([None, "leaky_relu"]),
    residual=st.booleans(), mask=st.sampled_from([None, "prefix", "scattered"]),
    per_sample=st.booleans(), last=st.booleans(), seed=seeds, threads=st.integers(1, 4),
)  # fmt: skip
def test_in_place_forgets_only_what_rounding_took(
    shape, dtype, activation, residual, mask, per_sample, last, seed, threads
):
    assume(mask is None or np.prod(shape[2:]) >= 12)
    problem = Problem(shape, dtype, activation, 0.25, residual, mask, per_sample, seed=seed)
    layout = channels_last if last else np.ascontiguousarray
    instnorm.set_num_threads(threads)

    def results(inplace):
        """y, and the gradients of x, weight, bias and the residual."""
        leaves = [layout(problem.x), problem.weight, problem.bias]
        leaves += [layout(problem.residual)] if residual else []
        x, *others = (Tensor(array.copy(), requires_grad=True) for array in leaves)
        y = F.instance_norm(
            x * 1,
            weight=others[0],
            bias=others[1],
            residual=others[2] if residual else None,
            mask=problem.mask,
            activation=activation,
            negative_slope=0.25,
            inplace=inplace,
        )
        y.backward(problem.grad)
        return [y.data, x.grad.data, *(leaf.grad.data for leaf in others)]

    (y, *found), (plain_y, *expected) = results(True), results(False)
    assert same_bits(y, plain_y)
    # The input is the output, less the residual, divided by the slope and the weight.
    lost = float(np.abs(problem.expected()[0]).max())
    rstd = problem.forward(return_stats=True)[2].max()
    scales = [np.abs(problem.grad.astype(float)).max() * np.abs(problem.weight).max() * rstd]
    scales += [*problem.scales[:2], 1]
    for gradient, plain, scale in zip(found, expected, scales, strict=False):
        resolution = dtype if gradient.dtype == dtype or dtype in HALF else gradient.dtype
        assert error(gradient, plain.astype(np.longdouble), resolution, max(1, scale)) < 2 * lost
