"""Layers made of instance norm: activated, conditional, reversible."""

import numpy as np
import pytest
from helpers.tensors import leaf, normal

import instnorm
from instnorm import functional as F
from instnorm import nn
from instnorm.testing import gradcheck


def randomized(layer):
    for i, parameter in enumerate(layer.parameters()):
        parameter.data[...] += 0.3 * normal(*parameter.shape, seed=i)
    return layer


# --- activation, residual and mask of the layer ---------------------------------------------


@pytest.mark.parametrize("batched", [False, True])
def test_the_layer_hands_on_what_follows(batched):
    shape = (2, 3, 8) if batched else (3, 8)
    layer = randomized(nn.InstanceNorm1d(3, affine=True, activation="relu"))
    x, residual = normal(*shape), normal(*shape, seed=1)
    mask = normal(*shape[:-2], 8, seed=2) > -0.5
    y = layer(x, mask=mask, residual=residual)
    one = (lambda a: a) if batched else (lambda a: a[None])
    expected = F.instance_norm(
        one(x),
        weight=layer.weight,
        bias=layer.bias,
        mask=one(mask),
        residual=one(residual),
        activation="relu",
    )
    np.testing.assert_array_equal(one(y.data), expected.data)


def test_a_slope_that_is_an_array_is_learned():
    layer = nn.InstanceNorm2d(
        3, affine=True, activation="leaky_relu", negative_slope=np.full(3, 0.25)
    )
    assert [name for name, _ in layer.named_parameters()] == ["negative_slope", "weight", "bias"]
    layer(normal(2, 3, 4, 4)).backward(normal(2, 3, 4, 4, seed=1))
    assert layer.negative_slope.grad.shape == (3,)
    other = nn.InstanceNorm2d(3, affine=True, activation="leaky_relu", negative_slope=np.ones(3))
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other.negative_slope.data, 0.25)
    assert "negative_slope=(3,)" in repr(layer)
    assert not list(nn.InstanceNorm2d(3, activation="leaky_relu").parameters())


def test_a_layer_in_place():
    layer = nn.InstanceNorm2d(3, affine=True, activation="leaky_relu", inplace=True)
    plain = nn.InstanceNorm2d(3, affine=True, activation="leaky_relu")
    x, g = normal(2, 3, 5, 5).astype(np.float32), normal(2, 3, 5, 5, seed=1)
    grads = []
    for each in (layer, plain):
        start = leaf(x)
        each(start * 1.0).backward(g.astype(np.float32))
        grads.append(start.grad.data)
    np.testing.assert_allclose(*grads, atol=1e-6)
    assert "inplace=True" in repr(layer)


@pytest.mark.parametrize(
    "options",
    [{"activation": "tanh"}, {"activation": "leaky_relu", "negative_slope": np.ones(2)}],
    ids=str,
)
def test_the_constructor_refuses(options):
    with pytest.raises(ValueError, match="expected"):
        nn.InstanceNorm2d(3, **options)


# --- conditional ----------------------------------------------------------------------------

CONDITIONAL = {
    nn.ConditionalInstanceNorm1d: (2, 3, 6),
    nn.ConditionalInstanceNorm2d: (2, 3, 4, 5),
    nn.ConditionalInstanceNorm3d: (2, 3, 2, 3, 4),
}


@pytest.mark.parametrize(("cls", "shape"), CONDITIONAL.items())
def test_each_sample_has_the_map_of_its_class(cls, shape):
    layer = randomized(cls(3, 4))
    x = normal(*shape)
    y = layer(x, np.array([2, 0]))
    for i, k in enumerate((2, 0)):
        alone = F.instance_norm(x[i : i + 1], weight=layer.weight[k], bias=layer.bias[k])
        np.testing.assert_array_equal(y.data[i : i + 1], alone.data)
    mixed = layer(x, np.array([[0, 0.5, 0.5, 0], [1, 0, 0, 0.0]]))
    between = F.instance_norm(
        x[:1],
        weight=(layer.weight[1] + layer.weight[2]) / 2,
        bias=(layer.bias[1] + layer.bias[2]) / 2,
    )
    np.testing.assert_allclose(mixed.data[:1], between.data, atol=1e-6)
    np.testing.assert_array_equal(mixed.data[1:], y.data[1:])


@pytest.mark.parametrize("label", [np.array([1, 1]), np.array([[0.2, 0.8], [1, 0]])])
def test_conditional_gradients(label):
    x, weight, bias = leaf(normal(2, 3, 6)), leaf(normal(2, 3, seed=1)), leaf(normal(2, 3, seed=2))
    layer = nn.ConditionalInstanceNorm1d(3, 2)

    def function(x, weight, bias):
        layer._parameters.update(weight=weight, bias=bias)
        return layer(x, label)

    assert gradcheck(function, (x, weight, bias))


def test_conditional_tracks_running_statistics():
    layer = nn.ConditionalInstanceNorm1d(3, 2, track_running_stats=True)
    plain = nn.InstanceNorm1d(3, track_running_stats=True)
    for each, more in ((layer, (np.array([0, 1]),)), (plain, ())):
        each(normal(2, 3, 7), *more)
    np.testing.assert_array_equal(layer.running_var.data, plain.running_var.data)
    layer.eval()
    y = layer(normal(2, 3, 7), np.array([0, 1]))
    np.testing.assert_array_equal(y.data, plain.eval()(normal(2, 3, 7)).data)


@pytest.mark.parametrize(
    ("label", "kind", "message"),
    [
        (np.array([0, 4]), ValueError, "expected classes from 0 to 3"),
        (np.array([-1, 0]), ValueError, "from -1 to 0"),
        (np.array([0]), ValueError, r"expected \(2,\)"),
        (np.ones((2, 3)), ValueError, r"expected \(2, 4\)"),
        (np.array([True, False]), TypeError, "label has dtype bool"),
    ],
)
def test_conditional_refuses_labels(label, kind, message):
    with pytest.raises(kind, match=message):
        nn.ConditionalInstanceNorm1d(3, 4)(normal(2, 3, 6), label)


@pytest.mark.parametrize("classes", [0, -1, 2.0, True])
def test_conditional_refuses_classes(classes):
    with pytest.raises((ValueError, TypeError), match="num_classes"):
        nn.ConditionalInstanceNorm1d(3, classes)


# --- RevIN ------------------------------------------------------------------------------------


def series(dtype=np.float64):
    x = 100 + 5 * normal(3, 16, 2)
    x[1, :, 0] = 7  # constant
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("subtract_last", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_revin_is_undone(affine, subtract_last, dtype):
    layer = randomized(nn.RevIN(2, affine=affine, subtract_last=subtract_last))
    x = series(dtype)
    y = layer(x, "norm")
    assert y.dtype == dtype
    assert y.shape == x.shape
    np.testing.assert_allclose(layer(y, "denorm").data, x, rtol=8 * np.finfo(dtype).eps)


def test_revin_follows_the_formula():
    layer = randomized(nn.RevIN(2))
    x = series()
    weight, bias = layer.affine_weight.data, layer.affine_bias.data
    std = np.sqrt(x.var(1, keepdims=True) + 1e-5)
    expected = (x - x.mean(1, keepdims=True)) / std * weight + bias
    np.testing.assert_allclose(layer(x, "norm").data, expected, rtol=1e-6, atol=1e-12)
    forecast = normal(3, 4, 2, seed=5)
    expected = (forecast - bias) / weight * std + x.mean(1, keepdims=True)
    np.testing.assert_allclose(layer(forecast, "denorm").data, expected, rtol=1e-12)


def test_revin_with_missing_values():
    layer = randomized(nn.RevIN(2))
    x = series()
    mask = np.random.default_rng(1).random(x.shape[:2]) < 0.7
    x[~mask] = np.nan
    y = layer(x, "norm", mask)
    assert not y.data[~mask].any()
    back = layer(y, "denorm", mask).data
    np.testing.assert_allclose(back[mask], x[mask], rtol=1e-12)
    assert not back[~mask].any()
    last = nn.RevIN(2, affine=False, subtract_last=True)
    y = last(x, "norm", mask).data
    for i in range(len(x)):
        assert not y[i][mask[i]][-1].any()


@pytest.mark.parametrize("mode", ["norm", "denorm"])
def test_revin_gradients(mode):
    layer = nn.RevIN(2)
    layer(series(), "norm")
    weight, bias = leaf(1 + 0.1 * normal(2)), leaf(normal(2, seed=1))

    def function(x, weight, bias):
        layer._parameters.update(affine_weight=weight, affine_bias=bias)
        return layer(x, mode)

    if mode == "denorm":
        assert gradcheck(function, (leaf(normal(3, 5, 2)), weight, bias))
    else:
        # Statistics are constants in the gradient, as in the paper's code.
        x = leaf(series()[:1])
        function(x, weight, bias).backward(np.ones((1, 16, 2)))
        rstd = 1 / np.sqrt(x.data.var(1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(x.grad.data, np.broadcast_to(weight.data * rstd, (1, 16, 2)))


def test_revin_refuses():
    layer = nn.RevIN(2)
    with pytest.raises(RuntimeError, match="'norm' before"):
        layer(series(), "denorm")
    with pytest.raises(ValueError, match="mode is 'undo'"):
        layer(series(), "undo")
    with pytest.raises(ValueError, match=r"expected \(N, L, 2\)"):
        layer(np.ones((2, 5, 3)), "norm")
    with pytest.raises(ValueError, match="one has none"):
        layer(series(), "norm", np.zeros((3, 16), bool))
    layer(series(), "norm")
    with pytest.raises(ValueError, match="expected those of the last"):
        layer(series()[:1], "denorm")
    layer.affine_weight.data[0] = 0
    with pytest.raises(ValueError, match="cannot be undone"):
        layer(series(), "denorm")


def test_all_are_differentiable_by_sgd():
    layer = nn.InstanceNorm1d(2, affine=True, activation="leaky_relu", negative_slope=np.ones(1))
    optimizer = instnorm.optim.SGD(layer.parameters(), lr=0.1)
    x, target = normal(4, 2, 9), normal(4, 2, 9, seed=1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.mse_loss(layer(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
