"""Norms in PyTorch with what follows them: found in a model, computed in one pass, in place."""

import copy
import itertools
import operator
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
from helpers.beside_torch import torch
from torch import nn
from torch.nn import functional as F

from instnorm.bridge import torch as bridge
from instnorm.bridge.torch import arrays, collect_statistics, convert, converted, revert

CPU_LAYOUTS = [torch.contiguous_format, torch.channels_last]


def randomized(model):
    """With parameters that are not what the constructors set them to."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def conv(c=4):
    return nn.Conv2d(c, c, 3, padding=1)


def norm(c=4):
    return nn.InstanceNorm2d(c, affine=True)


class SharedActivation(nn.Module):
    """As MONAI's blocks for nnU-Net: one activation in two places, the second after an addition."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1, self.conv2, self.norm2 = conv(), norm(), conv(), norm()
        self.lrelu = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x):
        out = self.lrelu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += x
        return self.lrelu(out)


class Residual(nn.Module):
    """As torchvision's, with a norm on both ways, and the residual computed later."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1, self.conv2, self.norm2 = conv(), norm(), conv(), norm()
        self.down = nn.Sequential(nn.Conv2d(4, 4, 1), norm())

    def forward(self, x):
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.norm2(self.conv2(out))
        return torch.relu(out + self.down(x))


class Nested(nn.Module):
    """As nnU-Net's: the addition follows a norm that lies in a module of its own."""

    class Part(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.norm = norm()
            self.all = nn.Sequential(conv(), self.norm, *([] if last else [nn.LeakyReLU()]))

        def forward(self, x):
            return self.all(x)

    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = self.Part(False), self.Part(True), nn.LeakyReLU()

    def forward(self, x):
        return self.act(self.second(self.first(x)) + x)


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = norm()

    def forward(self, x):
        return F.relu(self.norm(x)) if x.sum() > 0 else -F.relu(self.norm(x))


class ModeDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = norm()

    def forward(self, x):
        out = self.norm(x)
        return F.relu(out) if self.training else F.relu(out) * 2


class UsedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = norm()

    def forward(self, x):
        out = self.norm(x)
        return F.relu(out) + out


class TailTwice(nn.Sequential):
    def __init__(self):
        tail = nn.Sequential(nn.LeakyReLU(0.2), conv(), norm(), nn.ReLU())
        super().__init__(conv(), norm(), tail, tail)


MODELS = {
    "relu": (lambda: nn.Sequential(conv(), norm(), nn.ReLU(inplace=True)), ["relu"]),
    "leaky": (lambda: nn.Sequential(conv(), norm(), nn.LeakyReLU(0.2)), ["leaky_relu"]),
    "prelu": (lambda: nn.Sequential(conv(), norm(), nn.PReLU()), ["prelu"]),
    "prelus": (lambda: nn.Sequential(conv(), norm(), nn.PReLU(4)), ["prelu"]),
    "dropout": (lambda: nn.Sequential(conv(), norm(), nn.Dropout(0.0), nn.ReLU()), ["relu"]),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(conv(), norm()), nn.Sequential(nn.ReLU(), conv())),
        ["relu"],
    ),
    "silu": (lambda: nn.Sequential(conv(), norm(), nn.SiLU()), []),
    "shared": (SharedActivation, ["leaky_relu", "residual, leaky_relu"]),
    "residual": (Residual, ["relu", "residual, relu"]),
    "in parts": (Nested, ["leaky_relu", "residual, leaky_relu"]),
    "untraceable": (Untraceable, []),
    "by mode": (ModeDependent, []),
    "used twice": (UsedTwice, []),
    "tail twice": (TailTwice, ["relu"]),
}


def passes(model, x, g):
    model.zero_grad()
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = model(x)
    y.backward(g)
    return [y.detach(), x.grad, *(p.grad for p in model.parameters())]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        # The gradient of a bias before a norm is 0 but for rounding.
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("memory_format", CPU_LAYOUTS)
@pytest.mark.parametrize(("make", "fused"), MODELS.values(), ids=MODELS)
def test_a_fused_model_computes_the_same(make, fused, memory_format, inplace):
    model = randomized(make())
    x, g = normal(2, 4, 6, 7), normal(2, 4, 6, 7, seed=1)
    expected = passes(copy.deepcopy(model), x, g)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    classes = [type(module) for module in model.modules()]
    modules = list(model.modules())
    convert(model, memory_format=memory_format, fuse_activation=True, inplace=inplace)
    texts = [
        text.removesuffix("inplace").removesuffix(", ") for text in converted(model).fused.values()
    ]
    assert sorted(filter(None, texts)) == sorted(fused)
    assert_same(passes(model, x, g), expected)
    assert_same(passes(copy.deepcopy(model), x, g), expected)
    assert_same(passes(pickle.loads(pickle.dumps(model)), x, g), expected)
    model.eval()
    plain = revert(copy.deepcopy(model))
    torch.testing.assert_close(model(x), plain(x), rtol=1e-9, atol=1e-9)
    assert model.state_dict().keys() == state.keys()
    model.load_state_dict(state)
    assert list(model.modules()) == modules
    assert [type(module) for module in revert(model).modules()] == classes
    assert_same(passes(model.train(), x, g), expected)


@pytest.mark.parametrize("name", ["leaky", "shared", "in parts"])
def test_in_place_is_where_a_convolution_comes_before(name):
    model = convert(MODELS[name][0](), fuse_activation=True, inplace=True)
    assert all("inplace" in text for text in converted(model).fused.values())
    if name == "leaky":
        x = normal(2, 4, 6, 7).float()
        between = model[0](x)
        assert model[1](between).data_ptr() == between.data_ptr()


class Inlined(nn.Module):
    """Two ways to a block: what is rewritten is the code of the outer one, with the block's."""

    class Outer(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x):
            return self.block(x) + x

    def __init__(self):
        super().__init__()
        self.block = SharedActivation()
        self.outer = self.Outer(self.block)

    def forward(self, x):
        return self.outer(x)


def test_in_place_goes_by_the_code_that_runs():
    model = convert(Inlined(), fuse_activation=True, inplace=True)
    assert [*converted(model).fused.values()] == [
        "leaky_relu, inplace",
        "residual, leaky_relu, inplace",
    ]


class Then(nn.Module):
    """A norm in a module of its own, and what somebody does to its result."""

    def __init__(self, function, *before):
        super().__init__()
        self.part, self.function = nn.Sequential(conv(), norm(), *before), function
        self.block = self.Block()

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.conv = nn.SiLU(inplace=True), conv()

        def forward(self, x):
            return self.conv(self.act(x))

    def forward(self, x):
        return self.function(self, self.part(x), x)


def set_zero(_, y, x):
    y[:, 0] = 0
    return y


@pytest.mark.parametrize(
    ("make", "in_place"),
    [
        (lambda: nn.Sequential(conv(), norm(), nn.SiLU(inplace=True)), False),
        (lambda: nn.Sequential(conv(), norm(), nn.SiLU()), True),
        (lambda: nn.Sequential(conv(), norm(), nn.Dropout(0.0), nn.SiLU(inplace=True)), False),
        (lambda: nn.Sequential(conv(), norm(), nn.Dropout(0.0, inplace=True), conv()), False),
        (lambda: nn.Sequential(nn.Sequential(conv(), norm()), nn.ELU(inplace=True)), False),
        (lambda: nn.Sequential(Then(lambda s, y, x: y), nn.ELU(inplace=True)), False),
        (lambda: nn.Sequential(Then(lambda s, y, x: y), conv()), True),
        (lambda: Then(lambda s, y, x: s.block(y)), False),
        (lambda: Then(lambda s, y, x: F.silu(y, True)), False),
        (lambda: Then(lambda s, y, x: F.silu(y, inplace=True)), False),
        (lambda: Then(lambda s, y, x: F.silu(y)), True),
        (lambda: Then(lambda s, y, x: torch.sigmoid_(y)), False),
        (lambda: Then(lambda s, y, x: y.sigmoid_()), False),
        (lambda: Then(lambda s, y, x: y.__iadd__(x)), False),
        (lambda: Then(lambda s, y, x: operator.iadd(y, x)), False),
        (lambda: Then(lambda s, y, x: operator.iadd(x * 1, y)), True),
        (lambda: Then(set_zero), False),
        (lambda: Then(lambda s, y, x: operator.imul(y, x), nn.LeakyReLU()), False),
        (lambda: Then(lambda s, y, x: y * x, nn.LeakyReLU(inplace=True)), True),
    ],
)
@pytest.mark.parametrize("fuse_activation", [False, True])
def test_a_norm_whose_result_is_written_into_is_not_in_place(make, in_place, fuse_activation):
    torch.manual_seed(0)
    model, x, g = randomized(make()), normal(2, 4, 6, 7), normal(2, 4, 6, 7, seed=1)
    expected = passes(copy.deepcopy(model), x, g)
    convert(model, fuse_activation=fuse_activation, inplace=True)
    assert_same(passes(model, x, g), expected)
    if fuse_activation:
        assert any("inplace" in fused for fused in converted(model).fused.values()) == in_place


def test_a_module_counts_each_time_that_a_sequential_calls_it():
    act = nn.Softplus()
    model = randomized(nn.Sequential(conv(), norm(), act, conv(), norm(), act, nn.ReLU()))
    x, g = normal(2, 4, 6, 7), normal(2, 4, 6, 7, seed=1)
    expected = passes(copy.deepcopy(model), x, g)
    assert_same(passes(convert(model, fuse_activation=True), x, g), expected)


def test_in_place_is_nowhere_else():
    branch = nn.Sequential(nn.ReLU(), norm(), nn.LeakyReLU())
    convert(branch, fuse_activation=True, inplace=True)
    assert list(converted(branch).fused.values()) == ["leaky_relu"]


@pytest.mark.parametrize("name", ["relu", "shared", "residual"])
def test_a_hook_sees_the_norm_alone(name):
    model = randomized(MODELS[name][0]())
    x = normal(2, 4, 6, 7)
    seen = {}

    def look(module):
        def hook(_, inputs, output):
            seen.setdefault(module, []).append(output.clone())

        return hook

    expected = model(x)
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.InstanceNorm2d)]
    for each in ("before", "after"):
        handles = [model.get_submodule(n).register_forward_hook(look((each, n))) for n in norms]
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
        for handle in handles:
            handle.remove()
        if each == "before":
            convert(model, fuse_activation=True)
            assert converted(model).fused
    for n in norms:
        torch.testing.assert_close(seen["after", n], seen["before", n], rtol=1e-9, atol=1e-9)


class Aliases(nn.Module):
    """What is written in place is seen under its other names."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm1, self.norm2 = conv(), norm(), norm()

    def forward(self, x):
        h = alias = self.conv(x)
        h += 1
        out = F.relu(self.norm1(x)) + alias
        other = self.norm2(h)
        h *= 2
        return F.relu(other + h) + out


def test_what_is_written_in_place_stays_so():
    model = randomized(Aliases())
    with torch.no_grad():  # where PyTorch lets a norm's input be overwritten
        x = normal(2, 4, 6, 7)
        expected = model(x)
        convert(model, fuse_activation=True)
        assert converted(model).fused == {"norm1": "relu"}
        torch.testing.assert_close(model(x), expected)


def test_a_hook_that_was_there_forbids_fusion():
    model = nn.Sequential(norm(), nn.ReLU())
    model[1].register_forward_hook(lambda *_: None)
    assert not converted(convert(model, fuse_activation=True)).fused


def test_a_residual_of_another_shape_is_added_all_the_same():
    class Broadcast(SharedActivation):
        def forward(self, x):
            out = self.norm2(self.conv2(x))
            return self.lrelu(out + x.mean((2, 3), keepdim=True))

    model, x = randomized(Broadcast()), normal(2, 4, 6, 7)
    expected = model(x)
    convert(model, fuse_activation=True)
    assert "residual, leaky_relu" in converted(model).fused.values()
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("name", ["leaky", "prelus", "shared", "residual", "in parts"])
def test_compiled_without_a_break(name):
    model = randomized(MODELS[name][0]())
    x, g = normal(2, 4, 6, 7), normal(2, 4, 6, 7, seed=1)
    expected = passes(copy.deepcopy(model), x, g)
    for inplace in (False, True):
        fused = convert(copy.deepcopy(model), fuse_activation=True, inplace=inplace)
        compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
        assert_same(passes(compiled, x, g), expected)


def test_a_model_without_norms_is_said_so():
    with pytest.warns(UserWarning, match="no instance norm"):
        convert(nn.Linear(2, 2))


# --- the function -------------------------------------------------------------------------

MASK = torch.from_numpy(np.random.default_rng(3).random((2, 4, 5)) < 0.6)
COMBINATIONS = list(
    itertools.product(
        [(None, False), ("relu", False), ("leaky_relu", False), ("leaky_relu", True)],
        [False, True],
        [None, MASK],
        [False, True],
    )
)


class AnyMode(torch.overrides.TorchFunctionMode):
    """One that does nothing, as profilers' and others'."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def leaves(residual, slope, per_sample):
    size = (2, 3) if per_sample else (3,)
    tensors = [normal(2, 3, 4, 5), 1 + 0.3 * normal(*size, seed=1), 0.4 * normal(*size, seed=2)]
    tensors += [normal(2, 3, 4, 5, seed=3)] if residual else []
    tensors += [torch.tensor([0.2, 0.3, 0.4], dtype=torch.float64)] if slope else []
    return [t.requires_grad_() for t in tensors]


@pytest.mark.parametrize(("activation", "residual", "mask", "per_sample"), COMBINATIONS)
def test_gradients(activation, residual, mask, per_sample):
    name, slope = activation

    def function(x, weight, bias, *rest):
        rest = list(rest)
        return bridge.instance_norm(
            x,
            weight=weight,
            bias=bias,
            mask=mask,
            residual=rest.pop(0) if residual else None,
            activation=name,
            negative_slope=rest.pop() if slope else 0.1,
        )

    inputs = leaves(residual, slope, per_sample)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)
    # What the kernels do not take is computed by PyTorch's operations.
    with AnyMode():
        other = function(*inputs)
    torch.testing.assert_close(function(*inputs), other)


@pytest.mark.parametrize("name", [None, "leaky_relu"])
def test_gradients_in_place(name):
    def function(x, weight, bias):
        return bridge.instance_norm(x * 1, weight=weight, bias=bias, activation=name, inplace=True)

    inputs = leaves(False, False, False)
    assert torch.autograd.gradcheck(function, inputs)
    loss = function(*inputs).sin().sum()
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(loss, inputs, create_graph=True)


class ReturnsItsInput(torch.autograd.Function):
    """As that by which fully_shard follows what goes into a module."""

    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output


def test_misuse_in_place_is_found_out():
    x = normal(2, 3, 4, 5).requires_grad_()
    before = x.detach().clone()
    for tensor in (x, x.view(2, 3, 20)):
        with pytest.raises(RuntimeError, match="a leaf Tensor"):
            bridge.instance_norm(tensor, inplace=True)
    torch.testing.assert_close(x.detach(), before, rtol=0, atol=0)
    h = x * 2
    for tensor in (h.chunk(2)[0], ReturnsItsInput.apply(h)):
        with pytest.raises(RuntimeError, match="a view that PyTorch lets nobody overwrite"):
            bridge.instance_norm(tensor, inplace=True)
    torch.testing.assert_close(h.detach(), 2 * before, rtol=0, atol=0)
    needs_h = h * h
    y = bridge.instance_norm(h, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (y + needs_h).sum().backward()
    for options, message in (
        ({"activation": "relu"}, "activation"),
        ({"activation": "leaky_relu", "negative_slope": 0.0}, "negative_slope"),
        ({"weight": torch.zeros(3)}, r"weight\[0\] is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            bridge.instance_norm(normal(2, 3, 4, 5), inplace=True, **options)


def test_memory_that_was_read_can_still_be_resized():
    # As FSDP does with parameters.
    weight = torch.ones(3)
    bridge.instance_norm(torch.rand(1, 3, 4), weight=weight)
    weight.untyped_storage().resize_(0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_arrays_share_the_memory_of_tensors(dtype):
    tensor = torch.rand(3, 4).to(dtype)[:, 1::2]
    array = arrays.as_array(tensor)
    assert array.shape == (3, 2)
    assert array.flags.writeable
    array[...] = 7
    assert (tensor == 7).all()
    assert arrays.as_array(torch.empty(0, 3, dtype=dtype)).shape == (0, 3)


def test_layers_take_masks_residuals_and_activations():
    layer = bridge.InstanceNorm2d(3, affine=True, activation="leaky_relu", negative_slope=0.3)
    x, residual = normal(2, 3, 4, 5).float(), normal(2, 3, 4, 5, seed=1).float()
    expected = bridge.instance_norm(
        x, mask=MASK, residual=residual, activation="leaky_relu", negative_slope=0.3
    )
    torch.testing.assert_close(layer(x, mask=MASK, residual=residual), expected)
    one = layer(x[0], mask=MASK[0], residual=residual[0])
    torch.testing.assert_close(one, expected[0])
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        bridge.InstanceNorm2d(3, activation="gelu")


# --- tiles --------------------------------------------------------------------------------


def test_tiles_by_the_statistics_of_the_whole_have_no_seams():
    model = randomized(nn.Sequential(norm(3), nn.Conv2d(3, 4, 1), norm(), nn.ReLU()))
    convert(model, fuse_activation=True)
    image = normal(1, 3, 12, 16) * torch.linspace(0.1, 3, 16)
    whole = model(image)
    tiles = image.split(5, dim=3)
    apart = torch.cat([model(tile) for tile in tiles], dim=3)
    assert (apart - whole).abs().max() > 0.1
    statistics = None
    for _ in range(2):  # the second norm is exact after the second round
        fixed = bridge.fixed_statistics(model, statistics) if statistics else nullcontext()
        with fixed, collect_statistics(model) as found:
            for tile in tiles:
                model(tile)
        statistics = found
    with bridge.fixed_statistics(model, statistics):
        seamless = torch.cat([model(tile) for tile in tiles], dim=3)
    torch.testing.assert_close(seamless, whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model(image), whole)


def test_statistics_that_do_not_fit_are_refused():
    model = convert(nn.Sequential(norm(3)))
    with (
        pytest.raises(ValueError, match="expected those of the converted norms"),
        bridge.fixed_statistics(model, {}),
    ):
        pass
    with (
        pytest.raises(ValueError, match="no converted norm"),
        collect_statistics(nn.Linear(2, 2)),
    ):
        pass
    with collect_statistics(model) as empty:
        pass
    with pytest.raises(ValueError, match="is empty"), bridge.fixed_statistics(model, empty):
        pass
