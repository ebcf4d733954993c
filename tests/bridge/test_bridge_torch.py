"""The bridge to PyTorch: values, gradients and layouts beside PyTorch's own in float64."""

import copy
import functools
import itertools
import pickle
import threading
import warnings

import numpy as np
import pytest
from helpers.beside_torch import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

import instnorm
from instnorm.bridge import torch as bridge
from instnorm.bridge.torch import arrays, operators

pytestmark = pytest.mark.torch

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SHAPES = [(2, 3, 7), (2, 3, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 2, 3, 4), (1, 2, 1, 1, 5)]
LAYERS = {
    3: (nn.InstanceNorm1d, bridge.InstanceNorm1d),
    4: (nn.InstanceNorm2d, bridge.InstanceNorm2d),
    5: (nn.InstanceNorm3d, bridge.InstanceNorm3d),
}
LAYOUTS = ["contiguous", "channels-last", "sliced", "transposed", "expanded"]


def in_layout(x, layout):
    """The same values in another memory layout."""
    last = (0, *range(2, x.dim()), 1)
    if layout == "channels-last":
        memory = x.permute(last).contiguous()
        return memory.permute(0, -1, *range(1, x.dim() - 1))
    if layout == "sliced":
        return x.repeat_interleave(2, -1)[..., ::2]
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded":
        return x[:1].expand(x.shape)
    return x.contiguous()


def random(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5).to(dtype)


def error(actual, expected):
    """Largest error, beside the largest expected element or 1."""
    expected = expected.double()
    scale = expected.abs().max().item() if expected.numel() else 0
    return (actual.double() - expected).abs().max().item() / max(1, scale)


def relative(actual, expected):
    """Error of many tensors together, beside their norm."""
    actual = torch.cat([a.double().flatten() for a in actual])
    expected = torch.cat([e.double().flatten() for e in expected])
    return ((actual - expected).norm() / expected.norm()).item()


def truth(x, weight, bias, grad_output, **options):
    """PyTorch's output and gradients in float64, contiguous."""
    leaves = [
        None if t is None else t.detach().double().contiguous().requires_grad_()
        for t in (x, weight, bias)
    ]
    x, weight, bias = leaves
    y = F.instance_norm(x, weight=weight, bias=bias, **options)
    y.backward(grad_output.double().contiguous())
    return y.detach(), [None if t is None else t.grad for t in leaves]


# --- values, gradients, layouts ------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("parameter_dtype", [None, torch.float32, torch.float64], ids=str)
def test_function(shape, dtype, layout, parameter_dtype, calls):
    x = in_layout(random(shape, dtype), layout)
    g = in_layout(random(shape, dtype, seed=1), "channels-last")
    weight = bias = None
    if parameter_dtype is not None:
        weight, bias = (random(shape[1], parameter_dtype, seed=s) for s in (2, 3))
        weight.requires_grad_(), bias.requires_grad_()
    x.requires_grad_()
    y = bridge.instance_norm(x, weight=weight, bias=bias)
    y.backward(g)

    expected, gradients = truth(x, weight, bias, g)
    assert calls == ["forward", "backward"]
    assert y.stride() == x.grad.stride() == torch.empty_like(x).stride()
    assert y.dtype == dtype
    assert error(y, expected) < 8 * torch.finfo(dtype).eps
    for tensor, gradient in zip((x, weight, bias), gradients, strict=True):
        if tensor is not None:
            assert tensor.grad.dtype == tensor.dtype
            roundoff = max(torch.finfo(d).eps for d in (dtype, tensor.dtype))
            assert error(tensor.grad, gradient) < 8 * roundoff


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 32, 96, 96), (1, 1, 300, 300)], ids=str)
def test_large_outputs_keep_the_layout_and_can_be_changed_in_place(shape, layout, dtype):
    x = in_layout(random(shape, dtype), layout).requires_grad_()
    y = F.relu_(bridge.instance_norm(x))
    y.backward(random(shape, dtype, seed=1))
    assert y.stride() == x.grad.stride() == x.stride()
    assert error(y, F.relu(truth(x, None, None, y)[0])) < 8 * torch.finfo(dtype).eps


def test_channels_last_of_one_channel_stays_what_pytorch_calls_it():
    x = torch.randn(2, 1, 6, 5).to(memory_format=torch.channels_last)
    assert bridge.instance_norm(x).stride() == torch.empty_like(x).stride()
    # A step that a contiguous tensor would not have says nothing about its memory.
    x = torch.randn(2, 6, 5).as_strided((2, 1, 6, 5), (30, 1, 5, 1))
    assert x.is_contiguous()
    assert bridge.instance_norm(x).stride() == (30, 1, 5, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_become_arrays_on_the_same_memory(dtype, layout):
    x = in_layout(torch.zeros(2, 3, 4, 5, dtype=dtype), layout).requires_grad_()
    array = arrays.as_array(x)
    assert array.ctypes.data == x.data_ptr()
    assert array.shape == x.shape
    back = arrays.as_tensor(array)
    assert back.dtype == dtype
    assert back.data_ptr() == x.data_ptr()


def test_bias_alone_gets_a_gradient_in_its_own_dtype():
    x, g = random((2, 3, 8, 8), torch.float16), random((2, 3, 8, 8), torch.float16, seed=1)
    bias = random(3, torch.float64, seed=2).requires_grad_()
    bridge.instance_norm(x, bias=bias).backward(g)
    torch.testing.assert_close(bias.grad, g.double().sum((0, 2, 3)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("wanted", ["x", "weight", "bias"])
def test_only_what_requires_a_gradient_gets_one(wanted):
    tensors = {"x": random((2, 3, 4, 5)), "weight": random(3), "bias": random(3)}
    tensors[wanted].requires_grad_()
    x, weight, bias = tensors.values()
    bridge.instance_norm(x, weight=weight, bias=bias).backward(random(x.shape, seed=1))
    assert [name for name, t in tensors.items() if t.grad is not None] == [wanted]


def test_an_input_changed_in_place_before_backward_is_an_error():
    x = random((2, 3, 4, 5)).requires_grad_() * 1
    y = bridge.instance_norm(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(torch.ones_like(y))


def test_an_empty_batch():
    layer = bridge.InstanceNorm2d(3, affine=True, track_running_stats=True)
    before = copy.deepcopy(layer.state_dict())
    x = torch.empty(0, 3, 4, 5, requires_grad=True)
    y = layer(x)
    y.backward(torch.empty_like(y))
    assert y.shape == x.grad.shape == x.shape
    assert not layer.weight.grad.any()
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


# --- models: the gradients that PyTorch gets wrong channels-last at batch 1 ----------


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.InstanceNorm2d(channels, affine=True),
            nn.Softplus(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x):
        return x + self.branch(x)


def plain_model():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.Conv2d(8, 4, 3))


def residual_model():
    return nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8), Residual(8), nn.Conv2d(8, 4, 3))


def gradients(model, x, g):
    x = x.detach().requires_grad_()
    model.zero_grad()
    model(x).backward(g)
    return [x.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("make", [plain_model, residual_model])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "last"]
)
def test_gradients_of_models(make, batch, memory_format):
    torch.manual_seed(0)
    model = make()
    x, g = torch.randn(batch, 3, 24, 24), torch.randn(batch, 4, 20, 20)
    expected = gradients(copy.deepcopy(model).double(), x.double(), g.double())
    bridge.convert(model, memory_format=memory_format)
    actual = gradients(model, x.to(memory_format=memory_format), g.to(memory_format=memory_format))
    assert relative(actual, expected) < 1e-5


# --- second and higher derivatives ---------------------------------------------------


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("use_input_stats", [True, False])
def test_derivatives_of_any_order(layout, use_input_stats):
    x, weight, bias = random((2, 3, 2, 3)), random(3, seed=1), random(3, seed=2)
    inputs = [t.requires_grad_() for t in (in_layout(x, layout), weight, bias)]
    mean, var = random(3, seed=3), random(3, seed=4).square() + 0.1

    def function(x, weight, bias):
        stats = (None, None) if use_input_stats else (mean, var)
        return bridge.instance_norm(x, *stats, weight, bias, use_input_stats)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)

    def slope(x, weight):
        y = function(x, weight, bias)
        return torch.autograd.grad((y**3).sum(), (x, weight), create_graph=True)

    assert torch.autograd.gradgradcheck(slope, inputs[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradient_penalty(dtype):
    """A second derivative in less than double precision, far from zero mean."""

    def penalty(function, x):
        x = x.detach().requires_grad_()
        y = function(x)
        (slope,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        return torch.autograd.grad((slope.square().sum() - 1) ** 2, x)[0]

    x = (random((2, 3, 8, 8)) + 10).to(dtype)
    expected = penalty(F.instance_norm, x.double())
    # The second derivative is a function of rounded intermediate tensors.
    assert relative([penalty(bridge.instance_norm, x)], [expected]) < 50 * torch.finfo(dtype).eps


# --- layers: running statistics, modes -----------------------------------------------


@pytest.mark.parametrize("ndim", [3, 4, 5])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_layers_follow_pytorchs(ndim, affine, momentum):
    theirs_class, ours_class = LAYERS[ndim]
    options = {"affine": affine, "track_running_stats": True, "momentum": momentum}
    theirs, ours = (c(3, dtype=torch.float64, **options) for c in (theirs_class, ours_class))
    assert isinstance(ours, theirs_class)
    assert repr(ours) == repr(theirs)
    if affine:
        nn.init.normal_(theirs.weight), nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    for seed in range(3):
        x = random((2, 3, 4, 5, 6)[:ndim], seed=seed)
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours(x[0]), theirs(x[0]))
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, rtol=1e-12, atol=1e-14)
    before = copy.deepcopy(ours.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert all(torch.equal(before[k], v) for k, v in ours.state_dict().items())


def test_running_statistics_of_a_constant_channel_without_eps():
    layer = bridge.InstanceNorm2d(2, eps=0, momentum=1, track_running_stats=True)
    layer(torch.full((3, 2, 4, 4), 7.0))
    assert layer.running_mean.tolist() == [7, 7]
    assert layer.running_var.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", [1, 2])
def test_running_statistics_of_any_dtype_and_stride(dtype, step):
    x = random((2, 3, 4, 5), torch.float32)
    mean, var = (
        random(6, seed=1).to(dtype)[::step][:3],
        random(6, seed=2).exp().to(dtype)[::step][:3],
    )
    expected = [mean.double().clone(), var.double().clone()]
    versions = mean._version, var._version
    bridge.instance_norm(x, mean, var, momentum=0.3)
    F.instance_norm(x.double(), *expected, momentum=0.3)
    assert error(mean, expected[0]) < 8 * torch.finfo(dtype).eps
    assert error(var, expected[1]) < 8 * torch.finfo(dtype).eps
    # So that autograd notices where something else had saved them.
    assert mean._version > versions[0]
    assert var._version > versions[1]


def test_running_statistics_in_inference_mode():
    with torch.inference_mode():
        layers = [c(3, track_running_stats=True) for c in LAYERS[4]]
        for layer in layers:
            layer(random((2, 3, 4, 5), torch.float32))
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(*(layer.get_buffer(name) for layer in layers))


def test_parameters_that_are_in_no_table():
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    theirs, ours = (c(3, affine=True) for c in LAYERS[4])
    for layer in (theirs, ours):
        parametrize.register_parametrization(layer, "weight", Doubled())
        prune.random_unstructured(layer, "bias", 1)
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).backward(torch.randn_like(x))
    assert ours.parametrizations.weight.original.grad is not None


def test_nothing_is_updated_by_a_call_that_fails():
    layer = bridge.InstanceNorm2d(3, eps=-1, track_running_stats=True)
    with pytest.raises(ValueError, match="eps must be finite and at least 0"):
        layer(torch.randn(2, 3, 4, 5))
    assert not layer.running_mean.any()


def test_no_grad_and_inference_mode(calls):
    layer, x = bridge.InstanceNorm2d(3, affine=True), torch.randn(2, 3, 4, 5)
    with torch.no_grad():
        assert not layer(x).requires_grad
    with torch.inference_mode():
        assert layer(x).is_inference()
    assert not layer.requires_grad_(False)(x).requires_grad
    assert calls == ["forward"] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype):
    conv = nn.Conv2d(3, 8, 3)
    theirs, x = nn.Sequential(conv, nn.InstanceNorm2d(8, affine=True)), torch.randn(2, 3, 9, 9)
    ours = bridge.convert(copy.deepcopy(theirs))
    with torch.autocast("cpu", dtype=dtype):
        expected, actual = theirs(x), ours(x)
    assert actual.dtype == expected.dtype == dtype
    torch.testing.assert_close(actual, expected)
    actual.backward(torch.randn_like(actual))
    assert ours[1].weight.grad.dtype == torch.float32


def test_checkpointing():
    x, g = torch.randn(2, 3, 24, 24), torch.randn(2, 4, 20, 20)
    model = bridge.convert(residual_model())
    expected = gradients(model, x, g)
    checkpointed = functools.partial(torch.utils.checkpoint.checkpoint, model, use_reentrant=False)
    x = x.requires_grad_()
    model.zero_grad()
    checkpointed(x).backward(g)
    actual = [x.grad, *(p.grad for p in model.parameters())]
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


# --- threads -------------------------------------------------------------------------


def test_the_thread_count_is_that_of_pytorch(restore_threads):
    before = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            bridge.instance_norm(torch.randn(2, 3, 4, 5))
            assert instnorm.get_num_threads() == n
    finally:
        torch.set_num_threads(before)


def test_several_threads_at_once():
    model = bridge.convert(residual_model())
    x, g = torch.randn(2, 3, 24, 24), torch.randn(2, 4, 20, 20)
    models = [copy.deepcopy(model) for _ in range(4)]
    expected = gradients(model, x, g)
    found = [None] * len(models)

    def work(n):
        for _ in range(5):
            found[n] = gradients(models[n], x, g)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for actual in found:
        assert relative(actual, expected) < 1e-6


@pytest.mark.parametrize("weight_dtype", [None, torch.float16])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_bias_has_gradients_of_its_own_precision(weight_dtype, compiled):
    x, g = random((2, 3, 40), torch.float32), random((2, 3, 40), torch.float32, seed=1)
    weight = None if weight_dtype is None else random(3, weight_dtype).requires_grad_()
    bias = random(3, torch.float64).requires_grad_()

    def run(x, weight, bias):
        return bridge.instance_norm(x, weight=weight, bias=bias)

    if compiled:
        torch.compiler.reset()
        run = torch.compile(run, backend="aot_eager", fullgraph=True)
    (grad,) = torch.autograd.grad(run(x, weight, bias), bias, g)
    assert grad.dtype == torch.float64
    torch.testing.assert_close(grad, g.double().sum((0, 2)), rtol=1e-6, atol=0)


def test_a_bias_alone_can_be_differentiated_twice():
    x, g = (random((2, 3, 5), seed=seed).requires_grad_() for seed in (0, 1))
    bias = random(3).requires_grad_()
    run = functools.partial(bridge.instance_norm, weight=None)
    (grad,) = torch.autograd.grad(run(x, bias=bias), bias, g, create_graph=True)
    cotangent = random(3, seed=2)
    (second,) = torch.autograd.grad(grad, g, cotangent)
    torch.testing.assert_close(second, cotangent.reshape(1, 3, 1).expand(2, 3, 5))


# --- torch.compile, export, tracing --------------------------------------------------


class Recorded:
    """A backend of torch.compile that runs the graph as it is and keeps its operators."""

    def __init__(self):
        self.targets = []

    def __call__(self, graph_module, inputs):
        self.targets += [node.target for node in graph_module.graph.nodes]
        return graph_module


@pytest.mark.parametrize(
    ("backend", "track", "affine"),
    [
        *itertools.product(["aot_eager"], [False, True], [False, True]),
        ("inductor", True, True),
        # C++ compilers take their time.
        pytest.param("inductor", False, False, marks=pytest.mark.slow),
        pytest.param("inductor", False, True, marks=pytest.mark.slow),
        pytest.param("inductor", True, False, marks=pytest.mark.slow),
    ],
)
def test_compile(backend, track, affine):
    torch.compiler.reset()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.InstanceNorm2d(8, affine=affine, track_running_stats=track),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 4, 3),
    )
    x = torch.randn(1, 3, 24, 24).to(memory_format=torch.channels_last)
    g = torch.randn(1, 4, 20, 20)
    eager = bridge.convert(model, memory_format=torch.channels_last)
    compiled = copy.deepcopy(eager)
    expected = gradients(eager, x, g)
    with warnings.catch_warnings():
        # Of the compiler's own modules.
        warnings.simplefilter("ignore", DeprecationWarning)
        function = torch.compile(compiled, backend=backend, fullgraph=True)
        function(x).backward(g)
    assert relative([p.grad for p in compiled.parameters()], expected[1:]) < 1e-6
    for name, buffer in eager.named_buffers():
        torch.testing.assert_close(compiled.get_buffer(name), buffer)
    eager.eval(), compiled.eval()
    torch.testing.assert_close(function(x), eager(x))


def test_compile_keeps_the_operator_whole():
    torch.compiler.reset()
    backend = Recorded()
    model = bridge.convert(plain_model())
    torch.compile(model, backend=backend, fullgraph=True)(torch.randn(2, 3, 24, 24))
    assert operators.instance_norm._opoverload in backend.targets
    assert F.instance_norm not in backend.targets


@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "sliced"])
@pytest.mark.parametrize("affine", [False, True])
def test_operators_do_what_they_say(layout, affine):
    x = in_layout(random((2, 3, 4, 5), torch.float32), layout).requires_grad_()
    weight = random(3, torch.float32).requires_grad_() if affine else None
    torch.library.opcheck(operators.instance_norm, (x, weight, weight, None, None, 1e-5))
    stats = random((2, 3)).square()
    g = random(x.shape, torch.float32)
    detached = None if weight is None else weight.detach()
    dtype = torch.float64 if affine else None
    torch.library.opcheck(
        operators.instance_norm_backward, (g, x.detach(), detached, stats, stats, True, dtype)
    )
    running = torch.zeros(3), torch.ones(3)
    torch.library.opcheck(operators.update_running, (*running, stats, stats, 0.1, 1e-5, 20))


@pytest.mark.parametrize("strict", [True, False])
def test_export_has_pytorchs_operator(strict):
    model, x = bridge.convert(plain_model()).eval(), torch.randn(2, 3, 9, 9)
    exported = torch.export.export(model, (x,), strict=strict)
    targets = [node.target for node in exported.graph.nodes]
    assert torch.ops.aten.instance_norm.default in targets
    torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of the base class's checks
@pytest.mark.parametrize("how", ["trace", "script"])
@pytest.mark.parametrize("track", [False, True])
def test_torchscript_has_pytorchs_operator(how, track, calls):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, track_running_stats=track))
    bridge.convert(model).eval()
    x = torch.randn(2, 3, 9, 9)
    trace = functools.partial(torch.jit.trace, example_inputs=x, check_trace=False)
    script = trace(model) if how == "trace" else torch.jit.script(model)
    assert "aten::instance_norm" in str(script.inlined_graph)
    actual = script(x)
    assert not calls
    torch.testing.assert_close(actual, model(x))


# --- what the kernels leave to PyTorch -----------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of forward mode
@pytest.mark.parametrize(
    "use",
    [
        lambda f, x: f(x.to("meta")),
        lambda f, x: torch.func.vmap(f)(torch.stack([x, 2 * x])),
        lambda f, x: torch.func.grad(lambda x: (f(x) ** 3).sum())(x),
        lambda f, x: torch.func.jvp(f, (x,), (x.flip(0),)),
    ],
    ids=["meta", "vmap", "grad", "jvp"],
)
def test_what_the_kernels_do_not_take_goes_to_pytorch(use, calls):
    x = random((2, 3, 4, 5))
    actual, expected = use(bridge.instance_norm, x), use(F.instance_norm, x)
    assert not calls
    torch.testing.assert_close(actual, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_forward_mode_goes_to_pytorch(calls):
    from torch.autograd import forward_ad

    x = random((2, 3, 4, 5))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x.flip(0))
        actual = forward_ad.unpack_dual(bridge.instance_norm(dual)).tangent
        expected = forward_ad.unpack_dual(F.instance_norm(dual)).tangent
    assert not calls
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("mode", ["dispatch", "function", "subclass"])
def test_modes_and_subclasses_see_pytorchs_operator(mode, calls):
    seen = []

    class Dispatch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    class Function(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    class Subclass(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs)

    x = torch.randn(2, 3, 4, 5)
    if mode == "subclass":
        assert type(bridge.instance_norm(x.as_subclass(Subclass))) is Subclass
    else:
        with Dispatch() if mode == "dispatch" else Function():
            bridge.instance_norm(x)
    assert any("norm" in str(function) for function in seen)
    assert not calls


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((torch.ones(2, 3, 1, 1),), {}),
        ((torch.ones(2, 3, 4, 4, dtype=torch.int32),), {}),
        ((torch.ones(2, 3, 4, 4, dtype=torch.complex64),), {}),
        ((torch.ones(2, 3, 4, 4),), {"use_input_stats": False}),
        ((torch.ones(2, 3, 4, 4),), {"weight": torch.ones(4)}),
        ((torch.ones(2, 3, 4, 4),), {"running_mean": torch.ones(3)}),
        ((torch.ones(2, 3, 4, 4), torch.ones(3), torch.ones(4)), {}),
        ((torch.ones(3),), {}),
    ],
    ids=[
        "one element",
        "integers",
        "complex",
        "no statistics",
        "weight",
        "one statistic",
        "statistics",
        "rank",
    ],
)
def test_what_pytorch_refuses_is_refused(args, options):
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        F.instance_norm(*args, **options)
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        bridge.instance_norm(*args, **options)


def test_a_layer_refuses_the_wrong_number_of_channels():
    with pytest.raises(ValueError, match="match num_features"):
        bridge.InstanceNorm2d(4, affine=True)(torch.ones(2, 3, 4, 4))
    with pytest.warns(UserWarning, match="does not match num_features"):
        bridge.InstanceNorm2d(4)(torch.ones(2, 3, 4, 4))


# --- convert and revert --------------------------------------------------------------


class Derived(nn.InstanceNorm2d):
    pass


def zoo():
    shared = nn.InstanceNorm1d(4)
    return nn.ModuleDict(
        {
            "one": shared,
            "again": shared,
            "two": nn.Sequential(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
            "three": nn.InstanceNorm3d(4).eval(),
            "lazy": nn.LazyInstanceNorm2d(),
            "derived": Derived(4),
            "batch": nn.BatchNorm2d(4),
            "conv": nn.Conv2d(3, 4, 3),
        }
    )


def test_convert_and_revert():
    model = zoo()
    modules = dict(model.named_modules(remove_duplicate=False))
    classes = {name: type(module) for name, module in modules.items()}
    tensors = [*model.parameters(), *model.buffers()]
    assert bridge.converted(model) == []

    assert bridge.convert(model) is model
    assert bridge.converted(model) == ["one", "two.0", "three", "lazy"]
    after = dict(model.named_modules(remove_duplicate=False))
    assert list(after) == list(modules)
    assert all(after[name] is module for name, module in modules.items())
    assert all(isinstance(module, classes[name]) for name, module in after.items())
    assert model["derived"].__class__ is Derived
    same = zip([*model.parameters(), *model.buffers()], tensors, strict=True)
    assert all(a is b for a, b in same)
    assert model["two"].training
    assert not model["three"].training

    assert bridge.convert(model) is model  # once more changes nothing
    assert bridge.revert(model) is model
    assert bridge.converted(model) == []
    assert {name: type(module) for name, module in modules.items()} == classes


def test_convert_the_root_keeps_its_hooks(calls):
    layer, x, seen = nn.InstanceNorm2d(3), torch.randn(2, 3, 4, 5), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(module))
    assert bridge.converted(bridge.convert(layer)) == [""]
    layer(x)
    assert seen == [layer]
    assert calls == ["forward"]
    bridge.revert(layer)(x)
    assert calls == ["forward"]


@pytest.mark.parametrize("ndim", [3, 4, 5])
def test_lazy_layers_become_ours(ndim):
    lazy = getattr(nn, f"LazyInstanceNorm{ndim - 2}d")(affine=True)
    layer = bridge.convert(lazy)
    assert bridge.converted(layer) == [""]
    layer(torch.randn((2, 3, 4, 5, 6)[:ndim]))
    assert type(layer) is LAYERS[ndim][1]
    assert layer.weight.shape == (3,)


def test_convert_changes_the_memory_format():
    model = bridge.convert(plain_model(), memory_format=torch.channels_last)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    y = model(torch.randn(2, 3, 24, 24))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("function", [bridge.convert, bridge.revert, bridge.converted])
def test_only_modules_can_be_converted(function):
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got type"):
        function(nn.InstanceNorm2d)


def test_copies_and_pickles():
    layer = bridge.InstanceNorm2d(3, affine=True, track_running_stats=True)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is bridge.InstanceNorm2d
        assert (
            other.state_dict().keys()
            == nn.InstanceNorm2d(3, affine=True, track_running_stats=True).state_dict().keys()
        )


def test_training_goes_as_with_pytorchs_layers():
    torch.manual_seed(0)
    theirs = residual_model()
    ours = bridge.convert(copy.deepcopy(theirs), memory_format=torch.channels_last)
    x, target = torch.randn(4, 3, 24, 24), torch.randn(4, 4, 20, 20)

    def losses(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        for _ in range(10):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), target)
            loss.backward()
            optimizer.step()
            yield loss.item()

    expected = list(losses(theirs))
    np.testing.assert_allclose(list(losses(ours)), expected, rtol=1e-4)
    assert expected[-1] < expected[0]
