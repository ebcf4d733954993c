"""Every function of `functional`: values and gradients against torch and central differences."""

import itertools
import re

import ml_dtypes
import numpy as np
import pytest
from helpers import reference
from helpers.beside_torch import assert_close, assert_same, torch, torch_leaf, torch_tensor
from helpers.layouts import COMMON, channels_last, memory_order, read_only
from helpers.tensors import assert_create_graph_changes_nothing, leaf, normal

import instnorm
import instnorm.functional as F
from instnorm import Tensor, no_grad
from instnorm.testing import gradcheck, gradgradcheck

pytestmark = pytest.mark.torch

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
NAN, INF = np.nan, np.inf


def labels(*shape, classes=5, seed=0):
    return np.random.default_rng([seed, *shape]).integers(0, classes, shape)


def target_for(t, array):
    """Class indices in the form that the library of `t` takes."""
    return torch.tensor(array) if isinstance(t, torch.Tensor) else array


def row_for(t, values):
    """The same numbers in the library and dtype of `t`."""
    if isinstance(t, torch.Tensor):
        return torch.tensor(values, dtype=t.dtype)
    return np.array(values, t.dtype)


IGNORING = np.where(labels(4, 3) == 1, -100, labels(4, 3))


def class_weight_for(t):
    return row_for(t, [0.5, 0.0, 1.5, 2.0, 1.0])


# name: function of either library's functional and Tensors, arrays
OPERATIONS = {
    "linear": (lambda f, x, w, b: f.linear(x, w, b), [normal(2, 3), normal(4, 3), normal(4)]),
    "linear without bias": (lambda f, x, w: f.linear(x, w), [normal(2, 3), normal(4, 3)]),
    "linear of a vector": (
        lambda f, x, w, b: f.linear(x, w, b),
        [normal(3), normal(4, 3), normal(4)],
    ),
    "linear of a batch": (
        lambda f, x, w, b: f.linear(x, w, b),
        [normal(2, 5, 3), normal(4, 3), normal(4)],
    ),
    "relu": (lambda f, x: f.relu(x), [normal(2, 3, 4)]),
    "leaky_relu": (lambda f, x: f.leaky_relu(x), [normal(2, 3, 4)]),
    "leaky_relu 0.2": (lambda f, x: f.leaky_relu(x, 0.2), [normal(2, 3, 4)]),
    "leaky_relu -1": (lambda f, x: f.leaky_relu(x, negative_slope=-1), [normal(2, 3, 4)]),
    "tanh": (lambda f, x: f.tanh(x), [normal(2, 3, 4)]),
    "sigmoid": (lambda f, x: f.sigmoid(x), [normal(2, 3, 4)]),
    "softmax 1": (lambda f, x: f.softmax(x, dim=1), [normal(2, 3, 4)]),
    "softmax -1": (lambda f, x: f.softmax(x, -1), [normal(2, 3, 4)]),
    "log_softmax 0": (lambda f, x: f.log_softmax(x, 0), [normal(3)]),
    "log_softmax 1": (lambda f, x: f.log_softmax(x, dim=1), [normal(2, 3, 4)]),
    "log_softmax -3": (lambda f, x: f.log_softmax(x, -3), [normal(2, 3, 4)]),
    "mse_loss": (lambda f, x, y: f.mse_loss(x, y), [normal(2, 3), normal(2, 3, seed=1)]),
    "mse_loss sum": (
        lambda f, x, y: f.mse_loss(x, y, reduction="sum"),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "mse_loss none": (
        lambda f, x, y: f.mse_loss(x, y, reduction="none"),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "l1_loss": (lambda f, x, y: f.l1_loss(x, y), [normal(2, 3), normal(2, 3, seed=1)]),
    "l1_loss sum": (
        lambda f, x, y: f.l1_loss(x, y, reduction="sum"),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "l1_loss none": (
        lambda f, x, y: f.l1_loss(x, y, reduction="none"),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "relu inplace": (lambda f, x: f.relu(x * 1, inplace=True), [normal(2, 3, 4)]),
    "gelu": (lambda f, x: f.gelu(x), [3 * normal(2, 3, 4)]),
    "gelu tanh": (lambda f, x: f.gelu(x, approximate="tanh"), [normal(2, 3, 4)]),
    "softplus": (lambda f, x: f.softplus(x), [3 * normal(2, 3, 4)]),
    "normalize": (lambda f, x: f.normalize(x), [normal(2, 3, 4)]),
    "normalize p": (lambda f, x: f.normalize(x, p=1, dim=-1), [normal(2, 3)]),
    "cosine_similarity": (
        lambda f, x, y: f.cosine_similarity(x, y),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "cosine_similarity 0": (
        lambda f, x, y: f.cosine_similarity(x, y, dim=0),
        [normal(2, 3), normal(2, 1, seed=1)],
    ),
    "binary_cross_entropy": (
        lambda f, x: f.binary_cross_entropy(f.sigmoid(x), row_for(x, [[0.0, 1, 1], [1, 0, 0.3]])),
        [normal(2, 3)],
    ),
    "binary_cross_entropy weight": (
        lambda f, x: f.binary_cross_entropy(
            f.sigmoid(x), row_for(x, [[0.0, 1], [1, 0]]), row_for(x, [2.0, 0.5]), reduction="sum"
        ),
        [normal(2, 2)],
    ),
    "cross_entropy of probabilities": (
        lambda f, x, y: f.cross_entropy(x, f.softmax(y, 1)),
        [normal(4, 5), normal(4, 5, seed=1)],
    ),
    "cross_entropy of probabilities, smoothed": (
        lambda f, x, y: f.cross_entropy(
            x, f.softmax(y, 1), weight=class_weight_for(x), label_smoothing=0.2, reduction="none"
        ),
        [normal(4, 5, 3), normal(4, 5, 3, seed=1)],
    ),
    "cross_entropy of probabilities, one sample": (
        lambda f, x, y: f.cross_entropy(x, f.softmax(y, 0), reduction="sum"),
        [normal(5), normal(5, seed=1)],
    ),
    "silu": (lambda f, x: f.silu(x), [3 * normal(2, 3, 4)]),
    "prelu": (lambda f, x, w: f.prelu(x, w), [normal(2, 3, 4), normal(1)]),
    "prelu of channels": (lambda f, x, w: f.prelu(x, w), [normal(2, 3, 4), normal(3)]),
    "prelu of features": (lambda f, x, w: f.prelu(x, w), [normal(2, 3), normal(3)]),
    "smooth_l1_loss": (
        lambda f, x, y: f.smooth_l1_loss(x, y),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "smooth_l1_loss beta": (
        lambda f, x, y: f.smooth_l1_loss(x, y, reduction="sum", beta=0.3),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "smooth_l1_loss beta 0": (
        lambda f, x, y: f.smooth_l1_loss(x, y, reduction="none", beta=0.0),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "binary_cross_entropy_with_logits": (
        lambda f, x, y: f.binary_cross_entropy_with_logits(x, y),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "binary_cross_entropy_with_logits weighted": (
        lambda f, x, y: f.binary_cross_entropy_with_logits(
            x,
            y,
            weight=row_for(x, [0.5, 2.0, 1.0]),
            pos_weight=row_for(x, [3.0, 0.5, 1.0]),
            reduction="none",
        ),
        [normal(2, 3), normal(2, 3, seed=1)],
    ),
    "batch_norm": (
        lambda f, x, w, b: f.batch_norm(x, None, None, w, b, training=True),
        [2 + normal(3, 2, 4), normal(2), normal(2, seed=1)],
    ),
    "batch_norm of features": (
        lambda f, x: f.batch_norm(x, None, None, training=True, eps=0.1),
        [normal(4, 3)],
    ),
    "batch_norm by given statistics": (
        lambda f, x, w: f.batch_norm(
            x, row_for(x, [0.1, 0.2, 0.3]), row_for(x, [1.0, 2.0, 3.0]), weight=w
        ),
        [normal(2, 3), normal(3)],
    ),
    "group_norm": (
        lambda f, x, w, b: f.group_norm(x, 2, w, b),
        [2 + normal(2, 4, 3), normal(4), normal(4, seed=1)],
    ),
    "group_norm of features": (lambda f, x: f.group_norm(x, 2), [normal(2, 6)]),
    "layer_norm": (
        lambda f, x, w, b: f.layer_norm(x, (3, 4), w, b),
        [2 + normal(2, 3, 4), normal(3, 4), normal(3, 4, seed=1)],
    ),
    "layer_norm of a vector": (lambda f, x: f.layer_norm(x, [5], eps=0.1), [normal(5)]),
    "embedding": (
        lambda f, w: f.embedding(target_for(w, labels(2, 3)), w),
        [normal(5, 2)],
    ),
    "dropout of all": (lambda f, x: f.dropout(x * x, 1.0), [normal(2, 3)]),
    "interpolate linear": (
        lambda f, x: f.interpolate(x, scale_factor=2, mode="linear"),
        [normal(1, 2, 4)],
    ),
    "interpolate trilinear": (
        lambda f, x: f.interpolate(x, (3, 2, 5), mode="trilinear", align_corners=True),
        [normal(1, 1, 2, 3, 2)],
    ),
    "cross_entropy of one": (
        lambda f, x: f.cross_entropy(x, target_for(x, np.array(2))),
        [normal(5)],
    ),
    "nll_loss": (lambda f, x: f.nll_loss(x, target_for(x, labels(4))), [normal(4, 5)]),
}
for reduction in ("mean", "sum", "none"):
    for smoothing in (0.0, 0.3):
        for what, weighted, target, shape in (
            ("", False, labels(4), (4, 5)),
            (" weighted", True, labels(4), (4, 5)),
            (" of pixels", False, labels(2, 3, 2), (2, 5, 3, 2)),
            (" ignoring, weighted", True, IGNORING, (4, 5, 3)),
        ):
            OPERATIONS[f"cross_entropy {reduction} {smoothing}{what}"] = (
                lambda f, x, r=reduction, s=smoothing, w=weighted, y=target: f.cross_entropy(
                    x,
                    target_for(x, y),
                    weight=class_weight_for(x) if w else None,
                    reduction=r,
                    label_smoothing=s,
                ),
                [normal(*shape)],
            )

# The same, of images (N, C, H, W): these must take every memory layout.
IMAGE_OPERATIONS = {
    "conv2d": (lambda f, x, w: f.conv2d(x, w), [normal(2, 3, 5, 6), normal(4, 3, 3, 3)]),
    "conv2d bias": (
        lambda f, x, w, b: f.conv2d(x, w, b),
        [normal(2, 3, 5, 6), normal(4, 3, 3, 3), normal(4)],
    ),
    "conv2d 1x1": (
        lambda f, x, w, b: f.conv2d(x, w, b),
        [normal(2, 3, 4, 3), normal(2, 3, 1, 1), normal(2)],
    ),
    "conv2d of the whole image": (
        lambda f, x, w: f.conv2d(x, w),
        [normal(2, 2, 4, 3), normal(3, 2, 4, 3)],
    ),
    "conv2d padding": (
        lambda f, x, w, b: f.conv2d(x, w, b, padding=1),
        [normal(2, 2, 4, 5), normal(3, 2, 3, 3), normal(3)],
    ),
    "conv2d much padding": (
        lambda f, x, w: f.conv2d(x, w, padding=(3, 4)),
        [normal(1, 2, 3, 2), normal(2, 2, 2, 3)],
    ),
    "conv2d stride": (
        lambda f, x, w, b: f.conv2d(x, w, b, stride=2),
        [normal(2, 2, 6, 5), normal(3, 2, 3, 2), normal(3)],
    ),
    "conv2d stride, pixels left over": (
        lambda f, x, w: f.conv2d(x, w, stride=(3, 2), padding=(0, 1)),
        [normal(1, 2, 6, 5), normal(3, 2, 2, 2)],
    ),
    "conv2d dilation": (
        lambda f, x, w: f.conv2d(x, w, dilation=(2, 1), padding=(2, 0)),
        [normal(1, 2, 4, 5), normal(2, 2, 2, 3)],
    ),
    "conv2d all": (
        lambda f, x, w, b: f.conv2d(x, w, b, (2, 1), (1, 2), (1, 2)),
        [normal(2, 2, 5, 4), normal(3, 2, 3, 2), normal(3)],
    ),
    "max_pool2d": (lambda f, x: f.max_pool2d(x, 2), [normal(2, 3, 4, 6)]),
    "max_pool2d overlapping": (lambda f, x: f.max_pool2d(x, 3, 1), [normal(2, 3, 4, 5)]),
    "max_pool2d pixels left over": (
        lambda f, x: f.max_pool2d(x, (2, 3), stride=(3, 2)),
        [normal(2, 2, 7, 6)],
    ),
    "max_pool2d padding": (
        lambda f, x: f.max_pool2d(x, kernel_size=3, stride=2, padding=1),
        [-10 - normal(2, 2, 5, 4)],
    ),
    "avg_pool2d": (lambda f, x: f.avg_pool2d(x, 2), [normal(2, 3, 4, 6)]),
    "avg_pool2d overlapping": (
        lambda f, x: f.avg_pool2d(x, (3, 2), stride=(1, 2)),
        [normal(2, 2, 5, 5)],
    ),
    "avg_pool2d padding": (
        lambda f, x: f.avg_pool2d(x, kernel_size=3, stride=2, padding=1),
        [normal(2, 2, 5, 4)],
    ),
    "interpolate twice": (lambda f, x: f.interpolate(x, scale_factor=2), [normal(2, 2, 2, 3)]),
    "interpolate half": (lambda f, x: f.interpolate(x, scale_factor=0.5), [normal(2, 2, 5, 4)]),
    "interpolate factors": (
        lambda f, x: f.interpolate(x, scale_factor=(1.5, 0.7)),
        [normal(1, 2, 4, 6)],
    ),
    "interpolate size": (lambda f, x: f.interpolate(x, size=(3, 7)), [normal(1, 2, 5, 4)]),
    "interpolate one size": (lambda f, x: f.interpolate(x, 3), [normal(1, 2, 5, 4)]),
    "interpolate, the same": (lambda f, x: f.interpolate(x, size=(5, 4)), [normal(1, 2, 5, 4)]),
    "interpolate bilinear": (
        lambda f, x: f.interpolate(x, scale_factor=2, mode="bilinear"),
        [normal(2, 2, 3, 4)],
    ),
    "interpolate bilinear factors": (
        lambda f, x: f.interpolate(x, scale_factor=(1.7, 0.6), mode="bilinear"),
        [normal(1, 2, 4, 6)],
    ),
    "interpolate bilinear size": (
        lambda f, x: f.interpolate(x, size=(3, 7), mode="bilinear", align_corners=False),
        [normal(1, 2, 5, 4)],
    ),
    "interpolate bilinear corners": (
        lambda f, x: f.interpolate(x, size=(7, 2), mode="bilinear", align_corners=True),
        [normal(1, 2, 4, 3)],
    ),
    "batch_norm of images": (
        lambda f, x, w, b: f.batch_norm(x, None, None, w, b, True),
        [1 + normal(2, 3, 4, 2), normal(3), normal(3, seed=1)],
    ),
    "gelu of images": (lambda f, x: f.gelu(x), [normal(2, 3, 4, 2)]),
    "pad": (lambda f, x: f.pad(x, (1, 2, 0, 3)), [normal(1, 2, 2, 3)]),
    "pad value": (lambda f, x: f.pad(x, (1, 2, 3, 1), value=-2.5), [normal(1, 2, 2, 3)]),
    "pad three axes": (lambda f, x: f.pad(x, [0, 1, 2, 0, 1, 1], value=3), [normal(1, 2, 2, 3)]),
    "pad nothing": (lambda f, x: f.pad(x, (0, 0)), [normal(1, 2, 2, 3)]),
    "pad reflect": (lambda f, x: f.pad(x, (1, 2, 0, 1), mode="reflect"), [normal(1, 2, 2, 3)]),
    "pad reflect all": (lambda f, x: f.pad(x, (3, 3, 2, 2), mode="reflect"), [normal(1, 2, 3, 4)]),
    "instance_norm": (lambda f, x: f.instance_norm(x), [normal(2, 3, 4, 3)]),
    "instance_norm weight, bias": (
        lambda f, x, w, b: f.instance_norm(x, weight=w, bias=b),
        [3 + normal(2, 3, 2, 3), normal(3), normal(3, seed=1)],
    ),
    "relu of images": (lambda f, x: f.relu(x), [normal(2, 3, 4, 2)]),
    "leaky_relu of images": (lambda f, x: f.leaky_relu(x), [normal(2, 3, 4, 2)]),
    "log_softmax of images": (lambda f, x: f.log_softmax(x, 1), [normal(2, 3, 4, 2)]),
}
# What torch has no equal of, or computes less exactly.
OURS = {
    "group_norm of single elements": (
        lambda f, x, w, b: f.group_norm(x, 3, w, b),
        [normal(2, 3), normal(3), normal(3, seed=1)],
    ),
    "conv2d of one image": (
        lambda f, x, w, b: f.conv2d(x, w, b, padding=1),
        [normal(2, 4, 5), normal(3, 2, 3, 3), normal(3)],
    ),
    "interpolate volumes": (lambda f, x: f.interpolate(x, (3, 2, 5)), [normal(1, 2, 2, 3, 4)]),
    "pad reflect the channels": (
        lambda f, x: f.pad(x, (0, 0, 0, 0, 1, 2), mode="reflect"),
        [normal(1, 3, 2, 2)],
    ),
}
EVERYTHING = {**OPERATIONS, **IMAGE_OPERATIONS, **OURS}


# --- values and gradients -----------------------------------------------------


@pytest.mark.parametrize("name", EVERYTHING)
def test_gradients_are_the_central_differences(name):
    func, arrays = EVERYTHING[name]
    leaves = [leaf(a) for a in arrays]
    assert gradcheck(lambda *ts: func(F, *ts), leaves, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", EVERYTHING)
def test_second_derivatives_are_the_central_differences(name):
    func, arrays = EVERYTHING[name]
    leaves = [leaf(a) for a in arrays]
    assert gradgradcheck(lambda *ts: func(F, *ts), leaves, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", EVERYTHING)
def test_gradients_that_can_be_differentiated_are_the_same(name):
    func, arrays = EVERYTHING[name]
    leaves = [leaf(a) for a in arrays]
    y = func(F, *leaves)
    assert_create_graph_changes_nothing(y, leaves)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*OPERATIONS, *IMAGE_OPERATIONS, "conv2d of one image"])
def test_values_and_gradients_are_those_of_torch(name, dtype):
    func, arrays = EVERYTHING[name]
    arrays = [a.astype(dtype) for a in arrays]
    ours, theirs = [leaf(a) for a in arrays], [torch_leaf(a) for a in arrays]
    assert_same(func(F, *ours), func(torch.nn.functional, *theirs), ours, theirs)


@pytest.mark.parametrize("layout", ["channels last", "Fortran", "every other, backwards"])
@pytest.mark.parametrize("name", IMAGE_OPERATIONS)
def test_images_may_lie_in_memory_in_any_way(name, layout):
    func, arrays = IMAGE_OPERATIONS[name]
    plain = [leaf(a) for a in arrays]
    # Weights of a convolution, and incoming gradients, are laid out differently too.
    laid_out = [leaf(COMMON[layout](a) if a.ndim == 4 else a) for a in arrays]
    cotangent = normal(*func(F, *plain).shape, seed=1)
    y, expected = func(F, *laid_out), func(F, *plain)
    y.backward(COMMON[layout](cotangent))
    expected.backward(cotangent)
    np.testing.assert_allclose(y.data, expected.data, rtol=0, atol=1e-14)
    for a, b in zip(laid_out, plain, strict=True):
        np.testing.assert_allclose(a.grad.data, b.grad.data, rtol=0, atol=3e-14)


@pytest.mark.parametrize("name", IMAGE_OPERATIONS)
def test_images_that_are_channels_last_stay_so(name):
    func, arrays = IMAGE_OPERATIONS[name]
    image = leaf(channels_last(arrays[0]))
    y = func(F, image, *arrays[1:])
    (gradient,) = instnorm.grad(y, image, Tensor(channels_last(normal(*y.shape))))
    for result in (y, gradient):
        longer = [axis for axis in (0, 2, 3, 1) if result.shape[axis] > 1]
        assert memory_order(result.data) == longer


@pytest.mark.parametrize("name", EVERYTHING)
def test_arrays_are_wrapped_and_never_written(name):
    func, arrays = EVERYTHING[name]
    y = func(F, *[read_only(a) for a in arrays])
    assert isinstance(y, Tensor)
    assert not y.requires_grad
    np.testing.assert_array_equal(y.data, func(F, *[Tensor(a) for a in arrays]).data)


@pytest.mark.parametrize("name", EVERYTHING)
def test_only_what_requires_gradients_gets_them(name):
    func, arrays = EVERYTHING[name]
    everything = [leaf(a) for a in arrays]
    y = func(F, *everything)
    cotangent = normal(*y.shape, seed=1)
    y.backward(cotangent)
    for chosen in range(len(arrays)):
        leaves = [Tensor(np.array(a), requires_grad=i == chosen) for i, a in enumerate(arrays)]
        func(F, *leaves).backward(cotangent)
        assert [t.grad is None for t in leaves] == [i != chosen for i in range(len(arrays))]
        np.testing.assert_allclose(
            leaves[chosen].grad.data, everything[chosen].grad.data, rtol=1e-13, atol=1e-14
        )
    with no_grad():
        assert not func(F, *everything).requires_grad


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)
@pytest.mark.parametrize("name", EVERYTHING)
def test_half_precision_stays_half_precision(name, dtype):
    func, arrays = EVERYTHING[name]
    halves = [leaf(a.astype(dtype)) for a in arrays]
    exact = [leaf(t.data.astype(np.float64)) for t in halves]
    y, expected = func(F, *halves), func(F, *exact)
    cotangent = normal(*y.shape, seed=1).astype(dtype)
    y.backward(cotangent)
    expected.backward(cotangent.astype(np.float64))
    eps = float(ml_dtypes.finfo(dtype).eps)
    gradients = [(a.grad, b.grad) for a, b in zip(halves, exact, strict=True)]
    for half, full in [(y, expected), *gradients]:
        assert half.dtype == dtype
        error = np.abs(half.data.astype(np.float64) - full.data).max()
        assert error <= 8 * eps * max(1, np.abs(full.data).max())


# --- convolution --------------------------------------------------------------


def random_geometry(rng):
    """Shapes and options of a convolution that has at least one pixel of output."""
    kernel, stride, dilation = rng.integers(1, 4, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    padding = rng.integers(0, 4, 2)
    least = np.maximum(dilation * (kernel - 1) + 1 - 2 * padding, 1)
    image = least + rng.integers(0, 6, 2)
    batch, channels_in, channels_out = rng.integers(1, 5, 3)
    options = {
        name: tuple(value.tolist())
        for name, value in (("stride", stride), ("padding", padding), ("dilation", dilation))
    }
    return (batch, channels_in, *image), (channels_out, channels_in, *kernel), options


@pytest.mark.parametrize("seed", range(60))
def test_convolutions_of_any_geometry(seed):
    rng = np.random.default_rng(seed)
    shape, weight_shape, options = random_geometry(rng)
    dtype = rng.choice([np.float32, np.float64])
    layout = COMMON[rng.choice(list(COMMON))]
    arrays = [normal(*shape), normal(*weight_shape), normal(weight_shape[0])]
    arrays = [a.astype(dtype) for a in arrays]
    ours = [leaf(layout(arrays[0])), *(leaf(a) for a in arrays[1:])]
    theirs = [torch_leaf(a) for a in arrays]
    y = F.conv2d(*ours, **options)
    assert_same(y, torch.nn.functional.conv2d(*theirs, **options), ours, theirs)


@pytest.mark.parametrize("seed", range(60))
def test_pools_of_any_geometry(seed):
    rng = np.random.default_rng(seed)
    kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
    padding = rng.integers(0, kernel // 2 + 1)
    image = np.maximum(kernel - 2 * padding, 1) + rng.integers(0, 8, 2)
    # Few different values, so that many are equal: the first one wins.
    x = rng.integers(-3, 3, (2, 3, *image)).astype(np.float64)
    options = [tuple(v.tolist()) for v in (kernel, stride, padding)]
    for pool in ("max_pool2d", "avg_pool2d"):
        ours, theirs = leaf(COMMON[rng.choice(list(COMMON))](x)), torch_leaf(x)
        y = getattr(F, pool)(ours, *options)
        assert_same(y, getattr(torch.nn.functional, pool)(theirs, *options), [ours], [theirs])


@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_an_input_of_another_dtype_than_the_weight_is_refused_as_in_torch(name):
    """It would turn a float32 net into a float64 one, which is slow, and nobody would notice."""
    shapes = {"linear": ((2, 3), (4, 3)), "conv2d": ((1, 2, 4, 4), (3, 2, 3, 3))}[name]
    x, w = normal(*shapes[0]), normal(*shapes[1]).astype(np.float32)
    with pytest.raises(RuntimeError):
        getattr(torch.nn.functional, name)(torch.tensor(x), torch.tensor(w))
    with pytest.raises(RuntimeError, match="got float64 and float32"):
        getattr(F, name)(x, w)


@pytest.mark.parametrize("create_graph", [False, True])
def test_an_empty_batch_convolves_and_pools_to_an_empty_batch(create_graph):
    x, w = leaf(np.zeros((0, 2, 4, 4))), leaf(normal(3, 2, 3, 3))
    y = F.avg_pool2d(F.max_pool2d(F.relu(F.conv2d(x, w, padding=1)), 2), 2)
    assert y.shape == (0, 3, 1, 1)
    y.backward(np.zeros(y.shape), create_graph=create_graph)
    assert x.grad.shape == x.shape
    assert not w.grad.data.any()


# --- pools, resizing, activations at the edges --------------------------------


def test_max_pool_of_infinities_and_nan():
    x = normal(1, 1, 4, 4)
    x[0, 0, 0, :2], x[0, 0, 2, 3], x[0, 0, 3, :] = -INF, NAN, INF
    for options in ((2,), (2, 1), (3, 1, 1), (2, 2, 1)):
        ours, theirs = leaf(x), torch_leaf(x)
        y, expected = F.max_pool2d(ours, *options), torch.max_pool2d(theirs, *options)
        np.testing.assert_array_equal(y.data, expected.detach())
        y.backward(np.ones(y.shape))
        expected.backward(torch.ones(y.shape))
        np.testing.assert_array_equal(ours.grad.data, theirs.grad)


def test_padding_never_wins_the_maximum():
    x = leaf(np.full((1, 1, 3, 3), -INF))
    y = F.max_pool2d(x, 2, padding=1)
    y.backward(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert y.data.max() == -INF
    assert x.grad.tolist() == [[[[1, 2, 0], [3, 4, 0], [0, 0, 0]]]]


@pytest.mark.parametrize("old", [1, 2, 3, 7, 10, 49])
def test_nearest_elements_are_those_of_torch(old):
    x = np.arange(old, dtype=np.float32)[None, None]
    theirs = torch_tensor(x)
    for new in range(1, 100):
        expected = torch.nn.functional.interpolate(theirs, size=new)
        np.testing.assert_array_equal(F.interpolate(x, size=new).data, expected)
    for factor in (0.3, 0.5, 0.7, 1, 1.2, 1.5, 2, 2.3, 2.5, 2.7, 3, 3.7, 4.6, 4.9):
        if old * factor >= 1:
            expected = torch.nn.functional.interpolate(theirs, scale_factor=factor)
            np.testing.assert_array_equal(F.interpolate(x, scale_factor=factor).data, expected)


def test_rectifiers_at_the_edges():
    x = np.array([0.0, -0.0, INF, -INF, 1e-300, -1e-300, 5.0])
    for name, slope in (("relu", ()), ("leaky_relu", ()), ("leaky_relu", (0.0,))):
        ours, theirs = leaf(x), torch_leaf(x)
        y = getattr(F, name)(ours, *slope)
        expected = getattr(torch.nn.functional, name)(theirs, *slope)
        y.backward(np.arange(1.0, 8))
        expected.backward(torch.arange(1.0, 8, dtype=torch.float64))
        np.testing.assert_array_equal(ours.grad.data, theirs.grad)
        if slope != (0.0,):  # 0 * -inf: torch's slope of 0 gives NaN, ours is a ReLU
            np.testing.assert_array_equal(y.data, expected.detach())
    assert np.isnan(F.relu(np.array([NAN])).data).all()
    assert np.isnan(F.leaky_relu(np.array([NAN])).data).all()


@pytest.mark.parametrize(
    "row",
    [
        [1000.0, 0.0, -1000.0],
        [-INF, 0.0, 1.0],
        [-INF, -INF, -INF],
        [INF, 0.0, 1.0],
        [NAN, 0.0, 1.0],
    ],
)
def test_log_softmax_of_anything_is_torchs_and_warns_of_nothing(row):
    x = np.array([row, [0.0, 1.0, 2.0]])
    np.testing.assert_allclose(F.log_softmax(x, 1).data, torch_tensor(x).log_softmax(1), 1e-15)
    np.testing.assert_allclose(F.softmax(x, 1).data, torch_tensor(x).softmax(1), 1e-15)


# --- losses -------------------------------------------------------------------


def test_an_ignored_target_counts_for_nothing_whatever_its_scores():
    scores, target = normal(3, 4), np.array([1, 7, 3])
    scores[1, 0] = -INF
    x, t = leaf(scores), torch_leaf(scores)
    loss = F.cross_entropy(x, target, ignore_index=7)
    loss.backward()
    expected = torch.nn.functional.cross_entropy(t, torch.tensor(target), ignore_index=7)
    expected.backward()
    assert_close(loss, expected)
    assert_close(x.grad, t.grad)
    assert not x.grad.data[1].any()


def test_a_mean_over_no_targets_is_nan():
    assert np.isnan(F.cross_entropy(normal(2, 3), np.array([-100, -100])).item())
    assert np.isnan(F.cross_entropy(np.zeros((0, 3)), np.zeros(0, int)).item())
    assert F.cross_entropy(normal(2, 3), np.array([-100, -100]), reduction="sum").item() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64])
def test_class_indices_may_be_any_integers(dtype):
    scores, target = normal(4, 5), labels(4)
    expected = F.cross_entropy(scores, target).item()
    assert F.cross_entropy(scores, target.astype(dtype)).item() == expected
    assert F.cross_entropy(scores, Tensor(target.astype(dtype))).item() == expected


# --- instance norm ------------------------------------------------------------

SHAPES = {3: (2, 3, 5), 4: (2, 3, 2, 3), 5: (2, 2, 3, 1, 2), 6: (1, 2, 2, 2, 1, 3)}
PARAMETERS = {"none": (0, 0), "weight": (1, 0), "bias": (0, 1), "both": (1, 1)}


def instance_norm_case(rank, parameters, given, dtype=np.float64):
    """An input, and the keyword arguments that are arrays."""
    shape = SHAPES[rank]
    channels = shape[1]
    has_weight, has_bias = PARAMETERS[parameters]
    options = {}
    if has_weight:
        options["weight"] = normal(channels, seed=1)
    if has_bias:
        options["bias"] = normal(channels, seed=2)
    if given:
        options["running_mean"] = normal(channels, seed=3)
        options["running_var"] = np.exp(normal(channels, seed=4))
    return (1 + 2 * normal(*shape)).astype(dtype), {k: v.astype(dtype) for k, v in options.items()}


def with_leaves(options, make_leaf, make_constant):
    learned = {k: make_leaf(v) for k, v in options.items() if k in ("weight", "bias")}
    constants = {k: make_constant(v) for k, v in options.items() if k not in learned}
    return {**learned, **constants}, list(learned.values())


each_case = [
    pytest.mark.parametrize("given", [False, True], ids=["input's", "given"]),
    pytest.mark.parametrize("parameters", PARAMETERS),
    pytest.mark.parametrize("rank", SHAPES),
]


def in_each_case(test):
    for mark in each_case:
        test = mark(test)
    return test


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("eps", [1e-5, 0.5, 1, 0])
@in_each_case
def test_instance_norm_is_torchs(rank, parameters, given, eps, dtype):
    x, options = instance_norm_case(rank, parameters, given, dtype)
    ours, theirs = leaf(x), torch_leaf(x)
    our_options, our_parameters = with_leaves(options, leaf, Tensor)
    their_options, their_parameters = with_leaves(options, torch_leaf, torch_tensor)
    y = F.instance_norm(ours, **our_options, use_input_stats=not given, eps=eps)
    expected = torch.nn.functional.instance_norm(
        theirs, **their_options, use_input_stats=not given, eps=eps
    )
    leaves = [ours, *our_parameters], [theirs, *their_parameters]
    assert_same(y, expected, *leaves, eps=40)


@in_each_case
def test_instance_norm_is_its_formula(rank, parameters, given):
    x, options = instance_norm_case(rank, parameters, given)
    stats = {k.removeprefix("running_"): v for k, v in options.items() if "running" in k}
    scales = {k: v for k, v in options.items() if "running" not in k}
    y = F.instance_norm(x, **options, use_input_stats=not given)
    np.testing.assert_allclose(y.data, reference.forward(x, **scales, **stats), 0, 1e-14)


@pytest.mark.parametrize("eps", [1e-5, 0])
@in_each_case
def test_instance_norm_gradients(rank, parameters, given, eps):
    x, options = instance_norm_case(rank, parameters, given)
    options, parameters = with_leaves(options, leaf, Tensor)

    def normalized(x, *_):
        return F.instance_norm(x, **options, use_input_stats=not given, eps=eps)

    # The weight and the bias are reached through `options`.
    leaves = [leaf(x), *parameters]
    assert gradcheck(normalized, leaves, atol=1e-7, rtol=1e-5)
    assert gradgradcheck(normalized, leaves, atol=1e-6, rtol=1e-5)
    assert_create_graph_changes_nothing(normalized(*leaves), leaves)


@pytest.mark.parametrize("eps", [1e-5, 0])
def test_gradients_of_constant_channels(eps):
    x, weight, bias = leaf(normal(2, 3, 4)), leaf(normal(3)), leaf(normal(3))
    x.data[0, 1], x.data[1, 2] = 5.0, -0.1
    y = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    assert_create_graph_changes_nothing(y, [x, weight, bias])
    y = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    (gradient,) = instnorm.grad(y, x, Tensor(normal(2, 3, 4)), create_graph=True)
    (second,) = instnorm.grad(gradient, x, Tensor(normal(2, 3, 4, seed=1)))
    assert np.isfinite(gradient.data).all()
    assert np.isfinite(second.data).all()


@pytest.mark.parametrize("momentum", [0.1, 0.0, 0.37, 1.0, 1])
@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 3, 5), (4, 3, 2, 3), (2, 3, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_statistics_are_torchs_over_several_steps(dtype, shape, momentum):
    ours = Tensor(np.zeros(3, dtype)), np.ones(3, dtype)
    theirs = torch_tensor(ours[0].data), torch_tensor(ours[1])
    for step in range(5):
        x = (step + (1 + step) * normal(*shape, seed=step)).astype(dtype)
        y = F.instance_norm(x, *ours, momentum=momentum)
        expected = torch.nn.functional.instance_norm(torch_tensor(x), *theirs, momentum=momentum)
        assert_close(y, expected, eps=40)
        assert_close(ours[0], theirs[0])
        assert_close(ours[1], theirs[1])


def test_running_variance_of_a_constant_channel_is_exactly_zero():
    for eps in (0.0, 1e-5, 0.1, 3.7):
        mean, var = np.zeros(2), np.ones(2)
        F.instance_norm(np.full((2, 2, 5), 3.3), mean, var, momentum=1.0, eps=eps)
        np.testing.assert_allclose(mean, 3.3, 1e-15)
        np.testing.assert_allclose(var, 0, atol=1e-16)
        assert (var >= 0).all()


def test_running_statistics_are_frozen_without_momentum():
    mean, var = normal(3), np.exp(normal(3))
    before = mean.copy(), var.copy()
    y = F.instance_norm(normal(2, 3, 4), mean, var, momentum=None)
    np.testing.assert_array_equal(y.data, F.instance_norm(normal(2, 3, 4)).data)
    np.testing.assert_array_equal((mean, var), before)


def test_running_statistics_are_not_written_where_they_are_used():
    mean, var = read_only(normal(3)), read_only(np.exp(normal(3)))
    F.instance_norm(normal(2, 3, 4), mean, var, use_input_stats=False)


def test_a_change_of_running_statistics_is_seen_by_the_graph():
    mean, var = Tensor(np.zeros(3)), Tensor(np.ones(3))
    product = leaf(normal(3)) * mean
    F.instance_norm(normal(2, 3, 4), mean, var)
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        product.backward(np.ones(3))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    ("shape", "given"),
    [
        *itertools.product([(0, 3, 4), (0, 3, 2, 2), (2, 3, 0), (2, 3, 4, 0)], [False, True]),
        ((0, 3, 1), True),
    ],
)
def test_an_empty_input(shape, given, create_graph):
    x, weight, bias = leaf(np.zeros(shape)), leaf(normal(3)), leaf(normal(3))
    mean, var = normal(3), np.exp(normal(3))
    before = mean.copy(), var.copy()
    y = F.instance_norm(x, mean, var, weight, bias, use_input_stats=not given)
    assert y.shape == shape
    y.backward(np.zeros(shape), create_graph=create_graph)
    assert x.grad.shape == shape
    assert weight.grad.tolist() == bias.grad.tolist() == [0, 0, 0]
    np.testing.assert_array_equal((mean, var), before)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32)], ids=str)
@pytest.mark.parametrize("create_graph", [False, True])
def test_parameters_of_other_dtypes_get_gradients_of_theirs(dtype, create_graph):
    # Sums beyond what float16 can hold: they are never rounded to it on the way.
    x, g = normal(2, 3, 40, 40).astype(dtype), np.full((2, 3, 40, 40), 60, dtype)
    for weight in (None, leaf(np.ones(3)), leaf(np.ones(3, dtype))):
        bias = leaf(np.zeros(3))
        y = F.instance_norm(x, weight=weight, bias=bias)
        assert y.dtype == dtype
        y.backward(g, create_graph=create_graph)
        assert bias.grad.dtype == np.float64
        assert bias.grad.tolist() == [192_000] * 3
        assert weight is None or weight.grad.dtype == weight.dtype


def test_instance_norm_of_half_precision_with_large_gradients_warns_of_nothing():
    x = leaf(normal(2, 3, 40, 40).astype(np.float16))
    F.instance_norm(x).backward(np.full(x.shape, 60, np.float16))
    assert np.isfinite(x.grad.data).all()


# --- errors -------------------------------------------------------------------

X, W = normal(2, 3, 4, 5), normal(4, 3, 3, 3)
ERRORS = {
    "linear None": (lambda: F.linear(None, W), TypeError, "input must be a Tensor.*None"),
    "linear weight": (lambda: F.linear(normal(2, 3), W), ValueError, "weight has shape"),
    "linear input": (
        lambda: F.linear(normal(2, 3), normal(4, 2)),
        ValueError,
        r"input has shape \(2, 3\), expected 2 features",
    ),
    "linear scalar": (lambda: F.linear(np.array(1.0), normal(4, 1)), ValueError, "input has shape"),
    "linear bias": (
        lambda: F.linear(normal(2, 3), normal(4, 3), normal(3)),
        ValueError,
        r"bias has shape \(3,\), expected \(4,\)",
    ),
    "conv2d groups": (lambda: F.conv2d(X, W, groups=3), ValueError, "groups=3 does not divide"),
    "conv2d rank": (lambda: F.conv2d(X[0, 0], W), ValueError, r"input has shape \(4, 5\)"),
    "conv2d channels": (
        lambda: F.conv2d(X[:, :2], W),
        ValueError,
        r"input has shape \(2, 2, 4, 5\), expected \(N, 3, H, W\)",
    ),
    "conv2d one image's channels": (lambda: F.conv2d(X[0, :2], W), ValueError, "input has shape"),
    "conv2d weight": (lambda: F.conv2d(X, W[0]), ValueError, "weight has shape"),
    "conv2d bias": (lambda: F.conv2d(X, W, normal(3)), ValueError, "bias has shape"),
    "conv2d large": (
        lambda: F.conv2d(X, normal(1, 3, 5, 3)),
        ValueError,
        r"kernel_size \(5, 3\).*padded input of \(4, 5\)",
    ),
    "conv2d stride": (lambda: F.conv2d(X, W, stride=0), ValueError, "stride must be at least 1"),
    "conv2d padding": (lambda: F.conv2d(X, W, padding=-1), ValueError, "padding must be at least"),
    "conv2d padding name": (lambda: F.conv2d(X, W, padding="some"), ValueError, "padding must be"),
    "conv2d same": (
        lambda: F.conv2d(X, W, stride=2, padding="same"),
        ValueError,
        "padding='same' needs stride 1",
    ),
    "conv2d dtypes": (
        lambda: F.conv2d(X.astype("f"), W),
        RuntimeError,
        "must have one dtype, got float32 and float64",
    ),
    "conv2d dilation": (lambda: F.conv2d(X, W, dilation=1.5), TypeError, "dilation must be an int"),
    "max_pool2d rank": (lambda: F.max_pool2d(X[0, 0], 2), ValueError, "input has shape"),
    "max_pool2d kernel": (lambda: F.max_pool2d(X, 0), ValueError, "kernel_size must be at least 1"),
    "max_pool2d padding": (
        lambda: F.max_pool2d(X, 2, padding=2),
        ValueError,
        "padding must be at most half",
    ),
    "avg_pool2d padding": (
        lambda: F.avg_pool2d(X, (4, 2), padding=(2, 2)),
        ValueError,
        "padding must be at most half",
    ),
    "avg_pool2d large": (lambda: F.avg_pool2d(X, 6), ValueError, "kernel_size"),
    "interpolate mode": (
        lambda: F.interpolate(X, 2, mode="bicubic"),
        NotImplementedError,
        "mode='bicubic'",
    ),
    "interpolate mode of another rank": (
        lambda: F.interpolate(X, 2, mode="linear"),
        ValueError,
        "expected 1 spatial axes after",
    ),
    "interpolate corners": (
        lambda: F.interpolate(X, 2, align_corners=True),
        ValueError,
        "align_corners has no meaning",
    ),
    "gelu": (lambda: F.gelu(X, "erf"), ValueError, "approximate must be 'none' or 'tanh'"),
    "prelu": (lambda: F.prelu(X, np.ones(2)), ValueError, r"weight has shape \(2,\)"),
    "smooth_l1_loss": (lambda: F.smooth_l1_loss(X, X, beta=-1), ValueError, "beta must be"),
    "bce": (
        lambda: F.binary_cross_entropy_with_logits(X, X[0]),
        ValueError,
        "target has shape",
    ),
    "dropout": (lambda: F.dropout(X, 1.5), ValueError, "p must be from 0 to 1, got 1.5"),
    "embedding floats": (lambda: F.embedding(X, X[0, 0]), TypeError, "expected integers"),
    "embedding rank": (lambda: F.embedding(labels(2), X), ValueError, "expected \\(rows, feat"),
    "embedding row": (
        lambda: F.embedding(np.array([0, -1]), normal(3, 2)),
        IndexError,
        "input has -1, expected numbers from 0 to 2",
    ),
    "embedding padding": (
        lambda: F.embedding(labels(2), normal(5, 2), padding_idx=5),
        ValueError,
        "padding_idx must be from -5 to 4",
    ),
    "batch_norm of one": (
        lambda: F.batch_norm(normal(1, 3, 1), None, None, training=True),
        ValueError,
        "more than 1 value per channel",
    ),
    "batch_norm rank": (lambda: F.batch_norm(normal(3), None, None), ValueError, "input has shape"),
    "group_norm groups": (lambda: F.group_norm(X, 2), ValueError, "C divisible by num_groups 2"),
    "group_norm weight": (
        lambda: F.group_norm(X, 3, np.ones(2)),
        ValueError,
        r"weight has shape \(2,\), expected \(3,\)",
    ),
    "layer_norm shape": (lambda: F.layer_norm(X, 3), ValueError, r"last axes to be \(3,\)"),
    "missing": (lambda: F.gelo, AttributeError, "nearest: gelu"),
    "interpolate nothing": (lambda: F.interpolate(X), ValueError, "exactly one of size and"),
    "interpolate both": (lambda: F.interpolate(X, 2, 2), ValueError, "exactly one of size and"),
    "interpolate sizes": (lambda: F.interpolate(X, (2, 3, 4)), ValueError, "size has 3 entries"),
    "interpolate zero": (lambda: F.interpolate(X, 0), ValueError, "size=0 leaves no element"),
    "interpolate small": (
        lambda: F.interpolate(X, scale_factor=0.1),
        ValueError,
        "scale_factor=0.1 leaves no element",
    ),
    "interpolate fraction": (lambda: F.interpolate(X, 2.5), TypeError, "size must be of integers"),
    "interpolate nan": (
        lambda: F.interpolate(X, scale_factor=NAN),
        ValueError,
        "scale_factor must be finite",
    ),
    "interpolate rank": (lambda: F.interpolate(X[0, 0], 2), ValueError, "input has shape"),
    "pad mode": (lambda: F.pad(X, (1, 1), "mirror"), NotImplementedError, "mode='mirror'"),
    "pad circular": (
        lambda: F.pad(X, (6, 0), "circular"),
        ValueError,
        r"pad \(6, 0\) must be at most the length 5",
    ),
    "pad odd": (lambda: F.pad(X, (1, 1, 1)), ValueError, "pad has 3 entries"),
    "pad long": (lambda: F.pad(X, (1,) * 10), ValueError, "pad has 10 entries"),
    "pad negative": (lambda: F.pad(X, (1, -1)), ValueError, "pad must not be negative"),
    "pad fraction": (lambda: F.pad(X, (1, 0.5)), TypeError, "pad must be of integers"),
    "pad reflect": (
        lambda: F.pad(X, (5, 0), "reflect"),
        ValueError,
        "must be less than the length 5",
    ),
    "pad reflect value": (lambda: F.pad(X, (1, 0), "reflect", 3), ValueError, "value=3"),
    "log_softmax dim": (lambda: F.log_softmax(X, 4), IndexError, "dim 4 is out of range"),
    "mse_loss": (lambda: F.mse_loss(X, X[0]), ValueError, "target has shape"),
    "l1_loss": (lambda: F.l1_loss(X, X[:, :1]), ValueError, "target has shape"),
    "reduction": (
        lambda: F.mse_loss(X, X, "average"),
        ValueError,
        "reduction must be .* got 'average'",
    ),
    "cross_entropy reduction": (
        lambda: F.cross_entropy(normal(2, 3), labels(2), reduction="both"),
        ValueError,
        "reduction must be",
    ),
    "cross_entropy floats": (
        lambda: F.cross_entropy(normal(2, 3), normal(2)),
        TypeError,
        "target has dtype float64, expected integers",
    ),
    "cross_entropy shape": (
        lambda: F.cross_entropy(normal(2, 3), labels(3)),
        ValueError,
        r"target has shape \(3,\), expected \(2,\)",
    ),
    "cross_entropy class": (
        lambda: F.cross_entropy(normal(2, 3), np.array([0, 3])),
        IndexError,
        "target 3 is no class, expected from 0 to 2",
    ),
    "cross_entropy negative class": (
        lambda: F.cross_entropy(normal(2, 3), np.array([0, -1])),
        IndexError,
        "target -1 is no class",
    ),
    "cross_entropy weight": (
        lambda: F.cross_entropy(normal(2, 3), labels(2, classes=3), np.ones(2)),
        ValueError,
        r"weight has shape \(2,\), expected \(3,\)",
    ),
    "cross_entropy smoothing": (
        lambda: F.cross_entropy(normal(2, 3), labels(2, classes=3), label_smoothing=1.1),
        ValueError,
        "label_smoothing must be from 0 to 1, got 1.1",
    ),
    "object": (lambda: F.relu(np.array([None])), TypeError, "dtype object"),
    "instance_norm rank": (
        lambda: F.instance_norm(normal(2, 3)),
        ValueError,
        "expected at least 3 axes",
    ),
    "instance_norm integers": (
        lambda: F.instance_norm(np.ones((2, 3, 4), int)),
        TypeError,
        "dtype int64",
    ),
    "instance_norm complex": (
        lambda: F.instance_norm(np.ones((2, 3, 4), complex)),
        TypeError,
        "complex",
    ),
    "instance_norm one element": (
        lambda: F.instance_norm(normal(2, 3, 1, 1)),
        ValueError,
        "more than 1 spatial element",
    ),
    "instance_norm weight": (
        lambda: F.instance_norm(X, weight=np.ones(4)),
        ValueError,
        r"weight has shape \(4,\), expected \(3,\)",
    ),
    "instance_norm bias": (
        lambda: F.instance_norm(X, bias=np.ones((3, 1))),
        ValueError,
        r"bias has shape \(3, 1\)",
    ),
    "instance_norm no stats": (
        lambda: F.instance_norm(X, use_input_stats=False),
        ValueError,
        "must both be given",
    ),
    "instance_norm one stat": (
        lambda: F.instance_norm(X, running_mean=np.zeros(3)),
        ValueError,
        "both or neither",
    ),
    "instance_norm negative variance": (
        lambda: F.instance_norm(X, np.zeros(3), -np.ones(3), use_input_stats=False),
        ValueError,
        "var must be at least 0",
    ),
    **{
        f"instance_norm eps {eps}": (
            lambda eps=eps: F.instance_norm(X, eps=eps),
            ValueError,
            "eps must be finite and at least 0",
        )
        for eps in (-1e-5, -INF, INF, NAN)
    },
    "instance_norm eps name": (
        lambda: F.instance_norm(X, eps="small"),
        TypeError,
        "eps must be a number, got str",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_argument(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("mean", "var", "error", "message"),
    [
        (np.zeros(3), np.ones(2), ValueError, "running_var has shape (2,), expected (3,)"),
        (np.zeros(3), [1.0, 1.0, 1.0], TypeError, "running_var is updated in place"),
        (np.zeros(3), np.ones(3, int), TypeError, "running_var has dtype int64"),
        (np.zeros(3), read_only(np.ones(3)), ValueError, "running_var is updated in place"),
        (np.zeros((3, 1)), np.ones(3), ValueError, "running_mean has shape"),
    ],
)
def test_nothing_is_half_updated(mean, var, error, message):
    before = np.copy(mean), np.copy(var)
    with pytest.raises(error, match=re.escape(message)):
        F.instance_norm(X, mean, var)
    np.testing.assert_array_equal(mean, before[0])
    np.testing.assert_array_equal(var, before[1])


def test_a_bad_eps_or_weight_updates_nothing():
    mean, var = np.zeros(3), np.ones(3)
    for options in ({"eps": -1}, {"weight": np.ones(2)}):
        with pytest.raises(ValueError, match=r"eps|weight"):
            F.instance_norm(X, mean, var, **options)
    assert mean.tolist() == [0, 0, 0]
    assert var.tolist() == [1, 1, 1]


def test_all_is_public():
    assert sorted(F.__all__) == F.__all__
    for name in F.__all__:
        assert callable(getattr(F, name))
        # PyTorch has no adaptive instance norm: the paper's name.
        assert hasattr(torch.nn.functional, name) or name == "adaptive_instance_norm"
    assert dir(F) == sorted(F.__all__)
    assert instnorm.functional is F


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_dropout_drops_that_share_and_scales_the_rest(layout):
    x = leaf(COMMON[layout](np.ones((20, 10, 30, 5), np.float32)))
    instnorm.manual_seed(1)
    y = F.dropout(x, 0.3)
    assert set(np.unique(y.data)) == {np.float32(0), np.float32(1 / 0.7)}
    assert (y.data == 0).mean() == pytest.approx(0.3, abs=0.01)
    y.backward(np.full(y.shape, 2, np.float32))
    np.testing.assert_array_equal(x.grad.data, 2 * y.data)
    instnorm.manual_seed(1)
    np.testing.assert_array_equal(F.dropout(x, 0.3).data, y.data)
    assert (F.dropout(x, 0.3).data != y.data).any()


def test_dropout_returns_the_input_where_nothing_is_dropped():
    for library, x in ((F, leaf(normal(2, 3))), (torch.nn.functional, torch_leaf(normal(2, 3)))):
        assert library.dropout(x, 0.3, training=False) is library.dropout(x, 0.0) is x


def test_the_padding_of_an_embedding_gets_no_gradient():
    numbers = np.array([1, 0, 1, 4])
    w, t = leaf(normal(5, 2)), torch_leaf(normal(5, 2))
    for padding in (-4, 1, 0):
        ours = F.embedding(numbers, w, padding)
        theirs = torch.nn.functional.embedding(torch.tensor(numbers), t, padding)
        assert_same(ours, theirs, [w], [t])
        w.grad = t.grad = None


def test_running_statistics_of_batch_norm_are_torchs():
    ours, theirs = ([m, v] for m, v in ((np.zeros(3), np.ones(3)), (np.zeros(3), np.ones(3))))
    theirs = [torch.tensor(s) for s in theirs]
    for shape in ((2, 3, 4, 5), (6, 3), (4, 3, 2)):
        x = 1 + 2 * normal(*shape)
        F.batch_norm(x, *ours, training=True, momentum=0.3)
        torch.nn.functional.batch_norm(torch.tensor(x), *theirs, training=True, momentum=0.3)
        for a, t in zip(ours, theirs, strict=True):
            assert_close(a, t)


def test_dropout2d_drops_whole_channels():
    instnorm.manual_seed(0)
    y = F.dropout2d(np.ones((40, 50, 2, 3), np.float32), 0.25).data
    assert (y == y[:, :, :1, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    assert abs((y == 0).mean() - 0.25) < 0.05
    x = Tensor(normal(1, 2, 3, 3))
    assert F.dropout2d(x, 0.5, training=False) is x


@pytest.mark.parametrize("count", [-1, 4])
def test_one_hot_is_torchs(count):
    classes = np.array([[0, 2], [1, 1]])
    expected = torch.nn.functional.one_hot(torch.tensor(classes), count)
    ours = F.one_hot(Tensor(classes), num_classes=count)
    assert ours.dtype == np.int64
    np.testing.assert_array_equal(ours.data, expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.one_hot(Tensor([1.0])), TypeError, "tensor has dtype float32, expected integ"),
        (lambda: F.one_hot(Tensor([0, -1])), ValueError, "from -1 to 0, expected 0 to 0"),
        (lambda: F.one_hot(Tensor([0, 3]), 3), ValueError, "from 0 to 3, expected 0 to 2"),
        (lambda: F.dropout2d(Tensor(np.ones((2, 3)))), ValueError, "expected .N, C, H, W."),
        (
            lambda: F.binary_cross_entropy(Tensor([1.5]), Tensor([1.0])),
            ValueError,
            "input must be probabilities",
        ),
        (
            lambda: F.cross_entropy(Tensor(np.ones((2, 3))), Tensor([1.0, 2.0])),
            TypeError,
            r"expected integers: class indices; probabilities have the shape of input, \(2, 3\)",
        ),
    ],
)
def test_what_learners_mistake_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_certain_mistake_costs_100():
    loss = F.binary_cross_entropy(
        Tensor([0.0, 1.0, 1.0]), Tensor([1.0, 0.0, 1.0]), reduction="none"
    )
    assert loss.tolist() == [100, 100, 0]
