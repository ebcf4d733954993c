"""instance_norm and instance_norm_backward on ndarrays: values, dtypes, memory, bad input."""

import ml_dtypes
import numpy as np
import pytest
from helpers import layouts, looped, reference
from helpers.layouts import channels_last, read_only
from helpers.problems import DTYPES, HALF, same_bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import instnorm
from instnorm import arrays, instance_norm, instance_norm_backward

FULL = [np.dtype(np.float32), np.dtype(np.float64)]
SHAPES = [(2, 3, 7), (2, 3, 4, 5), (2, 3, 2, 3, 4), (1, 1, 2), (3, 2, 1, 40), (2, 3, 50, 60)]


def sample(shape, dtype=np.float64, seed=0, mean=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) + mean).astype(dtype)


def resolution(dtype):
    return float(ml_dtypes.finfo(dtype).eps)


def parameters(channels, dtype=np.float64):
    rng = np.random.default_rng(9)
    return rng.uniform(0.5, 2, channels).astype(dtype), rng.uniform(-2, 2, channels).astype(dtype)


def close(actual, expected, dtype, factor=8):
    """Whether the error is some roundings of the dtype, at the scale of the largest element."""
    expected = np.asarray(expected, np.longdouble)
    scale = max(1, np.abs(expected).max(initial=0))
    error = np.abs(np.asarray(actual).astype(np.longdouble) - expected)
    return (error <= factor * resolution(dtype) * scale).all()


# --- values ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("use_weight", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_forward(shape, dtype, use_weight, use_bias):
    x = sample(shape, dtype, mean=0.5)
    weight, bias = parameters(shape[1], dtype)
    weight, bias = weight if use_weight else None, bias if use_bias else None
    y = instance_norm(x, weight, bias)
    assert y.dtype == dtype
    assert y.shape == shape
    assert close(y, reference.forward(x, weight, bias), dtype, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [False, True])
def test_backward(shape, dtype, affine):
    x, g = sample(shape, dtype, mean=0.5), sample(shape, dtype, seed=1)
    weight = parameters(shape[1], dtype)[0] if affine else None
    _, mean, rstd = instance_norm(x, eps=1e-3, return_stats=True)
    gradients = instance_norm_backward(g, x, weight, mean=mean, rstd=rstd)
    expected = reference.backward(g, x, weight, eps=1e-3)
    assert [a.shape for a in gradients] == [shape, shape[1:2], shape[1:2]]
    for a, e in zip(gradients, expected, strict=True):
        assert a.dtype == dtype
        assert close(a, e, dtype)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_are_those_of_torch(shape, dtype):
    import torch

    x, g = sample(shape, dtype), sample(shape, dtype, seed=1)
    weight, bias = parameters(shape[1], dtype)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    expected = torch.nn.functional.instance_norm(
        tensors[0], weight=tensors[1], bias=tensors[2], eps=1e-3
    )
    expected.backward(torch.tensor(g))
    y, mean, rstd = instance_norm(x, weight, bias, eps=1e-3, return_stats=True)
    assert close(y, expected.detach(), dtype, 16)
    for a, t in zip(
        instance_norm_backward(g, x, weight, mean=mean, rstd=rstd), tensors, strict=True
    ):
        assert close(a, t.grad, dtype, 16)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_is_rounded_once_at_the_end(dtype):
    """Statistics in half precision would be off by far more: bfloat16 has steps of 2 at 300."""
    x = sample((2, 3, 1000), dtype, mean=300.0)
    weight, bias = parameters(3)
    y, mean, _ = instance_norm(x, weight, bias, return_stats=True)
    expected = reference.forward(x, weight, bias)
    once = np.abs(expected - expected.astype(dtype).astype(float)) + 1e-5
    assert (np.abs(y.astype(float) - expected) <= once).all()
    np.testing.assert_allclose(mean, x.astype(float).mean(2), rtol=1e-6)


def test_float16_beyond_its_range_is_infinite_and_warns_of_nothing():
    x = np.array([[[1.0, -1.0]]], np.float16)
    y = instance_norm(x, np.array([1e6]))
    assert y.tolist() == [[[np.inf, -np.inf]]]


@pytest.mark.parametrize("parameter_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parameters_of_another_dtype(dtype, parameter_dtype):
    x, g = sample((2, 3, 30), dtype), sample((2, 3, 30), dtype, seed=1)
    weight, bias = parameters(3, parameter_dtype)
    y, mean, rstd = instance_norm(x, weight, bias, return_stats=True)
    assert y.dtype == dtype
    assert close(y, reference.forward(x, weight, bias), dtype, 2)
    gradients = instance_norm_backward(g, x, weight, mean=mean, rstd=rstd)
    assert [a.dtype for a in gradients] == [dtype, parameter_dtype, parameter_dtype]
    coarser = max(dtype, parameter_dtype, key=resolution)
    for a, e in zip(gradients, reference.backward(g, x, weight), strict=True):
        assert close(a, e, coarser)


@pytest.mark.parametrize("dtype", FULL, ids=str)
def test_grad_output_of_another_dtype(dtype):
    x, g = sample((2, 3, 30), dtype), sample((2, 3, 30), np.float32, seed=1)
    _, mean, rstd = instance_norm(x, return_stats=True)
    expected = instance_norm_backward(g.astype(dtype), x, mean=mean, rstd=rstd)
    for other in (np.float64, np.float32):
        for a, e in zip(
            instance_norm_backward(g.astype(other), x, mean=mean, rstd=rstd), expected, strict=True
        ):
            assert same_bits(a, e)


# --- statistics that are given or returned -----------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("var_shape", [None, (3,), (2, 3)])
@pytest.mark.parametrize("mean_shape", [None, (3,), (2, 3)])
def test_given_statistics(mean_shape, var_shape, dtype):
    x = sample((2, 3, 4, 5), dtype, mean=1)
    mean = None if mean_shape is None else sample(mean_shape, seed=2, mean=1)
    var = None if var_shape is None else sample(var_shape, seed=3) ** 2 + 0.2
    weight, bias = parameters(3)
    y, used_mean, used_rstd = instance_norm(
        x, weight, bias, mean=mean, var=var, eps=1e-3, return_stats=True
    )
    assert close(y, reference.forward(x, weight, bias, mean=mean, var=var, eps=1e-3), dtype, 2)
    long = x.astype(float).reshape(2, 3, -1)
    np.testing.assert_allclose(
        used_mean, np.broadcast_to(long.mean(2) if mean is None else mean, (2, 3)), rtol=1e-6
    )
    np.testing.assert_allclose(
        used_rstd,
        np.broadcast_to((long.var(2) if var is None else var) + 1e-3, (2, 3)) ** -0.5,
        rtol=1e-6,
    )
    assert used_mean.shape == used_rstd.shape == (2, 3)
    assert used_mean.dtype == used_rstd.dtype == np.float64


@pytest.mark.parametrize("own", ["mean", "var"])
def test_own_statistics_given_back_change_nothing(own):
    x = sample((2, 3, 500), np.float32, mean=1e3)
    y, mean, rstd = instance_norm(x, eps=0, return_stats=True)
    given = {"mean": mean} if own == "mean" else {"var": rstd**-2}
    assert close(instance_norm(x, eps=0, **given), y, np.dtype(np.float32), 2)


@pytest.mark.parametrize("dtype", FULL, ids=str)
def test_one_element_with_given_statistics(dtype):
    x = np.full((2, 3, 1, 1), 5, dtype)
    y = instance_norm(x, mean=np.full(3, 3.0), var=np.full(3, 4.0), eps=0)
    assert (y == 1).all()


@pytest.mark.parametrize("statistic_shape", [(3,), (2, 3)])
def test_backward_through_given_statistics(statistic_shape):
    x, g = sample((2, 3, 4, 5)), sample((2, 3, 4, 5), seed=1)
    mean, rstd = sample(statistic_shape, seed=2), np.exp(sample(statistic_shape, seed=3))
    weight, _ = parameters(3)
    gradients = instance_norm_backward(g, x, weight, mean=mean, rstd=rstd, use_input_stats=False)
    expected = reference.backward_given(g, x, weight, mean=mean, rstd=rstd)
    for a, e in zip(gradients, expected, strict=True):
        assert close(a, e, np.dtype(float))


def test_var_and_eps_of_zero_give_the_bias():
    x = sample((1, 2, 3))
    y, _, rstd = instance_norm(
        x, None, [0.5, -0.5], mean=[0.0, 0.0], var=[0.0, 1.0], eps=0, return_stats=True
    )
    assert rstd.tolist() == [[0, 1]]
    assert (y[:, 0] == 0.5).all()
    assert close(y[:, 1], x[:, 1] - 0.5, np.dtype(float))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("eps", [0, 1e-5])
def test_a_constant_channel_gives_exactly_the_bias(dtype, eps):
    x = np.full((2, 3, 11, 13), 0.1).astype(dtype)
    weight, bias = parameters(3, dtype)
    assert (instance_norm(x, eps=eps) == 0).all()
    assert (instance_norm(x, weight, bias, eps=eps) == bias[:, None, None]).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_spoil_their_own_channel_only(dtype, bad):
    x = sample((2, 3, 4, 5), dtype)
    expected = instance_norm(x)
    x[1, 2, 0, 3] = bad
    y = instance_norm(x)
    assert np.isnan(y[1, 2]).all()
    y[1, 2] = expected[1, 2]
    assert same_bits(y, expected)


@pytest.mark.parametrize("eps", [0, 1, np.float32(0.5), np.int64(2), np.array(0.1)])
def test_eps_may_be_any_number(eps):
    x = sample((2, 3, 5))
    assert close(instance_norm(x, eps=eps), reference.forward(x, eps=float(eps)), np.dtype(float))


# --- memory layouts ------------------------------------------------------------------------


# Those that differ in what the array functions do with them; test_layouts.py has all.
LAYOUTS = {
    name: layouts.LAYOUTS[name]
    for name in (
        "contiguous",
        "channels last",
        "Fortran",
        "backwards",
        "every other",
        "spatial axes reversed",
        "channels outermost",
        "unaligned",
        "byte-swapped",
        "read-only",
    )
}


def assert_close(actual, expected):
    """Equal but for the order in which sums are formed."""
    scale = np.abs(expected.astype(float)).max()
    bound = 8 * np.finfo(expected.dtype).eps * max(1, scale)
    np.testing.assert_allclose(actual.astype(float), expected.astype(float), rtol=0, atol=bound)


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5), (2, 3, 2, 3, 4)])
def test_any_layout_gives_the_same_numbers_in_the_same_layout(layout, shape, dtype):
    plain, plain_g = sample(shape, dtype), sample(shape, dtype, seed=1)
    x, g = layout(plain), layout(plain_g)
    weight, bias = parameters(shape[1], dtype)
    y, mean, rstd = instance_norm(x, weight, bias, return_stats=True)
    expected = instance_norm(plain, weight, bias)
    assert_close(y, expected)
    assert y.dtype == x.dtype
    assert y.strides == np.empty_like(x).strides
    assert y.flags.writeable
    assert not np.may_share_memory(x, y)

    gradients = instance_norm_backward(g, x, weight, mean=mean, rstd=rstd)
    expected = instance_norm_backward(plain_g, plain, weight, mean=mean, rstd=rstd)
    for a, e in zip(gradients, expected, strict=True):
        assert_close(a, e)
    assert gradients[0].strides == np.empty_like(x).strides

    assert (x == plain).all()
    assert (g == plain_g).all()


@looped("g_layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_in_mixed_layouts(layout, g_layout, batch):
    """PyTorch 2.13 gets these wrong for a batch of one and a channels-last gradient."""
    plain, plain_g = sample((batch, 3, 4, 5)), sample((batch, 3, 4, 5), seed=1)
    x, g = layout(plain), LAYOUTS[g_layout](plain_g)
    _, mean, rstd = instance_norm(x, return_stats=True)
    gradients = instance_norm_backward(g, x, mean=mean, rstd=rstd)
    for a, e in zip(gradients, reference.backward(plain_g, plain), strict=True):
        assert close(a, e, np.dtype(float))
    assert gradients[0].strides == np.empty_like(x).strides


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_broadcast_input(dtype):
    x = np.broadcast_to(sample((3, 1, 5), dtype), (2, 3, 4, 5))
    y, mean, rstd = instance_norm(x, return_stats=True)
    # A copy may be walked in another order: then the last digit may differ.
    assert reference.ulps(y, reference.forward(x)).max() <= 2
    assert y.flags.writeable
    gradients = instance_norm_backward(
        np.broadcast_to(np.float32(2), x.shape), x, mean=mean, rstd=rstd
    )
    assert np.abs(gradients[0]).max() < 1e-3
    assert (gradients[2] == 2 * 2 * 4 * 5).all()


@st.composite
def views(draw):
    """A view into an array by random steps and a random order of axes."""
    ndim = draw(st.integers(3, 5))
    order = draw(st.permutations(range(ndim)))
    steps = [draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in range(ndim)]
    shape = [draw(st.integers(1, 4)) for _ in range(ndim)]
    base = sample([n * abs(s) for n, s in zip(shape, steps, strict=True)], np.float32)
    return base[tuple(slice(None, None, s) for s in steps)].transpose(order)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(x=views(), in_place=st.booleans())
def test_any_view(x, in_place):
    if x[0, 0].size == 1:
        return
    expected = reference.forward(x)
    base = x.base if x.base is not None else x
    before = base.copy()
    outside = np.ones(base.shape, bool)
    np.ndarray(x.shape, bool, outside, x_offset(x, base), bool_strides(x))[...] = False
    y = instance_norm(x, out=x if in_place else None)
    assert reference.ulps(y, expected).max() <= 2
    if in_place:
        assert y is x
        assert (base[outside] == before[outside]).all()
    else:
        assert (base == before).all()
        assert y.strides == np.empty_like(x).strides


def x_offset(x, base):
    return (x.ctypes.data - base.ctypes.data) // x.itemsize


def bool_strides(x):
    return [s // x.itemsize for s in x.strides]


# --- out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("out_layout", ["contiguous", "channels last", "every other", "backwards"])
@pytest.mark.parametrize("x_layout", ["contiguous", "channels last"])
def test_out(x_layout, out_layout, dtype):
    x = LAYOUTS[x_layout](sample((2, 3, 4, 5), dtype))
    expected = instance_norm(x)
    out = LAYOUTS[out_layout](np.full(x.shape, 9, dtype))
    strides = out.strides
    y, mean, rstd = instance_norm(x, out=out, return_stats=True)
    assert y is out
    assert out.strides == strides
    assert (out == expected).all()

    g = LAYOUTS[out_layout](sample(x.shape, dtype, seed=1))
    grad_input, *_ = instance_norm_backward(g, x, mean=mean, rstd=rstd)
    result, *_ = instance_norm_backward(g, x, mean=mean, rstd=rstd, out=out)
    assert result is out
    assert (out == grad_input).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place(layout, dtype):
    x = layout(sample((2, 3, 4, 5), dtype))
    if not x.flags.writeable:
        with pytest.raises(ValueError, match="out is read-only"):
            instance_norm(x, out=x)
        return
    expected = instance_norm(x)
    assert instance_norm(x, out=x) is x
    assert (x == expected).all()


@pytest.mark.parametrize("into", ["grad_output", "x"])
def test_backward_in_place(layout, into):
    x, g = layout(sample((2, 3, 4, 5))), layout(sample((2, 3, 4, 5), seed=1))
    if not x.flags.writeable:
        return
    _, mean, rstd = instance_norm(x, return_stats=True)
    expected = instance_norm_backward(g, x, mean=mean, rstd=rstd)
    out = x if into == "x" else g
    actual = instance_norm_backward(g, x, mean=mean, rstd=rstd, out=out)
    assert actual[0] is out
    for a, e in zip(actual, expected, strict=True):
        assert (a == e).all()


@pytest.mark.parametrize("given_statistics", [False, True])
@pytest.mark.parametrize("length", [5, 3000])
@pytest.mark.parametrize("shift", [-3, -1, 1, 4])
def test_out_that_overlaps_the_input(shift, length, given_statistics):
    statistics = {"mean": np.zeros(3), "var": np.ones(3)} if given_statistics else {}
    size = 2 * 3 * length
    memory = sample(size + 8, np.float32)
    x = memory[4 : 4 + size].reshape(2, 3, length)
    out = memory[4 + shift : 4 + shift + size].reshape(2, 3, length)
    expected = instance_norm(x, **statistics)
    assert instance_norm(x, out=out, **statistics) is out
    assert (out == expected).all()


def test_out_that_is_the_input_turned_round():
    x = sample((2, 3, 4, 5), np.float32)
    expected = instance_norm(x)
    out = x[:, :, ::-1, ::-1]
    instance_norm(x, out=out)
    assert (out == expected).all()


@pytest.mark.parametrize("name", ["weight", "bias", "mean", "var"])
@pytest.mark.parametrize("dtype", FULL, ids=str)
def test_out_that_overlaps_a_parameter(name, dtype):
    x = sample((2, 3, 8), dtype)
    out = np.ones_like(x)
    views = {"weight": out[0, 1, :3], "bias": out[0, 0, 5:], "mean": out[1, 0, :3]}
    views["var"] = out[1, 1, 1:4]
    for i, view in enumerate(views.values()):
        view[...] = [1 + i, 2, 3]
    expected = instance_norm(x, **{name: views[name].copy()})
    instance_norm(x, out=out, **{name: views[name]})
    assert (out == expected).all()


def test_backward_out_that_overlaps_everything():
    size = 2 * 3 * 50
    memory = sample(2 * size, np.float64)
    x, g = memory[:size].reshape(2, 3, 50), memory[7 : 7 + size].reshape(2, 3, 50)
    weight, mean = memory[3:6], memory[10:16].reshape(2, 3)
    rstd = np.ones((2, 3))
    expected = instance_norm_backward(
        g.copy(), x.copy(), weight.copy(), mean=mean.copy(), rstd=rstd
    )
    out = memory[2 : 2 + size].reshape(2, 3, 50)
    actual = instance_norm_backward(g, x, weight, mean=mean, rstd=rstd, out=out)
    for a, e in zip(actual, expected, strict=True):
        assert (a == e).all()


# --- what else an array can be -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 3, 4, 0)])
def test_empty_arrays(shape, dtype):
    x = np.zeros(shape, dtype)
    weight, bias = np.ones(shape[1], dtype), np.ones(shape[1], dtype)
    y, mean, rstd = instance_norm(x, weight, bias, return_stats=True)
    assert y.shape == shape
    assert y.dtype == dtype
    assert mean.shape == rstd.shape == shape[:2]
    grad_input, grad_weight, grad_bias = instance_norm_backward(x, x, weight, mean=mean, rstd=rstd)
    assert grad_input.shape == shape
    for a in (grad_weight, grad_bias):
        assert a.dtype == dtype
        assert a.tolist() == [0] * shape[1]


def test_lists_and_tensors_are_arrays_too():
    data = [[[1.0, 2.0, 4.0]]]
    expected = instance_norm(np.array(data), np.array([2.0]), np.array([1.0]))
    assert same_bits(instance_norm(data, [2.0], (1.0,)), expected)
    assert same_bits(instance_norm(instnorm.tensor(data, np.float64), [2.0], [1.0]), expected)


def test_subclasses_give_plain_arrays():
    class Sub(np.ndarray):
        pass

    x = sample((2, 3, 4))
    for array in (x.view(Sub), channels_last(x).view(Sub), x.astype(np.float16).view(Sub)):
        assert type(instance_norm(array)) is np.ndarray


# --- bad input -----------------------------------------------------------------------------------

X = np.arange(24.0).reshape(2, 3, 4)
STATS = {"mean": np.zeros((2, 3)), "rstd": np.ones((2, 3))}

REFUSED_BY_BOTH = [
    ({"x": X[0]}, ValueError, r"x has shape \(3, 4\), expected at least 3 axes"),
    ({"x": 1.0}, ValueError, r"x has shape \(\), expected at least 3 axes"),
    ({"x": X.astype(int)}, TypeError, "x has dtype int64, expected one of float16"),
    ({"x": X > 3}, TypeError, "x has dtype bool"),
    ({"x": X.astype(complex)}, TypeError, "x has dtype complex128"),
    ({"x": X.astype(object)}, TypeError, "x has dtype object"),
    ({"x": X.astype(np.longdouble)}, TypeError, "x has dtype float128"),
    ({"x": X.astype(ml_dtypes.float8_e4m3fn)}, TypeError, "x has dtype float8_e4m3fn"),
    ({"x": None}, TypeError, "x has dtype object"),
    ({"x": "abc"}, TypeError, "x has dtype <U3"),
    ({"weight": np.ones(4)}, ValueError, r"weight has shape \(4,\), expected \(3,\)"),
    ({"weight": np.ones((1, 3))}, ValueError, r"weight has shape \(1, 3\), expected \(3,\)"),
    ({"weight": 2.0}, ValueError, r"weight has shape \(\), expected \(3,\)"),
    ({"weight": [1, 2, 3]}, TypeError, "weight has dtype int64"),
    ({"mean": np.ones(4)}, ValueError, r"mean has shape \(4,\), expected \(3,\) or \(2, 3\)"),
    ({"mean": np.ones((1, 3))}, ValueError, r"mean has shape \(1, 3\), expected"),
    ({"mean": np.ones(3, int)}, TypeError, "mean has dtype int64"),
    ({"out": np.zeros((2, 3, 5))}, ValueError, r"out has shape \(2, 3, 5\), expected that of x"),
    ({"out": np.zeros((2, 3, 4), "f")}, TypeError, "out has dtype float32, expected that of x"),
    ({"out": X.tolist()}, TypeError, "out must be an ndarray, got list"),
    ({"out": read_only(X)}, ValueError, "out is read-only"),
]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        *REFUSED_BY_BOTH,
        ({"x": X[:0, :, :1]}, ValueError, "more than 1 spatial element"),
        ({"x": X[:, :, :1]}, ValueError, r"more than 1 spatial element .* shape \(2, 3, 1\)"),
        ({"x": X[:, :, :1], "mean": np.ones(3)}, ValueError, "more than 1 spatial element"),
        ({"x": X[:, :, :1], "var": np.ones(3)}, ValueError, "more than 1 spatial element"),
        ({"bias": np.ones((3, 1))}, ValueError, r"bias has shape \(3, 1\), expected \(3,\)"),
        ({"bias": ["a", "b", "c"]}, TypeError, "bias has dtype <U1"),
        ({"var": np.ones((3, 2))}, ValueError, r"var has shape \(3, 2\), expected \(3,\) or"),
        ({"var": np.array([1.0, -1.0, 1.0])}, ValueError, "var must be at least 0, got -1.0"),
        ({"var": np.array([1.0, -1e-9, 1.0])}, ValueError, "var must be at least 0, got -1e-09"),
        ({"eps": -1e-5}, ValueError, "eps must be finite and at least 0, got -1e-05"),
        ({"eps": np.inf}, ValueError, "eps must be finite and at least 0, got inf"),
        ({"eps": np.nan}, ValueError, "eps must be finite and at least 0, got nan"),
        ({"eps": "1e-5"}, TypeError, "eps must be a number, got str"),
        ({"eps": None}, TypeError, "eps must be a number, got NoneType"),
        ({"eps": 1j}, TypeError, "eps must be a number, got complex"),
    ],
    ids=str,
)
def test_what_forward_refuses(changes, error, message):
    out = changes.get("out")
    before = np.copy(out) if isinstance(out, np.ndarray) else None
    with pytest.raises(error, match=message):
        instance_norm(**{"x": X, **changes})
    if before is not None:
        np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        *REFUSED_BY_BOTH,
        ({"grad_output": X[:1]}, ValueError, r"grad_output has shape \(1, 3, 4\), expected that"),
        ({"grad_output": X.astype(int)}, TypeError, "grad_output has dtype int64"),
        ({"rstd": np.ones((3, 2))}, ValueError, r"rstd has shape \(3, 2\), expected"),
        ({"rstd": np.ones(3, bool)}, TypeError, "rstd has dtype bool"),
    ],
    ids=str,
)
def test_what_backward_refuses(changes, error, message):
    with pytest.raises(error, match=message):
        instance_norm_backward(**{"grad_output": X, "x": X, **STATS, **changes})


@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3, 4), (2, 3, 0)])
def test_the_dtypes_of_the_parameters_gradients(shape):
    x, weight = np.zeros(shape, np.float32), np.ones(3, np.float16)
    y, mean, rstd = instance_norm(x, weight, return_stats=True)
    for gradients, dtype in [
        (instance_norm_backward(y, x, weight, mean=mean, rstd=rstd), np.float16),
        (arrays.gradients(y, x, weight, mean=mean, rstd=rstd), np.float64),
    ]:
        assert [g.dtype for g in gradients[:3]] == [np.float32, dtype, dtype]


def test_nothing_is_written_where_the_call_is_refused():
    x = X.copy()
    with pytest.raises(ValueError, match="weight"):
        instance_norm(x, np.ones(5), out=x)
    assert (x == X).all()
