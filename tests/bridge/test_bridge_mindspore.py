"""The kernels inside the real MindSpore: `make test-mindspore` runs this where it is installed.

MindSpore has no instance norm on a CPU: results, gradients and training runs are compared
with a composition of its operators, and with NumPy in float64.
"""

import copy
import doctest
import inspect
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, about NumPy and about accelerators
    mindspore = pytest.importorskip("mindspore")
    from helpers import ROOT
    from helpers.composition import (
        RANKS,
        SHAPES,
        C,
        Composed,
        composed,
        composed_results,
        exact,
        losses_of,
    )
    from helpers.tensors import normal

    # Where `amp` rewrites a class of this module, it looks for imports.
    from mindspore import nn

    from instnorm.bridge import mindspore as bridge
    from instnorm.bridge.mindspore import modules, operators, replacement


DTYPES = {
    "float16": mindspore.float16,
    "bfloat16": mindspore.bfloat16,
    "float32": mindspore.float32,
    "float64": mindspore.float64,
}

in_every_rank = pytest.mark.parametrize("rank", RANKS)
in_both_modes = pytest.mark.parametrize("compiled", [False, True], ids=["PyNative", "graph"])
pytestmark = [pytest.mark.mindspore, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Where compiling fails, MindSpore writes files."""
    monkeypatch.chdir(tmp_path)


def classes(rank):
    return getattr(bridge, f"InstanceNorm{rank}d"), getattr(nn, f"InstanceNorm{rank}d")


def asnumpy(tensor):
    return tensor.astype(mindspore.float64).asnumpy()


def loss_of(layer, g):
    def loss(x):
        y = layer(x)
        # In float64: MindSpore has no sum of bfloat16.
        return (y.astype(mindspore.float64) * g.astype(mindspore.float64)).sum(), y

    return loss


def differentiate(layer, x, g, *, compiled=False):
    """Return the layer's result and the gradients for input, gamma and beta."""
    weights = [layer.gamma, layer.beta]
    function = mindspore.value_and_grad(loss_of(layer, g), 0, weights, has_aux=True)
    function = mindspore.jit(function) if compiled else function
    (_, y), (dx, (dgamma, dbeta)) = function(x)
    return y, dx, dgamma, dbeta


# --- constructors and parameters ----------------------------------------------------


@in_every_rank
def test_it_is_mindspores_layer(rank):
    kind, theirs = classes(rank)
    one, other = (inspect.signature(cls.__init__).parameters.values() for cls in (kind, theirs))
    assert [(p.name, p.kind, p.default) for p in one] == [
        (p.name, p.kind, p.default) for p in other
    ]
    one, other = (cls(C, 1e-3, 0.5, False, "zeros", 2.0) for cls in (kind, theirs))
    assert isinstance(one, theirs)
    assert repr(one) == repr(other)
    assert list(one.parameters_dict()) == list(other.parameters_dict())
    for name, value in other.parameters_dict().items():
        np.testing.assert_array_equal(one.parameters_dict()[name].asnumpy(), value.asnumpy())
        assert one.parameters_dict()[name].requires_grad == value.requires_grad


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_features": 3.0},
        {"num_features": 0},
        {"eps": 1},
        {"eps": 2.0},
        {"momentum": 2.0},
        {"affine": 1},
        {"gamma_init": []},
        {"beta_init": "twos"},
        {"nonsense": 1},
    ],
    ids=repr,
)
def test_constructors_refuse_what_mindspores_refuse(arguments):
    errors = []
    for kind in classes(2):
        with pytest.raises((TypeError, ValueError)) as caught:
            kind(**{"num_features": C, **arguments})
        errors.append(caught.type)
    assert errors[0] is errors[1]


def test_names_in_a_network_and_a_checkpoint(tmp_path):
    def network(kind):
        class Network(nn.Cell):
            def __init__(self):
                super().__init__()
                self.norm = kind(C)
                self.body = nn.SequentialCell(kind(C, affine=False))

        return Network()

    one, other = (network(kind) for kind in classes(2))
    names = list(one.parameters_dict())
    assert names == list(other.parameters_dict())
    assert names[2:4] == ["norm.gamma", "norm.beta"]
    for seed, parameter in enumerate(other.get_parameters()):
        parameter.set_data(mindspore.Tensor(normal(C, seed=seed), mindspore.float32))
    path = str(tmp_path / "net.ckpt")
    mindspore.save_checkpoint(other, path)
    loaded = mindspore.load_checkpoint(path)
    assert mindspore.load_param_into_net(one, loaded, strict_load=True) == ([], [])
    for name, value in other.parameters_dict().items():
        np.testing.assert_array_equal(one.parameters_dict()[name].asnumpy(), value.asnumpy())


# --- results and gradients ----------------------------------------------------------


@in_both_modes
@in_every_rank
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_results_and_gradients(rank, eps, compiled):
    kind, _ = classes(rank)
    x, g = 2 + 3 * normal(*SHAPES[rank]), normal(*SHAPES[rank], seed=1)
    layer = kind(C, eps, dtype=mindspore.float64)
    gamma, beta = normal(C, seed=2), normal(C, seed=3)
    layer.gamma.set_data(mindspore.Tensor(gamma))
    layer.beta.set_data(mindspore.Tensor(beta))
    found = differentiate(layer, mindspore.Tensor(x), mindspore.Tensor(g), compiled=compiled)

    expected = exact(x, gamma, beta, eps, g)[:4]
    everything = zip(found, composed_results(x, gamma, beta, eps, g), expected, strict=True)
    for one, theirs, expected in everything:
        assert one.dtype == mindspore.float64
        np.testing.assert_allclose(one.asnumpy(), theirs.asnumpy(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(one.asnumpy(), expected, rtol=0, atol=1e-12)


# As a multiple of the largest value: rounding of the input is not counted, it is exact.
ULP = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-22, "float64": 2.0**-50}


@pytest.mark.parametrize(
    ("name", "parameters", "compiled"),
    [
        *((n, p, c) for n in DTYPES if n != "bfloat16" for p in ("float32", n) for c in (0, 1)),
        # MindSpore makes no parameters of bfloat16 under NumPy 2.
        ("bfloat16", "float32", 0),
    ],
)
def test_dtypes(name, parameters, compiled):
    dtype, parameter_dtype = DTYPES[name], DTYPES[parameters]
    layer = bridge.InstanceNorm2d(C, dtype=parameter_dtype)
    x, g = (mindspore.Tensor(normal(2, C, 8, 8, seed=seed)).astype(dtype) for seed in (0, 1))
    found = differentiate(layer, x, g, compiled=compiled)
    expected = exact(asnumpy(x), np.ones(C), np.zeros(C), 1e-5, asnumpy(g))[:4]
    names = (name, name, parameters, parameters)
    for one, value, expected_name in zip(found, expected, names, strict=True):
        assert one.dtype == DTYPES[expected_name]
        atol = ULP[expected_name] * np.abs(value).max()
        np.testing.assert_allclose(asnumpy(one), value, rtol=0, atol=atol)


@in_both_modes
def test_a_float32_mean_far_from_zero(compiled):
    """Where a composition of float32 operators has lost every digit."""
    x = (1e5 + normal(2, C, 32, 32)).astype(np.float32)
    layer = bridge.InstanceNorm2d(C)
    function = mindspore.jit(layer) if compiled else layer
    expected, *_ = exact(x.astype(np.float64), np.ones(C), np.zeros(C), 1e-5, np.zeros_like(x))
    found = function(mindspore.Tensor(x)).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2**-22 * np.abs(expected).max())


def test_training_and_evaluation_are_alike_and_nothing_moves():
    layer = bridge.InstanceNorm2d(C)
    x = mindspore.Tensor(normal(2, C, 4, 4).astype(np.float32))
    results = [layer.set_train(mode)(x).asnumpy() for mode in (True, False)]
    np.testing.assert_array_equal(*results)
    assert layer.moving_mean.asnumpy().tolist() == [0] * C
    assert layer.moving_variance.asnumpy().tolist() == [1] * C


def test_other_strides():
    x = mindspore.Tensor(normal(2, 5, 4, C).astype(np.float32))
    view = x.permute(0, 3, 1, 2)
    assert not view.is_contiguous()
    expected, *_ = exact(view.asnumpy(), np.ones(C), np.zeros(C), 1e-5, np.zeros(view.shape))
    found = bridge.InstanceNorm2d(C)(view).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_results_share_memory_and_outlive_the_call():
    x = np.ascontiguousarray(normal(2, C, 64, 64), np.float32)
    tensor = mindspore.from_numpy(x)
    assert operators.ndarray_of(tensor).ctypes.data == x.ctypes.data
    assert operators.tensor_of(x, tensor).asnumpy().ctypes.data == x.ctypes.data
    layer = bridge.InstanceNorm2d(C)
    kept = layer(tensor)
    before = kept.asnumpy().copy()
    for _ in range(3):
        layer(tensor * 2 + 1)
    np.testing.assert_array_equal(kept.asnumpy(), before)


@in_both_modes
def test_frozen_parameters_have_no_gradient(compiled):
    layer = bridge.InstanceNorm2d(C, affine=False)
    assert layer.trainable_params() == []
    x, g = (mindspore.Tensor(normal(2, C, 4, 4, seed=seed)) for seed in (0, 1))

    def loss(x):
        return (layer(x) * g).sum()

    gradient = mindspore.grad(loss)
    gradient = mindspore.jit(gradient) if compiled else gradient
    _, expected, *_ = exact(x.asnumpy(), np.ones(C), np.zeros(C), 1e-5, g.asnumpy())
    np.testing.assert_allclose(gradient(x).asnumpy(), expected, rtol=0, atol=1e-12)


# --- second and third derivatives -----------------------------------------------------


def first_derivatives(norm, cotangents):
    """A function whose gradient is made of second derivatives."""
    g, *rest = cotangents

    def total(*arguments):
        def loss(*arguments):
            return (norm(*arguments) ** 2 * g).sum()

        gradients = mindspore.grad(loss, (0, 1, 2))(*arguments)
        return sum((d * c).sum() for d, c in zip(gradients, rest, strict=True))

    return total


def tensors(dtype=mindspore.float64):
    shapes = [(2, C, 4, 3), (C,), (C,)]
    arguments = [mindspore.Tensor(normal(*s, seed=i), dtype) for i, s in enumerate(shapes)]
    shapes = [shapes[0], *shapes]
    cotangents = [mindspore.Tensor(normal(*s, seed=9 + i), dtype) for i, s in enumerate(shapes)]
    return arguments, cotangents


operator = operators.InstanceNorm(operators.Options(1e-3))
no_slope = mindspore.Tensor([0.0])


def ours(x, gamma, beta):
    return operator(x, gamma, beta, no_slope)[0]


def theirs(x, gamma, beta):
    return composed(x, gamma, beta, 1e-3)


def test_second_derivatives():
    arguments, cotangents = tensors()
    found, expected = (
        mindspore.grad(first_derivatives(norm, cotangents), (0, 1, 2))(*arguments)
        for norm in (ours, theirs)
    )
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other.asnumpy()).max() > 0.1
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=0, atol=1e-10)


def test_third_derivatives_are_an_error():
    arguments, cotangents = tensors()
    second = mindspore.grad(first_derivatives(ours, cotangents))

    def total(*arguments):
        return (second(*arguments) * cotangents[0]).sum()

    with pytest.raises(NotImplementedError, match="differentiated twice, not three times"):
        mindspore.grad(total)(*arguments)


def test_second_derivatives_of_a_graph_are_an_error():
    (x, gamma, beta), (g, h, *_) = tensors()

    def loss(x):
        return (ours(x, gamma, beta) ** 2 * g).sum()

    def total(x):
        return (mindspore.grad(loss)(x) * h).sum()

    with pytest.raises(RuntimeError, match="Custom's bprop not defined"):
        mindspore.jit(mindspore.grad(total))(x)


# --- errors -------------------------------------------------------------------------


@in_every_rank
@pytest.mark.parametrize("ndim", [2, 3, 4, 5, 6])
def test_wrong_ranks_are_mindspores_error(rank, ndim):
    if ndim == rank + 2:
        return
    x = mindspore.Tensor(np.ones((C,) * ndim, np.float32))
    for kind in classes(rank):
        with pytest.raises(ValueError, match=f"For 'InstanceNorm{rank}d', the in_shape must have"):
            kind(C)(x)


def test_errors_name_what_does_not_fit():
    layer = bridge.InstanceNorm2d(C)
    with pytest.raises(ValueError, match=r"weight has shape \(3,\), expected \(4,\)"):
        layer(mindspore.Tensor(np.ones((2, C + 1, 4, 4), np.float32)))
    with pytest.raises(TypeError, match="x has dtype int64"):
        layer(mindspore.Tensor(np.ones((2, C, 4, 4), np.int64)))
    with pytest.raises(ValueError, match="expected more than 1 spatial element"):
        layer(mindspore.Tensor(np.ones((2, C, 1, 1), np.float32)))


# --- whole networks -------------------------------------------------------------------


def network(kind):
    mindspore.set_seed(0)
    return nn.SequentialCell(
        nn.Conv2d(1, 8, 3, weight_init="normal"),
        kind(8),
        nn.Tanh(),
        nn.SequentialCell(nn.Conv2d(8, 8, 3, weight_init="normal"), kind(8), nn.Tanh()),
        nn.Flatten(),
        nn.Dense(8 * 64, 2),
    )


OPTIMIZERS = {
    "SGD": lambda parameters: nn.SGD(parameters, 0.02),
    "Momentum": lambda parameters: nn.Momentum(parameters, 0.005, 0.9),
}


@in_both_modes
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_network_trains_as_with_composed_operators(optimizer, compiled):
    one, other = network(bridge.InstanceNorm2d), network(Composed)
    for (_, ours), theirs in zip(one.parameters_and_names(), other.get_parameters(), strict=True):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())
    found = losses_of(one, compiled=compiled, optimizer=optimizer)
    expected = losses_of(other, compiled=compiled, optimizer=optimizer)
    assert found[-1] < found[0] / 3
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert not np.array_equal(one[1].gamma.asnumpy(), np.ones(8))


def test_graph_mode_for_the_whole_process():
    code = """
import mindspore, numpy as np
from instnorm.bridge.mindspore import InstanceNorm2d
mindspore.set_context(mode=mindspore.GRAPH_MODE)
x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
y = InstanceNorm2d(3)(mindspore.Tensor(x)).asnumpy()
expected = (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)
assert np.abs(y - expected).max() < 1e-5
"""
    run("-c", code)


@in_both_modes
def test_convert(compiled):
    net = network(nn.InstanceNorm2d)
    norm, parameters, calls = net[1], net.parameters_dict(), []
    norm.set_train(False)
    norm.register_forward_hook(lambda cell, inputs, output: calls.append(output.shape))
    assert bridge.convert(net) is net
    assert net[1] is norm
    assert type(norm) is type(net[3][1]) is bridge.InstanceNorm2d
    assert not norm.training
    after = net.parameters_dict()
    assert list(after) == list(parameters)
    assert all(after[name] is value for name, value in parameters.items())
    x = mindspore.Tensor(normal(2, 1, 8, 8).astype(np.float32))
    expected = network(Composed)(x).asnumpy()
    found = (mindspore.jit(net) if compiled else net)(x).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    if not compiled:
        assert calls == [(2, 8, 8, 8)]


def test_convert_takes_a_layer_and_leaves_the_rest():
    layer = bridge.convert(nn.InstanceNorm1d(C))
    assert type(bridge.convert(layer)) is bridge.InstanceNorm1d
    assert bridge.converted(layer) == [""]
    assert type(bridge.convert(Composed(C))) is Composed
    assert bridge.converted(Composed(C)) == []
    for function in (bridge.convert, bridge.revert, bridge.converted):
        with pytest.raises(TypeError, match=r"net must be a mindspore\.nn\.Cell, got list"):
            function([layer])


def test_revert():
    def state(net):
        cells = (cell for _, cell in net.cells_and_names())
        return [(type(cell), sorted(cell.__dict__), list(cell._primitives)) for cell in cells]

    net, theirs = network(nn.InstanceNorm2d), network(nn.InstanceNorm2d)
    assert bridge.converted(bridge.convert(net)) == ["1", "3.1"]
    assert bridge.revert(net) is net
    assert (bridge.converted(net), state(net), repr(net)) == ([], state(theirs), repr(theirs))
    assert repr(net[1].instance_bn) == repr(theirs[1].instance_bn)


@in_both_modes
def test_deep_copies(compiled):
    net = bridge.convert(network(nn.InstanceNorm2d))
    copied = copy.deepcopy(net)
    x = mindspore.Tensor(normal(2, 1, 8, 8).astype(np.float32))
    before = net(x).asnumpy()
    copied[1].gamma.set_data(mindspore.Tensor(normal(8).astype(np.float32)))
    found = (mindspore.jit(copied) if compiled else copied)(x).asnumpy()
    assert not np.allclose(found, before)
    np.testing.assert_array_equal(net(x).asnumpy(), before)
    np.testing.assert_allclose(found, copied(x).asnumpy(), rtol=0, atol=1e-6)
    copied[1].recompute(mp_comm_recompute=False)  # which writes to the operators
    assert "recompute_comm_op" in copied[1].instance_bn.attrs
    assert "recompute_comm_op" not in net[1].instance_bn.attrs


# --- graphs of dynamic shapes, and exported ones --------------------------------------


class Loss(nn.Cell):
    """The inner product of a layer's result with `g`, and that result."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def construct(self, x, g):
        y = self.layer(x)
        return (y.astype(mindspore.float64) * g.astype(mindspore.float64)).sum(), y


class Gradients(nn.Cell):
    def __init__(self, layer):
        super().__init__()
        self.loss = Loss(layer)
        self.derive = mindspore.value_and_grad(
            self.loss, 0, [layer.gamma, layer.beta], has_aux=True
        )

    def construct(self, x, g):
        return self.derive(x, g)


@pytest.fixture
def graph_mode():
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    yield
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@in_every_rank
def test_dynamic_shapes(rank, name, graph_mode):
    dtype = DTYPES[name]
    kind, _ = classes(rank)
    layer = kind(C, 1e-3, dtype=mindspore.float64)
    gamma, beta = normal(C, seed=2), normal(C, seed=3)
    layer.gamma.set_data(mindspore.Tensor(gamma))
    layer.beta.set_data(mindspore.Tensor(beta))
    net = Gradients(layer)
    some = mindspore.Tensor(shape=[None, C] + [None] * rank, dtype=dtype)
    net.set_inputs(some, some)
    for shape in (SHAPES[rank], (1, C) + (6,) * rank):
        x, g = (mindspore.Tensor(m + normal(*shape, seed=m), dtype) for m in (5, 0))
        (_, y), (dx, (dgamma, dbeta)) = net(x, g)
        expected = exact(asnumpy(x), gamma, beta, 1e-3, asnumpy(g))[:4]
        for one, value in zip((y, dx, dgamma, dbeta), expected, strict=True):
            # In float64 the expected values are rounded as often as the found ones.
            atol = max(1e-12, ULP[str(one.dtype).lower()] * np.abs(value).max())
            np.testing.assert_allclose(asnumpy(one), value, rtol=0, atol=atol)
        assert (y.dtype, dx.dtype) == (dtype, dtype)


def test_a_dynamic_shape_with_a_mean_far_from_zero(graph_mode):
    x = (1e5 + normal(2, C, 32, 32)).astype(np.float32)
    layer = bridge.InstanceNorm2d(C)
    layer.set_inputs(mindspore.Tensor(shape=None, dtype=mindspore.float32))
    expected, *_ = exact(x.astype(np.float64), np.ones(C), np.zeros(C), 1e-5, np.zeros_like(x))
    found = layer(mindspore.Tensor(x)).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2**-22 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "num_features", "message"),
    [
        ((None, C, None, None), 1, r"x has 3 channels, expected num_features, 1"),
        ((2, C, 1, 1), C, "expected more than 1 spatial element"),
    ],
)
def test_graphs_without_the_kernels_have_their_checks(shape, num_features, message):
    layer = bridge.InstanceNorm2d(num_features)
    x = mindspore.Tensor(shape=list(shape), dtype=mindspore.float32)
    with pytest.raises(ValueError, match=message):
        mindspore.export(layer, x, file_name="net", file_format="MINDIR")


def exported(net, x, **kwargs):
    """Write a network to net.mindir, its input and output to files, and return the two."""
    y = net(x)
    mindspore.export(net, kwargs.pop("input", x), file_name="net", **kwargs)
    np.savez("net.npz", x=x.asnumpy(), y=y.asnumpy())
    return y


@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_an_exported_graph_runs_in_a_process_without_this_package(fuse, dynamic):
    net = bridge.convert(style_net(), fuse_activation=fuse)
    assert bool(bridge.converted(net).fused) == fuse
    x = mindspore.Tensor(normal(2, 3, 8, 8).astype(np.float32))
    some = mindspore.Tensor(shape=[None, 3, None, None], dtype=mindspore.float32)
    exported(net, x, input=some if dynamic else x, file_format="MINDIR")
    code = """
import sys
import mindspore, numpy as np
net = mindspore.nn.GraphCell(mindspore.load("net.mindir"))
arrays = np.load("net.npz")
for n in (1, 2) if {dynamic} else (2,):
    y = net(mindspore.Tensor(arrays["x"][:n])).asnumpy()
    assert np.abs(y - arrays["y"][:n]).max() < 1e-5
assert "instnorm" not in sys.modules
"""
    run("-c", code.format(dynamic=dynamic))


@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
def test_onnx_runtime_runs_an_exported_graph(fuse):
    import onnxruntime

    net = bridge.convert(style_net(), fuse_activation=fuse)
    x = mindspore.Tensor(normal(2, 3, 8, 8).astype(np.float32))
    y = exported(net, x, file_format="ONNX")
    session = onnxruntime.InferenceSession("net.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.asnumpy()})
    np.testing.assert_allclose(found, y.asnumpy(), rtol=0, atol=1e-5)


def test_export_changes_nothing_in_the_process():
    net = bridge.convert(style_net(), fuse_activation=True)
    x = mindspore.Tensor(normal(2, 3, 8, 8).astype(np.float32))
    step = mindspore.jit(net)
    before = step(x).asnumpy()
    y = exported(net, x, file_format="MINDIR").asnumpy()
    # The kernels' bits, in graphs from before and after.
    for each in (before, step(x).asnumpy(), mindspore.jit(net)(x).asnumpy(), net(x).asnumpy()):
        np.testing.assert_array_equal(each, y)


# --- precisions -----------------------------------------------------------------------


def style_net():
    mindspore.set_seed(0)
    return nn.SequentialCell(
        nn.Conv2d(3, 8, 3, weight_init="normal"),
        nn.InstanceNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 3, 3, weight_init="normal"),
        nn.SequentialCell(nn.InstanceNorm2d(3), nn.PReLU()),
    )


class StyleNet(nn.Cell):
    """A network that is no sequence itself."""

    def __init__(self):
        super().__init__()
        self.body = style_net()
        self.norm = nn.InstanceNorm2d(3)

    def construct(self, x):
        return self.norm(self.body(x))


@in_both_modes
@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("amp_first", [False, True], ids=["convert, amp", "amp, convert"])
@pytest.mark.parametrize("level", ["O1", "O2", "O3", "auto"])
@pytest.mark.parametrize("make", [style_net, StyleNet])
def test_mixed_precision(make, level, amp_first, fuse, compiled):
    x = mindspore.Tensor(normal(2, 3, 8, 8).astype(np.float32))
    whole = bridge.convert(make())
    expected = whole(x).asnumpy()
    net = make()
    if amp_first:
        net = mindspore.amp.auto_mixed_precision(net, level)
    bridge.convert(net, fuse_activation=fuse)
    if not amp_first:
        net = mindspore.amp.auto_mixed_precision(net, level)
    assert len(bridge.converted(net)) == len(bridge.converted(whole))
    assert set(net.parameters_dict()) == set(whole.parameters_dict())

    def loss(x):
        y = net(x)
        return (y.astype(mindspore.float32) * x).sum(), y

    step = mindspore.value_and_grad(loss, None, net.trainable_params(), has_aux=True)
    (_, y), gradients = (mindspore.jit(step) if compiled else step)(x)
    difference = np.abs(asnumpy(y) - expected).max()
    assert 0 < difference < 2e-2 * np.abs(expected).max()
    for parameter, gradient in zip(net.trainable_params(), gradients, strict=True):
        assert gradient.dtype == parameter.dtype
        assert np.abs(gradient.asnumpy()).max() > 0


@in_both_modes
@pytest.mark.parametrize("to", [mindspore.float16, mindspore.float32], ids=str)
@pytest.mark.parametrize("dtype", [mindspore.float16, mindspore.float32], ids=str)
def test_to_float(dtype, to, compiled):
    """As MindSpore's layers of its own operators: the result has that dtype."""
    x = mindspore.Tensor(normal(2, C, 4, 4), dtype)
    for layer in (bridge.InstanceNorm2d(C), nn.BatchNorm2d(C)):
        layer.to_float(to)
        assert (mindspore.jit(layer) if compiled else layer)(x).dtype == to


# --- MindSpore's own training loops ------------------------------------------------------


@pytest.mark.parametrize("mode", [mindspore.PYNATIVE_MODE, mindspore.GRAPH_MODE])
def test_model_train(mode, request):
    if mode == mindspore.GRAPH_MODE:
        request.getfixturevalue("graph_mode")
    x = normal(8, 3, 8, 8).astype(np.float32)
    arrays = {"x": x, "y": np.tanh(x.mean(1, keepdims=True) * [[[[3.0]]]]).repeat(3, 1)}
    arrays["y"] = arrays["y"].astype(np.float32)
    losses = []
    for change in (lambda net: bridge.convert(net, fuse_activation=True), composed_in_place):
        net = change(style_net())
        data = mindspore.dataset.NumpySlicesDataset(arrays, shuffle=False).batch(4)
        optimizer = nn.Momentum(net.trainable_params(), 0.05, 0.9)
        model = mindspore.train.Model(
            net, nn.MSELoss(), optimizer, metrics={"loss": mindspore.train.Loss()}
        )
        before = model.eval(data, dataset_sink_mode=False)["loss"]
        model.train(10, data, dataset_sink_mode=False)
        losses.append((before, model.eval(data, dataset_sink_mode=False)["loss"]))
    assert losses[0][1] < 0.8 * losses[0][0]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def composed_in_place(net):
    for _, cell in net.cells_and_names():
        if type(cell) is nn.InstanceNorm2d:
            cell.__class__ = Composed
    return net


# --- processes ----------------------------------------------------------------------


def run(*arguments):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_import_settles_numpy_and_leaves_the_devices_open():
    done = run(
        "-c",
        "import mindspore, instnorm.bridge.mindspore\n"
        "mindspore.set_device('CPU')\n"
        "print(mindspore.ops.mean(mindspore.Tensor([1.0]), (0,), True))",
    )
    assert done.stdout == "[1.]\n"
    assert "Traceback" not in done.stderr


def test_nothing_else_imports_mindspore():
    run("-c", "import sys, instnorm, instnorm.bridge; assert 'mindspore' not in sys.modules")


def test_the_example_trains_in_both_modes():
    lines = run(ROOT / "examples" / "mindspore_bridge.py").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["PyNative", "graph"]
    for line in lines:
        first, _, last = line.split()[-3:]
        assert float(last) < float(first) / 4


def test_doctests():
    found = [doctest.testmod(module) for module in (modules, replacement)]
    assert (sum(r.failed for r in found), sum(r.attempted for r in found)) == (0, 28)
