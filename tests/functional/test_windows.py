"""The geometry under convolution, pooling, resizing and padding: each map and its adjoint."""

import re

import numpy as np
import pytest
from helpers.beside_torch import torch, torch_tensor
from helpers.layouts import COMMON, channels_last, memory_order
from helpers.tensors import normal

from instnorm.functional import windows as win
from instnorm.functional.windows import Window

pytestmark = pytest.mark.torch

GEOMETRIES = {
    "plain": ((2, 3, 5, 6), {"kernel_size": 3}),
    "one pixel": ((1, 1, 1, 1), {"kernel_size": 1}),
    "1x1": ((2, 3, 4, 5), {"kernel_size": 1, "stride": 2}),
    "the whole image": ((2, 3, 4, 5), {"kernel_size": (4, 5)}),
    "padding": ((2, 3, 4, 5), {"kernel_size": (3, 2), "padding": (1, 1)}),
    "stride": ((2, 2, 7, 6), {"kernel_size": (2, 3), "stride": (3, 2)}),
    "dilation": ((1, 2, 6, 7), {"kernel_size": (3, 2), "dilation": (2, 3)}),
    "all": (
        (2, 2, 5, 4),
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1), "dilation": (1, 2)},
    ),
    "empty batch": ((0, 2, 4, 4), {"kernel_size": 2, "padding": 1}),
}


def assert_adjoint(forward_map, adjoint_map, x, rng_seed=1):
    """<f(x), y> = <x, adjoint(y)>, which defines the adjoint."""
    fx = forward_map(x)
    y = normal(*fx.shape, seed=rng_seed)
    back = adjoint_map(y)
    assert back.shape == x.shape
    assert (fx * y).sum() == pytest.approx((x * back).sum(), rel=1e-12, abs=1e-12)


# --- windows ------------------------------------------------------------------


@pytest.mark.parametrize("layout", COMMON)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_unfold_is_torchs_with_channels_last(name, layout):
    shape, options = GEOMETRIES[name]
    x = normal(*shape)
    window = Window.of(shape, **options)
    rows = window.unfold(COMMON[layout](x))
    assert rows.flags.c_contiguous
    if shape[0] == 0:
        assert rows.shape[0] == 0
        return
    theirs = torch.nn.functional.unfold(torch_tensor(x), **options)  # (N, C * h * w, windows)
    by_channel = theirs.numpy().transpose(0, 2, 1).reshape(len(rows), shape[1], -1)
    np.testing.assert_array_equal(rows, by_channel.transpose(0, 2, 1).reshape(rows.shape))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_fold_is_the_adjoint_of_unfold(name):
    shape, options = GEOMETRIES[name]
    window = Window.of(shape, **options)
    assert_adjoint(window.unfold, window.fold, normal(*shape))


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if "dilation" not in name])
def test_spread_is_the_adjoint_of_mean_and_put_of_pick(name):
    shape, options = GEOMETRIES[name]
    window, x = Window.of(shape, **options), normal(*shape)
    assert_adjoint(window.mean, window.spread, x)
    largest, winners = window.max(x)
    np.testing.assert_array_equal(window.pick(x, winners), largest)
    assert_adjoint(lambda a: window.pick(a, winners), lambda a: window.put(a, winners), x)


def test_winners_are_numbered_row_by_row_and_the_first_of_equal_ones_wins():
    window = Window.of((1, 1, 2, 6), kernel_size=(2, 3), stride=3)
    x = np.array([[[[0.0, 1, 2, 0, 0, 0], [3, 4, 5, 7, 0, 7]]]])
    largest, winners = window.max(x)
    assert largest.tolist() == [[[[5, 7]]]]
    assert winners.tolist() == [[[[5, 3]]]]
    assert window.max(np.zeros_like(x))[1].tolist() == [[[[0, 0]]]]


def test_windows_of_more_than_255_elements():
    x = np.arange(40.0 * 40).reshape(1, 1, 40, 40)
    window = Window.of(x.shape, kernel_size=20, stride=20)
    largest, winners = window.max(x)
    assert largest.tolist() == torch.max_pool2d(torch_tensor(x), 20).tolist()
    assert (winners == 399).all()
    np.testing.assert_array_equal(window.put(largest, winners).max(), 1599)


@pytest.mark.parametrize("padding", [0, 1])
def test_pooling_keeps_the_memory_layout(padding):
    x = channels_last(normal(2, 3, 6, 8))
    window = Window.of(x.shape, kernel_size=2, stride=2, padding=padding)
    largest, winners = window.max(x)
    for result in (
        largest,
        winners,
        window.mean(x),
        window.pick(x, winners),
        window.put(largest, winners),
        window.spread(largest),
    ):
        assert memory_order(result) == [0, 2, 3, 1]


@pytest.mark.parametrize(
    ("options", "margin"),
    [
        ({"kernel_size": 3}, (2, 2)),
        ({"kernel_size": (3, 2), "padding": (1, 0)}, (1, 1)),
        ({"kernel_size": (3, 2), "dilation": (1, 3)}, (2, 3)),
        ({"kernel_size": 1}, (0, 0)),
        ({"kernel_size": 1, "padding": 1}, None),
        ({"kernel_size": 3, "stride": (1, 2)}, None),
    ],
)
def test_when_the_adjoint_of_a_convolution_is_a_convolution(options, margin):
    assert Window.of((1, 1, 9, 9), **options).adjoint_padding == margin


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (2, -1)}, ValueError, "kernel_size must be at least 1, got (2, -1)"),
        ({"kernel_size": 2.0}, TypeError, "kernel_size must be an integer or two, got 2.0"),
        ({"kernel_size": True}, TypeError, "kernel_size must be an integer or two, got True"),
        ({"kernel_size": (1, 2, 3)}, TypeError, "kernel_size must be an integer or two"),
        ({"kernel_size": "33"}, TypeError, "kernel_size must be an integer or two, got '33'"),
        ({"kernel_size": 2, "stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"kernel_size": 2, "padding": -1}, ValueError, "padding must be at least 0, got -1"),
        ({"kernel_size": 2, "dilation": 0}, ValueError, "dilation must be at least 1, got 0"),
        (
            {"kernel_size": 3, "dilation": 2},
            ValueError,
            "kernel_size (3, 3) with dilation (2, 2) spans (5, 5) pixels, more than the padded "
            "input of (4, 5)",
        ),
    ],
)
def test_bad_measures(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Window.of((1, 1, 4, 5), **options)


def test_measures_may_be_numpy_integers():
    window = Window.of((1, 1, 4, 5), kernel_size=np.array([2, 3]), stride=np.int64(2))
    assert (window.kernel_size, window.stride, window.output_size) == ((2, 3), (2, 2), (2, 2))
    assert all(type(n) is int for n in (*window.kernel_size, *window.stride))


# --- nearest neighbours -------------------------------------------------------


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("new", [1, 2, 3, 5, 7, 10, 20])
def test_sum_runs_is_the_adjoint_of_take(new, axis):
    x = normal(2, 3, 5, 7)
    options = {2: (new, 7), 3: (5, new)}[axis]
    sources = dict(win.nearest_sources(x.shape, options, None))
    source, length = sources[axis], x.shape[axis]
    assert source[0] == 0
    assert (np.diff(source) >= 0).all()
    assert_adjoint(
        lambda a: win.take(a, source, axis), lambda a: win.sum_runs(a, source, length, axis), x
    )


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "Fortran"])
def test_resizing_and_padding_keep_the_memory_layout(layout):
    x = COMMON[layout](normal(2, 3, 4, 5))
    source = np.array([0, 0, 2, 3])
    for result in (
        win.take(x, source, 2),
        win.sum_runs(win.take(x, source, 2), source, 4, 2),
        win.pad_axis(x, 3, 1, 2, "constant"),
        win.pad_axis(x, 2, 1, 2, "reflect"),
        win.unpad_axis(x, 3, 1, 2, "constant"),
        win.unpad_axis(x, 3, 1, 1, "reflect"),
    ):
        assert memory_order(result) == memory_order(x)


# --- padding ------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (0, 1), (2, 3), (3, 3)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pad_axis_is_numpys_and_unpad_axis_its_adjoint(axis, before, after, mode):
    x = normal(4, 5, 4)
    widths = [(before, after) if i == axis else (0, 0) for i in range(3)]
    padded = win.pad_axis(x, axis, before, after, mode)
    np.testing.assert_array_equal(padded, np.pad(x, widths, mode=mode))
    assert_adjoint(
        lambda a: win.pad_axis(a, axis, before, after, mode),
        lambda a: win.unpad_axis(a, axis, before, after, mode),
        x,
    )


def test_padded_axes_come_from_the_last_to_the_first():
    assert win.padded_axes((2, 3, 4), (1, 2, 0, 0, 3, 0), "constant") == [(2, 1, 2), (0, 3, 0)]
    assert win.padded_axes((2, 3, 4), (), "reflect") == []


def test_border_is_the_value_outside_and_zero_inside():
    line = win.border((2, 5, 3), 1, 2, 1, 7.5, np.dtype(np.float32))
    assert line.shape == (5, 1)
    assert line.dtype == np.float32
    assert line.ravel().tolist() == [7.5, 7.5, 0, 0, 7.5]
