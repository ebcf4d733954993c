"""What follows an instance norm in the graph: gradients, second ones, and memory in place."""

import itertools

import numpy as np
import pytest
from helpers.layouts import channels_last
from helpers.tensors import assert_create_graph_changes_nothing, leaf, normal

import instnorm
from instnorm import Tensor, no_grad
from instnorm import functional as F
from instnorm.testing import gradcheck, gradgradcheck

SHAPE = (2, 3, 4, 5)
MASK = np.random.default_rng(3).random((2, 4, 5)) < 0.6


def arguments(residual, slope, per_sample, last=False):
    """Leaves: x, weight, bias, and residual and slope or None."""
    x = normal(*SHAPE)
    size = SHAPE[:2] if per_sample else SHAPE[1:2]
    return (
        leaf(channels_last(x) if last else x),
        leaf(1 + 0.3 * normal(*size, seed=1)),
        leaf(0.4 * normal(*size, seed=2)),
        leaf(normal(*SHAPE, seed=3)) if residual else None,
        leaf(np.array([0.2, 0.3, 0.4])) if slope else None,
    )


def normalized(options, x, weight, bias, residual, slope):
    return F.instance_norm(
        x,
        weight=weight,
        bias=bias,
        residual=residual,
        negative_slope=0.1 if slope is None else slope,
        **options,
    )


COMBINATIONS = [
    (activation, slope, residual, mask, per_sample)
    for (activation, slope), residual, mask, per_sample in itertools.product(
        [(None, False), ("relu", False), ("leaky_relu", False), ("leaky_relu", True)],
        [False, True],
        [None, MASK],
        [False, True],
    )
]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("activation", "slope", "residual", "mask", "per_sample"), COMBINATIONS)
def test_gradients(activation, slope, residual, mask, per_sample, last):
    leaves = arguments(residual, slope, per_sample, last)
    options = {"mask": mask, "activation": activation}

    def function(*values):
        values = iter(values)
        return normalized(options, *(None if v is None else next(values) for v in leaves))

    there = [v for v in leaves if v is not None]
    assert gradcheck(function, there)
    assert gradgradcheck(function, there)
    assert_create_graph_changes_nothing(function(*there), there)


@pytest.mark.parametrize("statistics", ["own", "running"])
@pytest.mark.parametrize("mask", [None, MASK])
def test_gradients_by_running_statistics(statistics, mask):
    x, weight, bias, residual, _ = arguments(True, False, False)

    def function(x, weight, bias, residual):
        return F.instance_norm(
            x,
            np.array([0.1, 0.2, 0.3]),
            np.array([1.0, 2.0, 0.5]),
            weight,
            bias,
            use_input_stats=statistics == "own",
            momentum=None,
            mask=mask,
            residual=residual,
            activation="relu",
        )

    assert gradcheck(function, (x, weight, bias, residual))
    assert gradgradcheck(function, (x, weight, bias, residual))


def test_running_statistics_are_those_of_what_counts():
    x = normal(*SHAPE)
    mean, var = np.zeros(3), np.ones(3)
    F.instance_norm(x, mean, var, mask=MASK, activation="relu")
    samples = [x[i][:, MASK[i]] for i in range(2)]
    np.testing.assert_allclose(mean, 0.1 * np.mean([s.mean(1) for s in samples], 0))
    expected = 0.9 + 0.1 * np.mean([s.var(1, ddof=1) for s in samples], 0)
    np.testing.assert_allclose(var, expected)


def test_mixed_dtypes_keep_their_own():
    x, residual = leaf(normal(*SHAPE)), leaf(normal(*SHAPE, seed=3).astype(np.float32))
    slope = leaf(np.full(3, 0.1, np.float16))
    y = F.instance_norm(x, residual=residual, activation="leaky_relu", negative_slope=slope)
    y.backward(normal(*SHAPE, seed=1))
    assert [t.grad.dtype.name for t in (x, residual, slope)] == ["float64", "float32", "float16"]


# --- in place -----------------------------------------------------------------------------


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("activation", [None, "leaky_relu"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("per_sample", [False, True])
def test_in_place_gradients(activation, residual, mask, per_sample, last):
    leaves = [v for v in arguments(residual, False, per_sample, last) if v is not None]
    options = {"mask": mask, "activation": activation}

    def function(x, weight, bias, residual=None, inplace=True):
        return normalized({**options, "inplace": inplace}, x * 1.0, weight, bias, residual, None)

    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves)
    y = function(*leaves)
    np.testing.assert_array_equal(y.data, function(*leaves, inplace=False).data)


@pytest.mark.parametrize("weight", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_in_place_gradients_are_nearly_as_exact(weight, bias):
    shape = (2, 3, 40, 40)
    x, g = normal(*shape).astype(np.float32), normal(*shape, seed=1).astype(np.float32)
    results = {}
    for name, dtype, inplace in (
        ("exact", np.float64, False),
        ("plain", np.float32, False),
        ("in place", np.float32, True),
    ):
        start = leaf(x.astype(dtype))
        y = F.instance_norm(
            start * 1.0,
            weight=Tensor(np.full(3, weight, dtype)),
            bias=Tensor(np.full(3, bias, dtype)),
            activation="leaky_relu",
            inplace=inplace,
        )
        y.backward(g.astype(dtype))
        results[name] = start.grad.data
    error = {
        name: np.linalg.norm(results[name] - results["exact"]) / np.linalg.norm(results["exact"])
        for name in ("plain", "in place")
    }
    # What rounding the output takes of it, where the bias is far larger than the weight.
    assert error["in place"] < 4 * error["plain"] + 1e-7 * bias / weight


def test_in_place_takes_the_memory_of_its_input():
    x = Tensor(normal(*SHAPE))
    y = F.instance_norm(x, activation="leaky_relu", inplace=True)
    assert np.shares_memory(x.data, y.data)
    np.testing.assert_array_equal(x.data, y.data)


def test_in_place_refuses_a_leaf_and_its_views():
    x = leaf(normal(*SHAPE))
    before = x.data.copy()
    for tensor in (x, x.reshape(2, 3, 20), x.reshape(2, 3, 20).transpose(0, 0)):
        with pytest.raises(RuntimeError, match="would overwrite a leaf"):
            F.instance_norm(tensor, inplace=True)
    np.testing.assert_array_equal(x.data, before)
    with no_grad():
        F.instance_norm(x, inplace=True)


def test_in_place_is_found_out_where_another_needs_the_input():
    x = leaf(normal(*SHAPE))
    h = x * 2.0
    squares = h * h  # needs h
    y = F.instance_norm(h, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        (squares.sum() + (y * y).sum()).backward()


def test_overwriting_what_in_place_has_kept_is_found_out():
    h = leaf(normal(*SHAPE)) * 2.0
    y = F.instance_norm(h, inplace=True)
    z = F.instance_norm(y, activation="leaky_relu", inplace=True)
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        z.backward(normal(*SHAPE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu"}, "ReLU"),
        ({"activation": "leaky_relu", "negative_slope": 0.0}, "negative_slope"),
        ({"activation": "leaky_relu", "negative_slope": np.ones(3)}, "negative_slope"),
        ({"weight": np.array([1.0, 0.0, 1.0])}, r"weight\[1\] is 0 in size"),
        ({"weight": np.full(3, 1e-16), "bias": np.ones(3)}, r"weight\[0\]"),
        ({"weight": np.full(3, np.nan)}, "weight"),
    ],
)
def test_in_place_refuses_what_it_cannot_invert(options, message):
    x = Tensor(normal(*SHAPE))
    before = x.data.copy()
    with pytest.raises(ValueError, match=message):
        F.instance_norm(x, inplace=True, **options)
    np.testing.assert_array_equal(x.data, before)


def test_in_place_refuses_read_only_memory():
    array = normal(*SHAPE)
    array.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        F.instance_norm(array, inplace=True)


# --- adaptive instance norm ----------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 2])
def test_adaptive_gradients(samples):
    content, style = leaf(normal(2, 3, 6)), leaf(normal(samples, 3, 4, 2, seed=1))
    assert gradcheck(F.adaptive_instance_norm, (content, style))
    assert gradgradcheck(F.adaptive_instance_norm, (content, style))


def test_adaptive_takes_on_the_statistics_of_the_style():
    content, style = normal(2, 3, 50, 40), 5 + 3 * normal(2, 3, 30, seed=1)
    y = F.adaptive_instance_norm(content, style, eps=0).data
    np.testing.assert_allclose(y.mean((2, 3)), style.mean(2))
    np.testing.assert_allclose(y.std((2, 3)), style.std(2))


@pytest.mark.parametrize("style", [(3, 3, 4), (2, 4, 4), (2, 3, 1), (2, 3)])
def test_adaptive_refuses_a_style_that_does_not_fit(style):
    with pytest.raises(ValueError, match=r"expected|the style has to have"):
        F.adaptive_instance_norm(np.ones((2, 3, 4)), np.ones(style))


# --- statistics by parts -------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 1e5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics_of_tiles_are_those_of_the_whole(dtype, mean):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2, 3, 90, 70)) + mean).astype(dtype)
    exact = x.astype(np.longdouble)
    cuts = [slice(a, b) for a, b in itertools.pairwise([0, 1, 17, 64, 70])]
    tiles = [x[:, :, rows, cut] for rows in (slice(0, 50), slice(50, 90)) for cut in cuts]
    for order in range(3):
        np.random.default_rng(order).shuffle(tiles)
        whole = instnorm.Statistics()
        for tile in tiles[:3]:
            whole.update(tile)
        rest = instnorm.Statistics()
        for tile in tiles[3:]:
            rest.update(tile)
        assert whole.merge(rest) is whole
        np.testing.assert_allclose(
            whole.mean, exact.mean((2, 3)).astype(float), rtol=1e-12, atol=1e-13
        )
        np.testing.assert_allclose(
            whole.var, exact.var((2, 3)).astype(float), rtol=1e-10 if mean else 1e-12
        )
        np.testing.assert_allclose(whole.unbiased_var, whole.var * 6300 / 6299, rtol=1e-14)
        assert (whole.count == 6300).all()
        assert whole.count.shape == (2, 1)


def test_statistics_of_what_counts():
    x = normal(*SHAPE)
    found = instnorm.Statistics.of(np.moveaxis(x, 1, -1), mask=MASK, channel_axis=-1)
    for i in range(2):
        np.testing.assert_allclose(found.mean[i], x[i][:, MASK[i]].mean(1))
        np.testing.assert_allclose(found.var[i], x[i][:, MASK[i]].var(1))
    np.testing.assert_array_equal(found.count[:, 0], MASK.sum((1, 2)))
    np.testing.assert_allclose(found.rstd(0.1), 1 / np.sqrt(found.var + 0.1))


def test_statistics_of_nothing_and_of_one():
    nothing = instnorm.Statistics.of(np.ones((2, 3, 4)), mask=np.zeros((2, 4), bool))
    assert np.isnan(nothing.mean).all()
    assert not nothing.count.any()
    one = instnorm.Statistics.of(np.full((2, 3, 1), 7.0))
    assert (one.mean == 7).all()
    assert not one.var.any()
    assert np.isnan(one.unbiased_var).all()
    assert (nothing.merge(one).mean == 7).all()
    assert instnorm.Statistics().mean.shape == (0, 0)


def test_statistics_of_parts_that_do_not_fit_change_nothing():
    found = instnorm.Statistics.of(np.ones((2, 3, 4)))
    for bad, kind in ((np.ones((2, 4, 4)), ValueError), (np.ones((2, 3, 4), int), TypeError)):
        with pytest.raises(kind):
            found.update(bad)
    with pytest.raises(TypeError, match="other must be a Statistics"):
        found.merge(1)
    assert (found.count == 4).all()


def test_merged_statistics_are_not_shared():
    first, second = (instnorm.Statistics.of(normal(1, 2, 9, seed=s)) for s in (1, 2))
    both = instnorm.Statistics().merge(first)
    before = first.mean
    both.merge(second)
    np.testing.assert_array_equal(first.mean, before)
    assert both.count[0, 0] == 18
