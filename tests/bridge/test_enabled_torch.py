"""`enabled`: calls of torch.nn.functional.instance_norm that the kernels compute."""

import copy
import threading

import pytest
from helpers.beside_torch import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.functional import instance_norm as imported
from torch.utils.checkpoint import checkpoint

from instnorm.bridge import torch as bridge
from instnorm.bridge.torch import enabled, operators

pytestmark = pytest.mark.torch


class Own(nn.InstanceNorm2d):
    """Of a class of its own, which `convert` leaves alone."""


class Functional(nn.Module):
    """A norm as code that has no layer for it writes it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.weight, self.bias = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        stats = self.mean, self.var
        return F.instance_norm(self.conv(x), *stats, self.weight, self.bias, self.training)


class Inside(Functional):
    """The same, with the block in its own code."""

    def forward(self, x):
        with enabled():
            return super().forward(x)


class Decorated(Functional):
    forward = enabled()(Functional.forward)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def fused():
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.LeakyReLU())
    return bridge.convert(model, fuse_activation=True)


@pytest.mark.parametrize("function", [F.instance_norm, imported, nn.InstanceNorm2d(3), Own(3)])
def test_a_call_goes_to_the_kernels_inside_alone(function, calls):
    x = normal(2, 3, 4, 5)
    expected = function(x)
    with enabled():
        y = function(x)
        assert calls == ["forward"]
        with enabled():
            function(x)
        function(x)
        assert calls == ["forward"] * 3
    torch.testing.assert_close(y, expected)
    assert torch.equal(function(x), expected)
    with pytest.raises(KeyError), enabled():
        raise KeyError
    function(x)
    assert calls == ["forward"] * 3


@pytest.mark.parametrize("make", [lambda: bridge.convert(nn.InstanceNorm2d(3)), fused])
def test_converted_norms_stay_so_inside(make, calls):
    model, x = make(), normal(2, 3, 4, 5).requires_grad_()
    expected = model(x)
    with enabled():
        assert torch.equal(model(x), expected)
    assert calls in (["forward"] * 2, [])  # a fused norm has other entries
    assert type(expected.grad_fn).__name__.endswith("InstanceNormBackward")


def passes(model, x, g):
    model.zero_grad()
    x = x.clone().requires_grad_()
    model(x).backward(g)
    gradients = [x.grad, *(p.grad for p in model.parameters())]
    return [*gradients, *map(torch.clone, model.buffers()), model.eval()(x).detach()]


@pytest.mark.parametrize("cls", [Functional, Inside, Decorated])
def test_gradients_and_running_statistics(cls, calls):
    model = cls().double()
    plain = Functional().double()
    plain.load_state_dict(model.state_dict())
    x, g = normal(2, 3, 8, 8), normal(2, 4, 6, 6, seed=1)
    expected = passes(plain, x, g)
    assert not calls
    with enabled():
        found = passes(model, x, g)
    assert calls == ["forward", "backward", "forward"]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpoint_computes_again_what_is_decorated(use_reentrant, calls):
    x, g = normal(2, 3, 4, 5).requires_grad_(), normal(2, 3, 4, 5, seed=1)
    (expected,) = torch.autograd.grad(F.instance_norm(2 * x), x, g)
    function = enabled()(lambda x: F.instance_norm(2 * x))
    checkpoint(function, x, use_reentrant=use_reentrant).backward(g)
    assert calls == ["forward", "forward", "backward"]
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("cls", [Functional, Inside, Decorated])
def test_compiled_without_a_break(cls):
    torch.compiler.reset()
    targets = []

    def backend(graph_module, inputs):
        targets.extend(node.target for node in graph_module.graph.nodes)
        return graph_module

    model = cls().double()
    x, g = normal(2, 3, 8, 8), normal(2, 4, 6, 6, seed=1)
    with enabled():
        torch.compile(copy.deepcopy(model), backend=backend, fullgraph=True)(x)
        assert operators.instance_norm._opoverload in targets
        expected = passes(copy.deepcopy(model), x, g)
        found = passes(torch.compile(model, backend="aot_eager", fullgraph=True), x, g)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_what_was_compiled_outside_is_compiled_anew_inside(calls):
    torch.compiler.reset()
    model, x = torch.compile(Functional().double(), backend="aot_eager"), normal(2, 3, 8, 8)
    model(x)
    assert not calls
    with enabled():
        model(x)
    assert calls == ["forward"]
    model(x)
    assert calls == ["forward"]


def test_other_threads_are_as_they_were(calls):
    x = normal(2, 3, 4, 5)
    with enabled():
        thread = threading.Thread(target=F.instance_norm, args=[x])
        thread.start()
        thread.join()
        assert not calls
        F.instance_norm(x)
    assert calls == ["forward"]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((torch.ones(2, 3, 1, 1),), ValueError),
        ((torch.ones(2, 3, 4, 4, dtype=torch.int32),), RuntimeError),
        ((torch.ones(2, 3, 4, 4), None, None, torch.ones(4)), (RuntimeError, ValueError)),
    ],
    ids=["one element", "integers", "weight"],
)
def test_errors_are_pytorchs(args, error):
    with pytest.raises(error):
        F.instance_norm(*args)
    with enabled(), pytest.raises(error):
        F.instance_norm(*args)


def test_what_the_kernels_do_not_take_is_pytorchs(calls):
    class Subclass(torch.Tensor):
        pass

    x = normal(2, 3, 4, 5)
    with enabled():
        assert type(F.instance_norm(x.as_subclass(Subclass))) is Subclass
        assert F.instance_norm(x.to("meta")).is_meta
        graph = fx.symbolic_trace(Functional())
    assert F.instance_norm in [node.target for node in graph.graph.nodes]
    assert not calls


def test_other_modes_see_the_call():
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    for first, second in ((Mode, enabled), (enabled, Mode)):
        x, seen = normal(2, 3, 4, 5), []
        with first(), second():
            y = F.instance_norm(x)
        assert F.instance_norm in seen
        torch.testing.assert_close(y, bridge.instance_norm(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_default_device_is_in_nobodys_way(device, dtype, calls):
    x = normal(2, 3, 4, 5).to(dtype).requires_grad_()
    with torch.device(device):
        y = bridge.instance_norm(x)
        y.backward(x.detach())
        with enabled():
            assert torch.equal(F.instance_norm(x), y)
    assert calls == ["forward", "backward", "forward"]
    assert y.device == x.grad.device == x.device
