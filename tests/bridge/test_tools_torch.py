"""Converted models and what else is done to them: tracing, quantization, views, checkpoints."""

import copy
import functools

import pytest
from helpers.beside_torch import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from instnorm.bridge import torch as bridge
from instnorm.bridge.torch import convert, converted, revert

pytestmark = pytest.mark.torch

FORMS = {
    "plain": {},
    "fused": {"fuse_activation": True},
    "in place": {"fuse_activation": True, "inplace": True},
}
forms = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.InstanceNorm2d(8, affine=True)
        self.act = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x):
        out = self.norm(self.conv(x))
        out += x
        return self.act(out)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.InstanceNorm2d(8, affine=True),
        nn.LeakyReLU(),
        Block(),
        nn.Conv2d(8, 4, 3),
    )


def image():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def passes(model, *inputs):
    """Outputs and gradients, from a cotangent that is not constant."""
    model.zero_grad()
    torch.manual_seed(1)
    found = model(*inputs)
    found = [y for y in (found if isinstance(found, tuple) else (found,)) if y is not None]
    sum((y * torch.rand_like(y)).sum() for y in found).backward()
    return [*(y.detach() for y in found), *(p.grad for p in model.parameters())]


def assert_near(found, expected, error=1e-5):
    """Together, as gradients of biases before norms are 0 but for rounding."""
    found, expected = (
        torch.cat([t.double().flatten() for t in tensors if t is not None])
        for tensors in (found, expected)
    )
    assert (found - expected).norm() < error * expected.norm()


# --- torch.fx ------------------------------------------------------------------------------


@forms
@pytest.mark.parametrize("make", [network, Block])
def test_symbolic_trace(make, options):
    model = convert(make(), **options)
    x = image() if make is network else torch.rand(2, 8, 5, 6)
    graph = fx.symbolic_trace(model)
    called = {node.target for node in graph.graph.nodes if node.op == "call_module"}
    assert called >= set(converted(model))
    assert converted(graph) == converted(model)
    assert_near(passes(graph, x), passes(revert(copy.deepcopy(model)), x))
    # An activation that a norm applies stays in the trace, for when it must not.
    graph.get_submodule(converted(graph)[0]).register_forward_hook(lambda *_: None)
    assert_near([graph(x)], [revert(model)(x)])


def test_calls_of_the_function_in_a_trace():
    class Own(nn.Module):
        def forward(self, x):
            return bridge.instance_norm(
                x, None, None, torch.ones(3), residual=x + 1, activation="relu"
            )

    graph, x = fx.symbolic_trace(Own()), torch.rand(2, 3, 4, 5)
    assert bridge.instance_norm in [node.target for node in graph.graph.nodes]
    assert torch.equal(graph(x), Own()(x))


class PathTracer(fx.Tracer):
    """Names each node by the module that it comes from, as torchvision's feature extractors do."""

    def __init__(self):
        super().__init__()
        self.path, self.paths = "", {}

    def call_module(self, m, forward, args, kwargs):
        before, self.path = self.path, self.path_of_module(m)
        try:
            if self.is_leaf_module(m, self.path):
                return self.create_proxy("call_module", self.path, args, kwargs)
            return forward(*args, **kwargs)
        finally:
            self.path = before

    def create_proxy(self, kind, *args, **kwargs):
        proxy = super().create_proxy(kind, *args, **kwargs)
        self.paths[proxy.node] = self.path
        return proxy


@forms
def test_nodes_of_norms_are_named_after_them(options):
    model = convert(network(), **options)
    tracer = PathTracer()
    tracer.trace(model)
    called = [path for node, path in tracer.paths.items() if node.op == "call_module"]
    assert [path for path in called if path in converted(model)] == ["1", "3.norm"]


# --- quantization --------------------------------------------------------------------------

quietly = pytest.mark.filterwarnings(
    "ignore:.*torch.ao.quantization is deprecated:DeprecationWarning",
    "ignore:.*reduce_range:UserWarning",
    "ignore:torch.quantize_per_tensor:UserWarning",
)


@pytest.fixture
def engine():
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    yield "fbgemm"
    torch.backends.quantized.engine = before


@quietly
@forms
@pytest.mark.parametrize("training", [False, True])
def test_quantize_fx_leaves_norms_to_the_kernels(training, options, engine):
    from torch.ao import quantization
    from torch.ao.quantization import quantize_fx

    def quantized(model):
        model.train(training)
        if training:
            mapping = quantization.get_default_qat_qconfig_mapping(engine)
            prepared = quantize_fx.prepare_qat_fx(model, mapping, (x,))
            passes(prepared, x)
        else:
            mapping = quantization.get_default_qconfig_mapping(engine)
            prepared = quantize_fx.prepare_fx(model, mapping, (x,))
            prepared(x)
        return quantize_fx.convert_fx(prepared.eval())

    x = image()
    exact, theirs = network()(x), quantized(network())(x)
    model = quantized(convert(network(), **options))
    assert converted(model) == ["1", "3.norm"]
    assert isinstance(model.get_submodule("0"), torch.ao.nn.quantized.Conv2d)
    assert 0 < (model(x) - exact).norm() < 1.1 * (theirs - exact).norm()


@quietly
@forms
def test_eager_quantization_wants_a_reverted_model(options, engine):
    from torch.ao import quantization

    def quantized(model):
        whole = nn.Sequential(quantization.QuantStub(), model, quantization.DeQuantStub()).eval()
        whole.qconfig = quantization.get_default_qconfig(engine)
        quantization.prepare(whole, inplace=True)
        whole(image())
        return quantization.convert(whole)

    model = convert(network()[:3], **options)
    with pytest.raises(TypeError, match=r"quint8, expected a float tensor: .* revert\(model\)"):
        quantized(model)(image())
    assert_near([quantized(revert(model))(image())], [network()[:3](image())], 0.05)


# --- what cannot be converted any more, or given back --------------------------------------


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_norms_that_are_parametrized_already_are_named():
    model, x = network(), image()
    parametrize.register_parametrization(model[3].norm, "weight", Doubled())
    expected = model(x)
    with pytest.warns(UserWarning, match=r"converted any more: '3.norm' \(parametrized\)"):
        convert(model)
    assert converted(model) == ["1"]
    assert_near([model(x)], [expected])
    parametrize.register_parametrization(model[1], "weight", Doubled())
    assert converted(model) == ["1"]
    with pytest.warns(UserWarning, match=r"stay converted: '1' \(parametrized\)"):
        revert(model)
    parametrize.remove_parametrizations(model[1], "weight")
    parametrize.remove_parametrizations(model[3].norm, "weight")
    assert type(revert(model)[1]) is type(model[3].norm) is nn.InstanceNorm2d


@pytest.mark.slow  # for the import
def test_norms_that_are_sharded_already_are_named():
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = network()
        mesh = dist.init_device_mesh("cpu", (1,))
        fully_shard(model[1], mesh=mesh), fully_shard(model[3], mesh=mesh)
        with pytest.warns(UserWarning, match=r"any more: '1' \(sharded by fully_shard\); exp"):
            convert(model)
        assert converted(model) == ["3.norm"]
    finally:
        dist.destroy_process_group()


# --- the layout of outputs -----------------------------------------------------------------


class Flat(nn.Module):
    """A view of what a norm returns, which takes contiguous memory."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.LazyInstanceNorm2d(affine=True)
        self.act = nn.LeakyReLU()

    def forward(self, x):
        return self.act(self.norm(self.conv(x))).view(len(x), -1)


@forms
@pytest.mark.parametrize("wrapped", [False, True])
def test_contiguous_outputs(wrapped, options):
    model, x = Flat(), image()
    model(x)
    expected = passes(model, x)
    last = {**options, "memory_format": torch.channels_last}
    convert(model, **last)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        model(x)
    convert(model, output_memory_format=torch.contiguous_format)
    assert_near(passes(model, x), expected)
    function = torch.compile(model, backend="aot_eager", fullgraph=True) if wrapped else model
    assert_near(passes(copy.deepcopy(model) if not wrapped else function, x), expected)
    convert(model)  # nothing said, nothing changed
    model(x)
    convert(model, output_memory_format=torch.preserve_format)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        model(x)
    convert(model, output_memory_format=torch.contiguous_format)
    revert(model)
    assert_near(passes(model, x), expected)
    assert not any("instnorm" in name for m in model.modules() for name in m.__dict__)


def test_an_output_format_that_there_is_not():
    with pytest.raises(ValueError, match=r"output_memory_format is torch.channels_last, expected"):
        convert(network(), output_memory_format=torch.channels_last)


def vae():
    from monai.networks.nets import SegResNetVAE

    norm = ("INSTANCE", {"affine": True})
    blocks = {"blocks_down": (1, 1), "blocks_up": (1,)}
    return SegResNetVAE((16, 16, 16), norm=norm, vae_estimate_std=True, **blocks)


def autoencoder():
    from monai.networks.nets import VarAutoEncoder

    return VarAutoEncoder(3, (1, 16, 16, 16), 1, 8, (4, 8), (2, 2), norm="INSTANCE")


def spade():
    from monai.networks.nets import SPADENet

    return SPADENet(2, 1, 1, 3, [16, 16], [8, 16], z_dim=8)


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (vae, [(2, 1, 16, 16, 16)]),
        (autoencoder, [(2, 1, 16, 16, 16)]),
        (spade, [(2, 3, 16, 16), (2, 1, 16, 16)]),
    ],
)
@forms
def test_networks_of_monai_that_view_the_output_of_a_norm(make, shapes, options):
    torch.manual_seed(0)
    model, inputs = make(), [torch.rand(shape) for shape in shapes]
    last = torch.channels_last_3d if len(shapes[0]) == 5 else torch.channels_last
    expected = passes(model, *inputs)
    convert(model, memory_format=last, output_memory_format=torch.contiguous_format, **options)
    inputs[0] = inputs[0].to(memory_format=last)
    assert_near(passes(model, *inputs), expected, 1e-4)
    convert(model, output_memory_format=torch.preserve_format)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        passes(model, *inputs)


# --- checkpoints and dropout beside norms in place -----------------------------------------


@pytest.mark.parametrize("use_reentrant", [False, True])
@forms
def test_checkpointing(options, use_reentrant):
    model, x = network(), image().requires_grad_()
    expected = passes(copy.deepcopy(model), x)
    convert(model, **options)
    model.forward = functools.partial(checkpoint, model.forward, use_reentrant=use_reentrant)
    assert_near(passes(model, x), expected)


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("in_place_dropout", [False, True])
@forms
def test_dropout(options, in_place_dropout, p):
    dropout = nn.Dropout(p, inplace=in_place_dropout)
    model, x = nn.Sequential(*network()[:2], dropout, nn.LeakyReLU(), dropout, Block()), image()
    expected = passes(model, x)
    convert(model, **options)
    assert_near(passes(model, x), expected)
    assert_near([model.eval()(x)], [revert(copy.deepcopy(model))(x)])
