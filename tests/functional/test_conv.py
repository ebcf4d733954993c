"""Convolution and pooling in every combination of their arguments, beside torch."""

import itertools

import numpy as np
import pytest
from helpers.beside_torch import assert_same, torch_leaf
from helpers.layouts import channels_last, memory_order
from helpers.tensors import leaf, normal

import instnorm
import instnorm.functional as F
from instnorm._runtime import simd
from instnorm.testing import gradcheck, gradgradcheck

pytestmark = pytest.mark.torch

# Every level's loops are held to torch's results, not only those that are in use.
LEVELS = list(simd.available())


@pytest.fixture(params=LEVELS)
def _at_level(request, monkeypatch):
    from instnorm.functional import conv, pool

    module = simd._module("_layers", request.param)
    module.set_num_threads(2)
    for user in (conv, pool):
        monkeypatch.setattr(user, "layers", module)


def torch_functional(name):
    torch = pytest.importorskip("torch")
    return getattr(torch.nn.functional, name)


def random_case(seed):
    """Shapes and options of a convolution, of one to three axes."""
    rng = np.random.default_rng(seed)

    def draw(choices, axes):
        return tuple(int(n) for n in rng.choice(choices, axes))

    while True:
        axes, groups = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        channels, filters = groups * int(rng.integers(1, 5)), groups * int(rng.integers(1, 10))
        kernel, stride = draw([1, 2, 3, 4], axes), draw([1, 1, 2, 3, 5], axes)
        dilation, padding = draw([1, 1, 2, 3], axes), draw([0, 1, 2, 4], axes)
        lengths = draw([1, 3, 4, 7, 8, 33] if axes < 3 else [1, 3, 4, 6, 9], axes)
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        if all(n + 2 * p >= r for n, p, r in zip(lengths, padding, reach, strict=True)):
            break
    batch = int(rng.choice([1, 2, 3, 17]))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return axes, (batch, channels, *lengths), (filters, channels // groups, *kernel), options


@pytest.mark.usefixtures("_at_level")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(60))
def test_convolutions_of_random_measures_are_torchs(seed, dtype):
    axes, shape, weight_shape, options = random_case(seed)
    arrays = [normal(*shape), normal(*weight_shape), normal(weight_shape[0])]
    ours = [leaf(a.astype(dtype)) for a in arrays]
    theirs = [torch_leaf(a.astype(dtype)) for a in arrays]
    result = getattr(F, f"conv{axes}d")(*ours, **options)
    expected = torch_functional(f"conv{axes}d")(*theirs, **options)
    assert_same(result, expected, ours, theirs, eps=200)


@pytest.mark.usefixtures("_at_level")
@pytest.mark.parametrize("seed", range(60))
def test_transposed_convolutions_of_random_measures_are_torchs(seed):
    axes, shape, weight_shape, options = random_case(seed)
    groups, filters = options["groups"], weight_shape[0]
    lengths = [
        (n - 1) * s - 2 * p + d * (k - 1) + 1
        for n, k, s, p, d in zip(
            shape[2:],
            weight_shape[2:],
            *(options["stride"], options["padding"], options["dilation"]),
            strict=True,
        )
    ]
    if min(lengths) < 1:
        options["padding"] = (0,) * axes
    options["output_padding"] = tuple([s - 1 for s in options["stride"]])
    small = (shape[0], filters, *shape[2:])
    arrays = [normal(*small), normal(*weight_shape), normal(weight_shape[1] * groups)]
    ours, theirs = [leaf(a) for a in arrays], [torch_leaf(a) for a in arrays]
    result = getattr(F, f"conv_transpose{axes}d")(*ours, **options)
    expected = torch_functional(f"conv_transpose{axes}d")(*theirs, **options)
    assert_same(result, expected, ours, theirs, eps=200)


MEASURES = [
    {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    for stride, padding, dilation, groups in itertools.product(
        [1, (2, 1)], [0, (1, 2), "same", "valid"], [1, (1, 2)], [1, 2]
    )
    if stride == 1 or padding != "same"
]


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("options", MEASURES, ids=str)
def test_gradients_of_convolutions(options, layout):
    x, w, b = normal(2, 4, 3, 5), normal(2, 4 // options["groups"], 2, 3), normal(2)
    x = channels_last(x) if layout == "channels last" else x
    arguments = [leaf(x), leaf(w), leaf(b)]
    assert gradcheck(lambda x, w, b: F.conv2d(x, w, b, **options), arguments)
    assert gradgradcheck(lambda x, w, b: F.conv2d(x, w, b, **options), arguments)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_transposed_convolutions(axes, groups):
    lengths, kernel = (3, 2, 2)[:axes], (2, 3, 2)[:axes]
    arguments = [
        leaf(normal(2, 2, *lengths)),
        leaf(normal(2, 2, *kernel)),
        leaf(normal(2 * groups)),
    ]

    def function(x, w, b):
        transposed = getattr(F, f"conv_transpose{axes}d")
        return transposed(x, w, b, 2, 1, 1, groups)

    assert gradcheck(function, arguments)
    assert gradgradcheck(function, arguments)


# Large enough for several threads to share each layer's work.
@pytest.mark.parametrize("shape", [(40, 8, 24, 24), (1, 16, 140, 140), (3, 8, 400, 19)])
def test_results_do_not_depend_on_the_number_of_threads(shape):
    x, w, b = (a.astype("f") for a in (normal(*shape), normal(20, shape[1], 3, 3), normal(20)))
    before, found = instnorm.get_num_threads(), []
    for threads in (1, 2, 5):
        instnorm.set_num_threads(threads)
        arguments = [leaf(x), leaf(w), leaf(b)]
        y = F.max_pool2d(F.relu(F.conv2d(*arguments, padding=1)), 2)
        y.backward(normal(*y.shape).astype("f"))
        found.append([y.data, *(a.grad.data for a in arguments)])
    instnorm.set_num_threads(before)
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(first, second)


def test_a_batch_gives_the_bits_of_its_samples():
    x, w = normal(20, 3, 9, 7).astype("f"), normal(5, 3, 3, 3).astype("f")
    together = F.conv2d(x, w, stride=2, padding=1).data
    for i in range(len(x)):
        np.testing.assert_array_equal(F.conv2d(x[i : i + 1], w, None, 2, 1).data[0], together[i])


def test_an_infinite_element_reaches_only_the_windows_that_see_it():
    x = np.zeros((1, 1, 8, 8))
    x[0, 0, 3, 7] = np.inf  # at the end of a row, whose next element in memory is another row's
    y = F.conv2d(x, np.ones((1, 1, 3, 3)), padding=1).data[0, 0]
    expected = np.zeros((8, 8))
    expected[2:5, 6:] = np.inf
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("shape", [(0, 2, 5, 5), (2, 2, 5, 5)])
def test_no_elements(shape):
    x, w = leaf(np.zeros(shape)), leaf(normal(0 if shape[0] else 3, 2, 3, 3))
    y = F.conv2d(x, w)
    assert y.shape == (shape[0], w.shape[0], 3, 3)
    y.sum().backward()
    assert not x.grad.data.any()
    assert w.grad.shape == w.shape
    assert not w.grad.data.any()


# --- pools ---------------------------------------------------------------------------


@pytest.mark.usefixtures("_at_level")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(40))
def test_pools_of_random_measures_are_torchs(seed, dtype):
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(1, 4))
    kernel = tuple(int(n) for n in rng.integers(1, 4, axes))
    stride = tuple(int(n) for n in rng.integers(1, 4, axes))
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    lengths = tuple(int(n) for n in rng.integers(7, 12 if axes < 3 else 9, axes))
    ceil_mode, counted = bool(rng.integers(2)), bool(rng.integers(2))
    dilation = tuple(int(n) for n in rng.integers(1, 3, axes))
    x = normal(2, 3, *lengths).astype(dtype)
    calls = {
        f"max_pool{axes}d": (kernel, stride, padding, dilation, ceil_mode),
        f"avg_pool{axes}d": (kernel, stride, padding, ceil_mode, counted),
        f"adaptive_avg_pool{axes}d": (tuple(int(n) for n in rng.integers(1, 7, axes)),),
    }
    for name, arguments in calls.items():
        a, t = leaf(x), torch_leaf(x)
        result = getattr(F, name)(a, *arguments)
        assert_same(result, torch_functional(name)(t, *arguments), [a], [t], eps=20)
        with instnorm.no_grad():  # without winners
            np.testing.assert_array_equal(getattr(F, name)(a, *arguments).data, result.data)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_gradients_of_pools(name, layout):
    x = normal(2, 2, 5, 4)
    x = leaf(channels_last(x) if layout == "channels last" else x)
    for options in ((2,), (3, 2, 1), (3, 1)):
        assert gradcheck(lambda a, o=options: getattr(F, name)(a, *o), [x])
        assert gradgradcheck(lambda a, o=options: getattr(F, name)(a, *o), [x])
    assert gradcheck(lambda a: F.adaptive_avg_pool2d(a, (3, 2)), [x])
    assert gradgradcheck(lambda a: F.adaptive_avg_pool2d(a, (3, 2)), [x])
    assert memory_order(getattr(F, name)(x, 2).data) == memory_order(x.data)


def test_indices_of_the_largest_are_torchs():
    x = normal(2, 3, 7, 6)
    x[0, 0] = 0  # the first of equal ones
    _, ours = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    _, theirs = torch_functional("max_pool2d")(torch_leaf(x), 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(ours.data, theirs.numpy())
    assert ours.dtype == np.int64
