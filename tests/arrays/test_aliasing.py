"""Arguments in the memory of `out`: every mix gives what arrays apart from each other give."""

import itertools

import numpy as np
import pytest
from helpers.problems import HALF, same_bits
from numpy.lib.stride_tricks import as_strided

from instnorm import instance_norm, instance_norm_backward

FULL = [np.dtype(np.float32), np.dtype(np.float64)]


def sample(shape, dtype, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 2, shape).astype(dtype)


def inside(out, values, start=0):
    """A copy of the values that lies in the memory of `out`, `start` bytes from its beginning."""
    view = np.ndarray(
        values.shape, values.dtype, buffer=out.reshape(-1).view(np.uint8), offset=start
    )
    view[...] = values
    return view


# --- backward: every argument in the memory of grad_input ---------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize(("n", "c", "pixels"), [(2, 3, 50), (1, 2, 40_000), (3, 4, 7)])
@pytest.mark.parametrize("place", [0, 8, 16])
@pytest.mark.parametrize("names", [("mean",), ("rstd",), ("mean", "rstd"), ("weight",)], ids=str)
def test_backward_with_arguments_in_the_memory_of_out(
    names, place, n, c, pixels, dtype, channels_last
):
    shape = (n, pixels, c) if channels_last else (n, c, pixels)
    axis = -1 if channels_last else 1
    x, g = sample(shape, dtype), sample(shape, dtype, 1)
    arguments = {
        "weight": sample(c, np.float64, 2),
        "mean": sample((n, c), np.float64, 3),
        "rstd": sample((n, c), np.float64, 4),
    }
    expected = instance_norm_backward(g, x, channel_axis=axis, **arguments)
    out = np.zeros(shape, dtype)
    for i, name in enumerate(names):
        arguments[name] = inside(out, arguments[name], place + i * 8 * n * c)
    actual = instance_norm_backward(g, x, channel_axis=axis, out=out, **arguments)
    assert actual[0] is out
    for a, e in zip(actual, expected, strict=True):
        assert same_bits(a, e)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [*FULL, *HALF], ids=str)
@pytest.mark.parametrize("parameter_dtype", [*FULL, *HALF], ids=str)
@pytest.mark.parametrize("n", [1, 2])
def test_a_weight_as_large_as_out_at_its_address(n, parameter_dtype, dtype, channels_last):
    c, pixels = 64, max(parameter_dtype.itemsize // dtype.itemsize // n, 1)
    shape, axis = ((n, pixels, c), -1) if channels_last else ((n, c, pixels), 1)
    x, g = sample(shape, dtype), sample(shape, dtype, 1)
    weight = sample(c, parameter_dtype, 2)
    statistics = {"mean": sample((n, c), np.float64, 3), "rstd": sample((n, c), np.float64, 4)}
    expected = instance_norm_backward(g, x, weight, **statistics, channel_axis=axis)
    out = np.zeros(shape, dtype)
    actual = instance_norm_backward(
        g, x, inside(out, weight), **statistics, channel_axis=axis, out=out
    )
    for a, e in zip(actual, expected, strict=True):
        assert same_bits(a, e)
    forward = {"weight": weight, "mean": statistics["mean"], "var": statistics["rstd"]}
    expected = instance_norm(x, **forward, channel_axis=axis)
    for name, value in forward.items():
        out = np.zeros(shape, dtype)
        if value.nbytes <= out.nbytes:
            changed = {**forward, name: inside(out, value)}
            actual = instance_norm(x, **changed, channel_axis=axis, out=out)
            assert same_bits(actual, expected), name


def test_grad_output_of_another_dtype_at_the_address_of_out():
    x = sample((2, 3, 40), np.float32)
    statistics = {"mean": sample((2, 3), np.float64, 3), "rstd": sample((2, 3), np.float64, 4)}
    for dtype in (np.float16, np.float32, *HALF):
        out = np.zeros(x.shape, np.float32)
        g = inside(out, sample(x.shape, dtype, 1))
        expected = instance_norm_backward(g.copy(), x, **statistics)
        actual = instance_norm_backward(g, x, out=out, **statistics)
        for a, e in zip(actual, expected, strict=True):
            assert same_bits(a, e)


# --- an `out` that overlaps itself ---------------------------------------------------------------


def strided(shape, steps):
    """A writable float64 array with these steps between its elements."""
    size = 1 + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    return as_strided(np.zeros(size), shape, [8 * step for step in steps])


def overlaps(shape, steps):
    """By counting: whether two elements lie at one place."""
    places = [
        sum(i * step for i, step in zip(index, steps, strict=True))
        for index in itertools.product(*map(range, shape))
    ]
    return len(set(places)) < len(places)


@pytest.mark.parametrize("steps", list(itertools.product([0, 1, 2, 3, 5, 8], repeat=3)), ids=str)
def test_an_out_that_overlaps_itself_is_refused_and_no_other(steps):
    x = sample((2, 3, 4), np.float64)
    statistics = {"mean": np.zeros(3), "rstd": np.ones(3)}
    out = strided(x.shape, steps)
    if overlaps(x.shape, steps):
        for call in (
            lambda: instance_norm(x, out=out),
            lambda: instance_norm_backward(x, x, **statistics, out=out),
        ):
            with pytest.raises(ValueError, match=r"out overlaps itself: .*strides"):
                call()
        assert not out.any()
    else:
        assert instance_norm(x, out=out) is out
        np.testing.assert_array_equal(out, instance_norm(x))


def test_elements_that_overlap_in_part():
    out = as_strided(np.zeros(100), (2, 3, 4), (96, 32, 4))
    with pytest.raises(ValueError, match="out overlaps itself"):
        instance_norm(sample((2, 3, 4), np.float64), out=out)


def test_turned_and_spaced_outs_are_their_own_memory():
    x = sample((2, 3, 4), np.float64)
    for out in (np.zeros((2, 3, 4))[:, ::-1, ::-1], np.zeros((4, 6, 8))[::2, ::-2, 1::2]):
        instance_norm(x, out=out)
        np.testing.assert_array_equal(out, instance_norm(x))


def test_an_out_of_endless_shape_in_one_element_is_refused_at_once():
    shape = (2, 3, 2**40)
    out = as_strided(np.zeros(1), shape, (0, 0, 0))
    with pytest.raises(ValueError, match="out overlaps itself"):
        instance_norm(np.broadcast_to(np.float64(1), shape), out=out)


# --- found by tests/fuzz --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mean", "rstd"])
def test_statistics_at_odd_addresses(name):
    shape = (2, 3, 9)
    x, g = sample(shape, FULL[0]), sample(shape, FULL[0], 1)
    statistics = {"mean": sample((2, 3), FULL[1], 3), "rstd": sample((2, 3), FULL[1], 4)}
    expected = instance_norm_backward(g, x, **statistics)
    memory = np.zeros(100, np.uint8)
    statistics[name] = inside(memory, statistics[name], 1 - memory.ctypes.data % 2)
    assert not statistics[name].flags.aligned
    for out in (None, np.empty(shape, FULL[0])):
        actual = instance_norm_backward(g, x, **statistics, out=out)
        assert all(map(same_bits, actual, expected))
