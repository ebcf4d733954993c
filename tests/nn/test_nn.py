"""Module and the layers that toy models are built of: as torch.nn's, in numbers and in names."""

import copy
import importlib
import math
import pickle
import re
from collections import OrderedDict

import numpy as np
import pytest
from helpers.beside_torch import assert_close, assert_same, torch, torch_leaf, torch_tensor
from helpers.tensors import leaf, normal

import instnorm
from instnorm import Tensor, nn, no_grad
from instnorm.testing import gradcheck, gradgradcheck

pytestmark = pytest.mark.torch

LIBRARIES = {
    instnorm: lambda *shape: Tensor(np.ones(shape, np.float32)),
    torch: torch.ones,
}


def make(library, *shape):
    return LIBRARIES[library](*shape)


def network(library):
    """The same network in either library: nested, with None, buffers and shared parts."""
    nn = library.nn

    class Block(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.register_buffer("mask", make(library, 2, 2))
            self.norm = nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)
            self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.gain = nn.Parameter(make(library, 1))
            self.register_buffer("scratch", make(library, 3), persistent=False)
            self.register_buffer("nothing", None)
            self.register_parameter("offset", None)
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(self.conv(self.norm(x)) * self.gain)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, padding=1)
            self.block = Block(4)
            self.body = nn.Sequential(self.block, nn.InstanceNorm2d(4), Block(4))
            self.absent = None
            self.tied = nn.Parameter(make(library, 2))
            self.body.tied_too = self.tied
            self.head = nn.Sequential(OrderedDict(flat=nn.Flatten(), fc=nn.Linear(64, 3)))
            self.head.norm = self.block.norm

        def forward(self, x):
            return self.head.fc(self.head.flat(self.body(self.first(x))))

        def extra_repr(self):
            return "for digits"

    return Net()


@pytest.fixture
def nets():
    """Ours and torch's, with the same parameters."""
    ours, theirs = network(instnorm), network(torch)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


# --- what is inside -----------------------------------------------------------


def names(pairs):
    return [name for name, _ in pairs]


def test_everything_has_torchs_names_in_torchs_order(nets):
    ours, theirs = nets
    for listing in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        found = list(getattr(ours, listing)())
        assert names(found) == names(getattr(theirs, listing)())
        plain = list(getattr(ours, listing.removeprefix("named_"))())
        assert [id(x) for x in plain] == [id(x) for _, x in found]
    for listing in ("named_parameters", "named_buffers"):
        for options in ({"prefix": "net"}, {"recurse": False}, {"prefix": "net", "recurse": False}):
            found = getattr(ours, listing)(**options)
            assert names(found) == names(getattr(theirs, listing)(**options))
    assert names(ours.named_modules(prefix="net")) == names(theirs.named_modules(prefix="net"))
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_shared_parts_are_listed_once_and_saved_under_every_name(nets):
    ours, _ = nets
    everything = [*ours.parameters(), *ours.buffers(), *ours.modules()]
    assert len({id(x) for x in everything}) == len(everything)
    state = ours.state_dict()
    assert state["body.0.norm.weight"] is state["head.norm.weight"]
    assert state["tied"] is state["body.tied_too"]


def test_repr_is_torchs(nets):
    ours, theirs = nets
    assert repr(ours) == repr(theirs)
    assert str(ours.head) == str(theirs.head)
    assert repr(nn.Sequential()) == repr(torch.nn.Sequential())


def test_the_same_layer_twice_is_one_child():
    relu = nn.ReLU()
    net = nn.Sequential(relu, nn.Linear(2, 2), relu)
    torchs = torch.nn.ReLU()
    theirs = torch.nn.Sequential(torchs, torch.nn.Linear(2, 2), torchs)
    assert names(net.named_children()) == names(theirs.named_children()) == ["0", "1"]
    assert [type(m).__name__ for m in net] == [type(m).__name__ for m in theirs]
    assert len(net) == len(net[:]) == 3
    calls = []
    net.apply(lambda module: calls.append(type(module).__name__))
    assert calls == ["ReLU", "Linear", "Sequential"]
    linear = nn.Linear(2, 2)
    assert list(nn.Sequential(linear, linear).state_dict()) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
    ]


def test_outputs_gradients_and_buffers_are_torchs(nets):
    ours, theirs = nets
    for training in (True, False, True):
        ours.train(training)
        theirs.train(training)
        ours.zero_grad()
        theirs.zero_grad()
        x = normal(2, 1, 4, 4).astype(np.float32)
        a, t = leaf(x), torch_leaf(x)
        used = [n for n, _ in theirs.named_parameters() if n != "tied"]
        leaves = [a, *(dict(ours.named_parameters())[n] for n in used)]
        assert_same(ours(a), theirs(t), leaves, [t, *(theirs.get_parameter(n) for n in used)], 100)
        assert ours.tied.grad is None
        for (name, buffer), expected in zip(ours.named_buffers(), theirs.buffers(), strict=True):
            if name.endswith("tracked"):
                assert buffer.item() == expected.item() == 0
            else:
                assert_close(buffer, expected, 100)


def test_gradients_of_a_network_are_the_central_differences():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect", dtype=np.float64),
        nn.InstanceNorm2d(2, affine=True, dtype=np.float64),
        nn.LeakyReLU(0.2),
        nn.AvgPool2d(2),
        nn.Upsample(scale_factor=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(32, 2, dtype=np.float64),
        nn.Sigmoid(),
    )
    leaves = [leaf(normal(2, 1, 4, 4)), *net.parameters()]
    assert gradcheck(lambda x, *_: net(x), leaves, atol=1e-7, rtol=1e-5)
    assert gradgradcheck(lambda x, *_: net(x), leaves[:3], atol=1e-6, rtol=1e-5)


# --- attributes ---------------------------------------------------------------


def module(library):
    result = library.nn.Module()
    result.layer = library.nn.Linear(2, 2)
    result.weight = library.nn.Parameter(make(library, 1))
    result.register_buffer("count", make(library, 1))
    result.plain = 3
    return result


def tensor_for(m):
    return make(torch if isinstance(m, torch.nn.Module) else instnorm, 1)


def nn_of(m):
    return torch.nn if isinstance(m, torch.nn.Module) else nn


ATTRIBUTE_ACTIONS = {
    "missing": lambda m: m.missing,
    "delete missing": lambda m: delattr(m, "missing"),
    "delete parameter": lambda m: delattr(m, "weight"),
    "delete buffer": lambda m: delattr(m, "count"),
    "delete module": lambda m: delattr(m, "layer"),
    "delete plain": lambda m: delattr(m, "plain"),
    "parameter = Parameter": lambda m: setattr(m, "weight", nn_of(m).Parameter(tensor_for(m))),
    "parameter = None": lambda m: setattr(m, "weight", None),
    "parameter = Tensor": lambda m: setattr(m, "weight", tensor_for(m)),
    "parameter = int": lambda m: setattr(m, "weight", 3),
    "parameter = Module": lambda m: setattr(m, "weight", nn_of(m).ReLU()),
    "buffer = Tensor": lambda m: setattr(m, "count", tensor_for(m)),
    "buffer = None": lambda m: setattr(m, "count", None),
    "buffer = int": lambda m: setattr(m, "count", 3),
    "buffer = Module": lambda m: setattr(m, "count", nn_of(m).ReLU()),
    "buffer = Parameter": lambda m: setattr(m, "count", nn_of(m).Parameter(tensor_for(m))),
    "module = Module": lambda m: setattr(m, "layer", nn_of(m).ReLU()),
    "module = None": lambda m: setattr(m, "layer", None),
    "module = int": lambda m: setattr(m, "layer", 3),
    "module = Tensor": lambda m: setattr(m, "layer", tensor_for(m)),
    "module = Parameter": lambda m: setattr(m, "layer", nn_of(m).Parameter(tensor_for(m))),
    "plain = Parameter": lambda m: setattr(m, "plain", nn_of(m).Parameter(tensor_for(m))),
    "plain = Module": lambda m: setattr(m, "plain", nn_of(m).ReLU()),
    "plain = Tensor": lambda m: setattr(m, "plain", tensor_for(m)),
    "register_parameter": lambda m: m.register_parameter("new", nn_of(m).Parameter(tensor_for(m))),
    "register_parameter None": lambda m: m.register_parameter("new", None),
    "register_parameter again": lambda m: m.register_parameter("weight", None),
    "register_parameter Tensor": lambda m: m.register_parameter("new", tensor_for(m)),
    "register_parameter dot": lambda m: m.register_parameter("a.b", None),
    "register_parameter empty": lambda m: m.register_parameter("", None),
    "register_parameter number": lambda m: m.register_parameter(3, None),
    "register_parameter taken": lambda m: m.register_parameter("layer", None),
    "register_parameter method": lambda m: m.register_parameter("forward", None),
    "register_buffer": lambda m: m.register_buffer("new", tensor_for(m)),
    "register_buffer not persistent": lambda m: m.register_buffer("new", tensor_for(m), False),
    "register_buffer again": lambda m: m.register_buffer("count", None),
    "register_buffer int": lambda m: m.register_buffer("new", 3),
    "register_buffer dot": lambda m: m.register_buffer("a.b", None),
    "register_buffer empty": lambda m: m.register_buffer("", None),
    "register_buffer taken": lambda m: m.register_buffer("weight", None),
    "register_buffer plain": lambda m: m.register_buffer("plain", None),
    "register_buffer training": lambda m: m.register_buffer("training", None),
    "add_module": lambda m: m.add_module("new", nn_of(m).ReLU()),
    "add_module None": lambda m: m.add_module("new", None),
    "add_module again": lambda m: m.add_module("layer", nn_of(m).ReLU()),
    "add_module int": lambda m: m.add_module("new", 3),
    "add_module dot": lambda m: m.add_module("a.b", None),
    "add_module empty": lambda m: m.add_module("", None),
    "add_module taken": lambda m: m.add_module("count", None),
    "train": lambda m: m.train(1),
    "call": lambda m: m(1),
}


@pytest.mark.parametrize("name", ATTRIBUTE_ACTIONS)
def test_attributes_behave_as_in_torch(name):
    outcomes = []
    for library in LIBRARIES:
        m = module(library)
        try:
            ATTRIBUTE_ACTIONS[name](m)
            error = None
        except Exception as e:
            error = type(e)
        inside = [names(m.named_parameters()), names(m.named_buffers()), names(m.named_children())]
        outcomes.append((error, inside, list(m.state_dict()), m.__dict__.get("plain") is None))
    assert outcomes[0] == outcomes[1]


def test_attribute_errors_name_the_attribute():
    m = module(instnorm)
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'missing'"):
        _ = m.missing
    with pytest.raises(TypeError, match="cannot assign Tensor to parameter 'weight'"):
        m.weight = Tensor(np.ones(1))
    with pytest.raises(TypeError, match="cannot assign int to buffer 'count'"):
        m.count = 3
    with pytest.raises(TypeError, match="cannot assign int to submodule 'layer'"):
        m.layer = 3
    with pytest.raises(KeyError, match="'forward' is taken"):
        m.register_buffer("forward", None)
    with pytest.raises(KeyError, match=r"must not be empty nor contain a dot, got 'a.b'"):
        m.add_module("a.b", None)
    with pytest.raises(NotImplementedError, match=r"Module must define forward\(\)"):
        m(1)


@pytest.mark.parametrize("value", ["parameter", "module", 3])
def test_attributes_before_init_are_an_error(value):
    values = {"parameter": lambda: nn.Parameter([1.0]), "module": nn.ReLU}

    class Hasty(nn.Module):
        def __init__(self):
            self.early = values[value]() if value in values else value

    with pytest.raises(AttributeError, match=r"Hasty assigns.*before super\(\).__init__\(\)"):
        Hasty()


def test_dir_lists_what_is_registered():
    assert {"layer", "weight", "count", "forward", "plain"} <= set(dir(module(instnorm)))


def test_a_reassigned_parameter_keeps_its_place():
    linear = nn.Linear(2, 3)
    linear.weight = nn.Parameter(np.zeros((3, 2), np.float32))
    assert names(linear.named_parameters()) == ["weight", "bias"]
    assert linear(normal(1, 2).astype(np.float32)).tolist() == [linear.bias.tolist()]


def test_parameters():
    p = nn.Parameter([1.0, 2.0])
    assert p.requires_grad
    assert p.dtype == np.float32
    assert p.is_leaf
    assert repr(p) == "Parameter containing:\ntensor([1., 2.], requires_grad=True)"
    array = np.zeros(2)
    frozen = nn.Parameter(array, requires_grad=False)
    assert frozen.data is array
    assert not frozen.requires_grad
    assert type(p * 2) is Tensor
    for twin in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert type(twin) is nn.Parameter
        assert twin.tolist() == [1, 2]


# --- modes and changes --------------------------------------------------------


def test_train_and_eval_reach_every_module(nets):
    ours, _ = nets
    assert all(m.training for m in ours.modules())
    assert ours.eval() is ours
    assert not any(m.training for m in ours.modules())
    ours.block.train()
    assert [n for n, m in ours.named_modules() if m.training] == [
        n for n, _ in ours.named_modules() if n.startswith("block")
    ]
    with pytest.raises(ValueError, match="mode must be a bool, got 'yes'"):
        ours.train("yes")


def test_apply_visits_children_before_parents_as_torch_does(nets):
    visits = []
    for net in nets:
        seen = []
        assert net.apply(lambda m, seen=seen: seen.append(type(m).__name__)) is net
        visits.append(seen)
    assert visits[0] == visits[1]


def test_zero_grad_and_requires_grad(nets):
    ours, _ = nets
    ours(normal(2, 1, 4, 4).astype("f")).sum().backward()
    with_gradients = [p for p in ours.parameters() if p.grad is not None]
    assert with_gradients
    ours.zero_grad(set_to_none=False)
    assert [p for p in ours.parameters() if p.grad is not None] == with_gradients
    assert not any(p.grad.data.any() for p in with_gradients)
    ours.zero_grad()
    assert all(p.grad is None for p in ours.parameters())
    assert ours.requires_grad_(False) is ours
    assert not ours(normal(2, 1, 4, 4).astype("f")).requires_grad


def test_to_casts_what_is_floating_point(nets):
    ours, _ = nets
    ours(normal(2, 1, 4, 4).astype("f")).sum().backward()
    before = list(ours.parameters())
    assert ours.to(np.float64) is ours
    assert all(a is b for a, b in zip(ours.parameters(), before, strict=True))
    assert {p.dtype.name for p in ours.parameters()} == {"float64"}
    assert {p.grad.dtype.name for p in ours.parameters() if p.grad is not None} == {"float64"}
    assert {b.dtype.name for b in ours.buffers()} == {"float64", "int64"}
    for dtype in (np.int64, bool, complex):
        with pytest.raises(TypeError, match="dtype must be a floating point type"):
            ours.to(dtype)


def test_copies_share_inside_and_are_apart_from_the_original(nets):
    ours = nets[0].block
    ours.again = ours.norm
    ours.tied = ours.gain
    copies = [copy.deepcopy(ours)]
    sequential = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    sequential.append(sequential[0])
    copies.append(pickle.loads(pickle.dumps(sequential)))
    block, net = copies
    assert block.again is block.norm
    assert block.tied is block.gain
    assert net[2] is net[0]
    for duplicate, original in zip(copies, (ours, sequential), strict=True):
        assert repr(duplicate) == repr(original)
        for (n, a), (m, b) in zip(
            duplicate.state_dict().items(), original.state_dict().items(), strict=True
        ):
            assert n == m
            np.testing.assert_array_equal(a, b)
            assert not np.shares_memory(a, b)


# --- state --------------------------------------------------------------------


def test_a_network_takes_torchs_state_and_gives_it_back():
    ours, theirs = network(instnorm), network(torch)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name], value)
    ours.load_state_dict(dict(theirs.named_parameters()), strict=False)  # these require gradients
    ours.block.conv.weight.data[...] = 5
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    assert (theirs.block.conv.weight == 5).all()


def test_a_state_dict_that_does_not_fit_changes_nothing(nets):
    ours, _ = nets
    before = {k: v.copy() for k, v in ours.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    state["head.fc.bias"] = np.zeros(4)
    with pytest.raises(RuntimeError, match=r"for Net:\n\tsize mismatch for head.fc.bias"):
        ours.load_state_dict(state)
    del state["head.fc.bias"]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "head.fc.bias"'):
        ours.load_state_dict(state)
    for name, value in ours.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_loading_is_seen_by_the_graph():
    linear = nn.Linear(2, 2)
    y = linear(leaf(normal(1, 2).astype("f")))
    linear.load_state_dict(linear.state_dict())
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        y.sum().backward()


def test_buffers_that_are_not_persistent_are_not_saved():
    m = nn.Module()
    m.register_buffer("scratch", Tensor(np.ones(2)), persistent=False)
    assert list(m.state_dict()) == []
    assert names(m.named_buffers()) == ["scratch"]
    m.load_state_dict({})
    m.register_buffer("scratch", Tensor(np.ones(2)))
    assert list(m.state_dict()) == ["scratch"]


# --- Sequential ---------------------------------------------------------------


def test_sequential():
    layers = [nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)]
    net = nn.Sequential(*layers)
    assert len(net) == 3
    assert list(net) == layers
    assert [net[i] for i in (0, 1, 2, -1)] == [*layers, layers[2]]
    part = net[1:]
    assert isinstance(part, nn.Sequential)
    assert list(part) == layers[1:]
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    assert list(part.state_dict()) == list(theirs[1:].state_dict())
    for i in (3, -4):
        with pytest.raises(IndexError):
            net[i]
    assert net.append(nn.Tanh()) is net
    assert names(net.named_children()) == ["0", "1", "2", "3"]
    x = normal(5, 4).astype(np.float32)
    expected = layers[2](layers[1](layers[0](x))).tanh()
    np.testing.assert_array_equal(net(x).data, expected.data)


def test_a_sequential_of_named_modules():
    net = nn.Sequential(OrderedDict([("in", nn.Linear(2, 2)), ("out", nn.ReLU())]))
    assert list(net.state_dict()) == ["in.weight", "in.bias"]
    assert list(net[:1].state_dict()) == ["in.weight", "in.bias"]
    assert net.out is net[1]


@pytest.mark.parametrize("modules", [(3,), (nn.ReLU,), ([nn.ReLU()],)], ids=["3", "type", "list"])
def test_a_sequential_of_something_else_is_a_type_error(modules):
    with pytest.raises(TypeError, match="module must be a Module or None, got"):
        nn.Sequential(*modules)


# --- the layers ---------------------------------------------------------------

IMAGE = normal(2, 3, 6, 8)
ROWS = normal(5, 8)
LAYERS = {
    "Conv2d": (("Conv2d", (3, 4, 3), {}), IMAGE),
    "Conv2d all": (
        ("Conv2d", (3, 4, (3, 2), 2, (1, 2), (1, 2)), {"bias": False}),
        IMAGE,
    ),
    "Conv2d keywords": (
        (
            "Conv2d",
            (),
            {"in_channels": 3, "out_channels": 2, "kernel_size": 1, "stride": 2, "groups": 1},
        ),
        IMAGE,
    ),
    "Conv2d reflect": (
        ("Conv2d", (3, 2, 3), {"padding": (1, 2), "padding_mode": "reflect"}),
        IMAGE,
    ),
    "Conv2d circular": (
        ("Conv2d", (3, 2, 3), {"padding": "same", "dilation": 2, "padding_mode": "circular"}),
        IMAGE,
    ),
    "Conv2d same": (
        ("Conv2d", (3, 6, (2, 3)), {"padding": "same", "groups": 3, "padding_mode": "replicate"}),
        IMAGE,
    ),
    "Conv2d valid": (("Conv2d", (3, 2, 3), {"padding": "valid"}), IMAGE),
    "Conv1d": (("Conv1d", (3, 4, 3, 2, 1), {}), IMAGE[:, :, 0]),
    "Conv1d unbatched": (("Conv1d", (3, 4, 3), {"padding": "same"}), IMAGE[0, :, 0]),
    "Conv3d": (("Conv3d", (3, 4, (1, 3, 2)), {"padding": (0, 1, 1)}), IMAGE[:, :, None]),
    "ConvTranspose1d": (("ConvTranspose1d", (3, 4, 3, 2), {}), IMAGE[:, :, 0]),
    "ConvTranspose2d": (("ConvTranspose2d", (3, 4, 2, 2), {}), IMAGE),
    "ConvTranspose2d all": (
        ("ConvTranspose2d", (3, 6, 3, (3, 2), 1, (2, 1), 3, False, 2), {}),
        IMAGE,
    ),
    "ConvTranspose3d": (("ConvTranspose3d", (3, 2, 2, 2), {}), IMAGE[:, :, None]),
    "Conv2d unbatched": (("Conv2d", (3, 2, 3), {"padding_mode": "zeros"}), IMAGE[0]),
    "Linear": (("Linear", (8, 5), {}), IMAGE),
    "Linear no bias": (("Linear", (8, 5), {"bias": False}), IMAGE[0, 0]),
    "Linear vector": (("Linear", (8, 1), {}), IMAGE[0, 0, 0]),
    "Flatten": (("Flatten", (), {}), IMAGE),
    "Flatten some": (("Flatten", (0, 1), {}), IMAGE),
    "Identity": (("Identity", (3,), {"unused": True}), IMAGE),
    "ReLU": (("ReLU", (), {}), IMAGE),
    "LeakyReLU": (("LeakyReLU", (), {}), IMAGE),
    "LeakyReLU 0.2": (("LeakyReLU", (0.2,), {}), IMAGE),
    "LeakyReLU inplace": (("LeakyReLU", (0.2, True), {}), ROWS),
    "ReLU inplace": (("ReLU", (True,), {}), ROWS),
    "Tanh": (("Tanh", (), {}), IMAGE),
    "GELU": (("GELU", (), {}), IMAGE),
    "GELU tanh": (("GELU", ("tanh",), {}), IMAGE),
    "SiLU": (("SiLU", (), {}), IMAGE),
    "SiLU inplace": (("SiLU", (), {"inplace": True}), ROWS),
    "PReLU": (("PReLU", (), {}), IMAGE),
    "PReLU of channels": (("PReLU", (3, 0.1), {}), IMAGE),
    "Softmax": (("Softmax", (1,), {}), IMAGE),
    "Softplus": (("Softplus", (), {}), IMAGE),
    "Unflatten": (("Unflatten", (1, (2, -1)), {}), ROWS),
    "Unflatten the last": (("Unflatten", (-1, (4, 2)), {}), IMAGE),
    "Dropout2d 0": (("Dropout2d", (0.0,), {}), IMAGE),
    "LogSoftmax": (("LogSoftmax", (), {"dim": -1}), IMAGE),
    "Dropout 0": (("Dropout", (0.0,), {"inplace": True}), ROWS),
    "BatchNorm1d": (("BatchNorm1d", (8,), {}), ROWS),
    "BatchNorm1d of sequences": (("BatchNorm1d", (6,), {"bias": False}), IMAGE[0]),
    "BatchNorm2d": (("BatchNorm2d", (3, 1e-3, None), {}), IMAGE),
    "BatchNorm2d plain": (
        ("BatchNorm2d", (3,), {"affine": False, "track_running_stats": False}),
        IMAGE,
    ),
    "BatchNorm3d": (("BatchNorm3d", (3,), {}), IMAGE[:, :, None]),
    "GroupNorm": (("GroupNorm", (3, 6, 1e-2), {}), IMAGE.reshape(2, 6, 3, 8)),
    "GroupNorm no bias": (("GroupNorm", (1, 3), {"bias": False}), IMAGE),
    "GroupNorm plain": (("GroupNorm", (3, 3), {"affine": False}), IMAGE),
    "LayerNorm": (("LayerNorm", (8,), {}), IMAGE),
    "LayerNorm all": (("LayerNorm", ([3, 6, 8], 1e-2), {"bias": False}), IMAGE),
    "LayerNorm plain": (("LayerNorm", ((6, 8),), {"elementwise_affine": False}), IMAGE),
    "Upsample bilinear": (("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}), IMAGE),
    "Upsample corners": (
        ("Upsample", ((3, 5),), {"mode": "bilinear", "align_corners": True}),
        IMAGE,
    ),
    "Sigmoid": (("Sigmoid", (), {}), IMAGE),
    "MaxPool2d": (("MaxPool2d", (2,), {}), IMAGE),
    "MaxPool2d all": (("MaxPool2d", ((3, 2),), {"stride": 1, "padding": (1, 0)}), IMAGE),
    "MaxPool2d ceil": (("MaxPool2d", (3, 2, 1, 2, False, True), {}), IMAGE),
    "MaxPool1d": (("MaxPool1d", (2,), {}), IMAGE[:, :, 0]),
    "MaxPool3d unbatched": (("MaxPool3d", ((1, 2, 3),), {}), IMAGE),
    "AvgPool1d": (("AvgPool1d", (3, 2), {"ceil_mode": True}), IMAGE[:, :, 0]),
    "AvgPool2d uncounted": (
        ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}),
        IMAGE,
    ),
    "AvgPool3d": (("AvgPool3d", ((1, 2, 2),), {}), IMAGE[:, :, None]),
    "AdaptiveAvgPool1d": (("AdaptiveAvgPool1d", (3,), {}), IMAGE[:, :, 0]),
    "AdaptiveAvgPool2d": (("AdaptiveAvgPool2d", ((4, None),), {}), IMAGE),
    "AdaptiveAvgPool3d": (("AdaptiveAvgPool3d", (1,), {}), IMAGE[:, :, None]),
    "AvgPool2d": (("AvgPool2d", (2,), {}), IMAGE),
    "AvgPool2d all": (("AvgPool2d", (3, (2, 1), 1), {}), IMAGE),
    "Upsample": (("Upsample", (), {"scale_factor": 2.0}), IMAGE),
    "Upsample size": (("Upsample", ((3, 5),), {"mode": "nearest"}), IMAGE),
    "ReflectionPad2d": (("ReflectionPad2d", (2,), {}), IMAGE),
    "ReflectionPad2d all": (("ReflectionPad2d", ((1, 2, 0, 3),), {}), IMAGE),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_torchs(name, dtype):
    (kind, arguments, options), x = LAYERS[name]
    ours = getattr(nn, kind)(*arguments, **options).to(dtype)
    theirs = getattr(torch.nn, kind)(*arguments, **options).to(getattr(torch, dtype.__name__))
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = x.astype(dtype)
    a, t = leaf(x), torch_leaf(x)
    leaves = [a, *ours.parameters()], [t, *theirs.parameters()]
    # What works in place in torch, does not on a leaf.
    assert_same(ours(a * 1), theirs(t * 1), *leaves, eps=50)
    for buffer, expected in zip(ours.buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(buffer.data, expected, rtol=50 * np.finfo(dtype).eps)
    ours.eval()
    theirs.eval()
    assert_close(ours(a), theirs(t * 1), eps=50)
    np.testing.assert_array_equal(ours(x).data, ours(a).data)


LOSSES = {
    "MSELoss": ({}, normal(4, 3), normal(4, 3, seed=1)),
    "MSELoss sum": ({"reduction": "sum"}, normal(4, 3), normal(4, 3, seed=1)),
    "L1Loss": ({}, normal(4, 3), normal(4, 3, seed=1)),
    "L1Loss none": ({"reduction": "none"}, normal(4, 3), normal(4, 3, seed=1)),
    "SmoothL1Loss": ({"beta": 0.5}, normal(4, 3), normal(4, 3, seed=1)),
    "NLLLoss": ({}, normal(4, 3), np.array([0, 2, 1, 2])),
    "NLLLoss all": (
        {"weight": np.array([0.5, 2.0, 1.0]), "ignore_index": 1, "reduction": "none"},
        normal(4, 3),
        np.array([0, 2, 1, 2]),
    ),
    "BCELoss": ({}, normal(4, 3) ** 2 / 9, normal(4, 3, seed=1) ** 2 / 9),
    "BCELoss all": (
        {"weight": np.array([0.5, 2.0, 1.0]), "reduction": "sum"},
        normal(4, 3) ** 2 / 9,
        np.round(normal(4, 3, seed=1) ** 2 / 9),
    ),
    "BCEWithLogitsLoss": ({}, normal(4, 3), normal(4, 3, seed=1)),
    "BCEWithLogitsLoss all": (
        {"weight": np.array([0.5, 2.0, 1.0]), "pos_weight": np.array([1.5, 1.0, 3.0])},
        normal(4, 3),
        normal(4, 3, seed=1),
    ),
    "CrossEntropyLoss": ({}, normal(4, 3), np.array([0, 2, 1, 2])),
    "CrossEntropyLoss all": (
        {
            "weight": np.array([0.5, 2.0, 1.0]),
            "ignore_index": 1,
            "reduction": "sum",
            "label_smoothing": 0.2,
        },
        normal(4, 3),
        np.array([0, 2, 1, 2]),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_torchs(name):
    options, x, target = LOSSES[name]
    kind = name.split()[0]
    theirs = getattr(torch.nn, kind)(
        **{k: torch_tensor(v) if "weight" in k else v for k, v in options.items()}
    )
    ours = getattr(nn, kind)(**options)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    a, t = leaf(x), torch_leaf(x)
    assert_same(ours(a, target), theirs(t, torch_tensor(target)), [a], [t])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Conv2d(4, 6, 3, groups=3), ValueError, "groups=3 does not divide in_channels"),
        (
            lambda: nn.Conv2d(4, 4, 3, padding_mode="mirror"),
            ValueError,
            "padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', got 'mirror'",
        ),
        (
            lambda: nn.Conv2d(4, 4, 3, stride=2, padding="same"),
            ValueError,
            "padding='same' needs stride 1, got stride (2, 2)",
        ),
        (
            lambda: nn.ConvTranspose2d(4, 4, 2, padding_mode="reflect"),
            ValueError,
            "padding_mode must be 'zeros' for ConvTranspose2d, got 'reflect'",
        ),
        (
            lambda: nn.ConvTranspose2d(3, 4, 2, 2)(IMAGE.astype("f"), output_size=(30, 30)),
            ValueError,
            "output_size (30, 30) cannot be reached, expected from (12, 16)",
        ),
        (lambda: nn.Conv2d(4, 4, 0), ValueError, "kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(4, 4, 3, padding="some"), ValueError, "padding must be integers, '"),
        (lambda: nn.Conv2d(4, 4, 3, dtype=np.int64), RuntimeError, "floating point"),
        (
            lambda: nn.Conv2d(4, 4, 3)(IMAGE.astype("f")),
            ValueError,
            "input has shape (2, 3, 6, 8), expected",
        ),
        (lambda: nn.Linear(4, 4)(IMAGE), ValueError, "expected 4 features"),
        (lambda: nn.Linear(4, 4)(None), TypeError, "input must be a Tensor or array, got None"),
        (lambda: nn.MaxPool2d(2)(IMAGE[0, 0]), ValueError, "input has shape (6, 8)"),
        (lambda: nn.Upsample()(IMAGE), ValueError, "exactly one of size and scale_factor"),
        (lambda: nn.ReflectionPad2d(6)(IMAGE), ValueError, "must be less than the length 6"),
        (lambda: nn.Flatten(3, 1)(IMAGE), ValueError, "start_dim 3 comes after end_dim 1"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


# --- first values -------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "arguments", "fan_in"),
    [
        ("Linear", (64, 300), 64),
        ("Linear", (1, 500), 1),
        ("Conv2d", (8, 40, 3), 72),
        ("Conv2d", (3, 200, (1, 5)), 15),
    ],
)
def test_parameters_start_where_torchs_do(kind, arguments, fan_in):
    layer = getattr(nn, kind)(*arguments)
    theirs = getattr(torch.nn, kind)(*arguments)
    bound = 1 / math.sqrt(fan_in)
    for ours, expected in zip(layer.parameters(), theirs.parameters(), strict=True):
        assert ours.shape == tuple(expected.shape)
        assert ours.dtype == np.float32
        largest = np.abs(ours.data).max()
        assert 0.85 * bound < largest <= np.float32(bound)
        assert expected.abs().max() <= np.float32(bound)
        # Uniform: as much in the middle half as outside it.
        middle = (np.abs(ours.data) < bound / 2).mean()
        assert abs(middle - 0.5) < 3 / math.sqrt(ours.data.size)


def test_manual_seed_makes_models_reproducible():
    def draw(seed):
        instnorm.manual_seed(seed)
        return np.concatenate([p.data.ravel() for p in network(instnorm).parameters()])

    assert (draw(3) == draw(3)).all()
    assert (draw(3) != draw(4)).any()


@pytest.mark.parametrize(
    ("fill", "low", "high", "std"),
    [
        (lambda t: nn.init.uniform_(t, -2, 3), -2, 3, 5 / math.sqrt(12)),
        (lambda t: nn.init.kaiming_uniform_(t), *2 * [None], math.sqrt(2 / 60)),
        (lambda t: nn.init.kaiming_uniform_(t, a=2), *2 * [None], math.sqrt(2 / 5 / 60)),
        (lambda t: nn.init.kaiming_normal_(t), *2 * [None], math.sqrt(2 / 60)),
        (lambda t: nn.init.kaiming_normal_(t, mode="fan_out"), *2 * [None], math.sqrt(2 / 600)),
        (
            lambda t: nn.init.kaiming_uniform_(t, nonlinearity="tanh"),
            *2 * [None],
            5 / 3 / math.sqrt(60),
        ),
        (lambda t: nn.init.xavier_normal_(t, gain=2), *2 * [None], 2 * math.sqrt(2 / 660)),
        (lambda t: nn.init.xavier_uniform_(t, gain=3), *2 * [None], 3 * math.sqrt(2 / 660)),
        (lambda t: nn.init.normal_(t, 1, 0.5), *2 * [None], 0.5),
    ],
)
def test_init_functions_have_the_spread_of_torchs(fill, low, high, std):
    instnorm.manual_seed(0)
    t = Tensor(np.empty((200, 20, 1, 3)))
    before = t._version
    assert fill(t) is t
    assert t._version > before
    assert t.data.std() == pytest.approx(std, rel=0.03)
    if low is not None:
        assert low <= t.data.min() < low + 0.01
        assert high - 0.01 < t.data.max() < high


def test_init_of_constants():
    t = Tensor(np.empty((2, 2)))
    assert nn.init.ones_(t).tolist() == [[1, 1], [1, 1]]
    assert nn.init.zeros_(t).tolist() == [[0, 0], [0, 0]]
    assert nn.init.constant_(t, 2.5).tolist() == [[2.5, 2.5], [2.5, 2.5]]
    with pytest.raises(ValueError, match=r"needs at least 2 axes.*got shape \(3,\)"):
        nn.init.kaiming_uniform_(Tensor(np.empty(3)))


@pytest.mark.parametrize("nonlinearity", ["linear", "sigmoid", "tanh", "relu", "leaky_relu"])
def test_gains_are_torchs(nonlinearity):
    for param in ((), (0.3,)):
        expected = torch.nn.init.calculate_gain(nonlinearity, *param)
        assert nn.init.calculate_gain(nonlinearity, *param) == pytest.approx(expected)


def test_init_names_bad_arguments():
    w = Tensor(np.empty((2, 3)))
    with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out', got 'fan'"):
        nn.init.kaiming_normal_(w, mode="fan")
    with pytest.raises(ValueError, match=r"nonlinearity must be one of linear, .* got 'swish'"):
        nn.init.kaiming_uniform_(w, nonlinearity="swish")


def test_reset_parameters_draws_anew():
    linear = nn.Linear(3, 3)
    before = linear.weight.tolist()
    linear.reset_parameters()
    assert linear.weight.tolist() != before


def test_layers_run_without_recording():
    with no_grad():
        assert not nn.Linear(3, 3)(normal(1, 3).astype("f")).requires_grad


# Layers that PyTorch has not.
OF_THE_PAPERS = {"RevIN", *(f"ConditionalInstanceNorm{n}d" for n in (1, 2, 3))}


def test_all_is_public():
    for name in nn.__all__:
        assert hasattr(nn, name)
        assert name == "mindspore" or hasattr(torch.nn, name) or name in OF_THE_PAPERS
    assert dir(nn) == sorted(nn.__all__)


def test_functional_is_found_where_torchs_is():
    assert nn.functional is importlib.import_module("instnorm.nn.functional")
    assert dir(nn.functional) == sorted(instnorm.functional.__all__)
    for name in instnorm.functional.__all__:
        assert getattr(nn.functional, name) is getattr(instnorm.functional, name)
    with pytest.raises(AttributeError, match="nearest: gelu"):
        nn.functional.gelo  # noqa: B018


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Transformer", "no attention layers; nearest: Linear, LayerNorm"),
        ("LSTM", "no recurrent layers"),
        ("ELU", "nearest: SiLU"),
        ("ZeroPad2d", "functional.pad"),
        ("BatchNorm4d", "nearest: BatchNorm"),
        ("Relu", "nearest: ReLU"),
    ],
)
def test_what_is_left_out_says_what_is_nearest(name, nearest):
    with pytest.raises(AttributeError, match=nearest):
        getattr(nn, name)


@pytest.mark.parametrize(
    "fill",
    [
        nn.init.zeros_,
        nn.init.ones_,
        lambda t: nn.init.constant_(t, 0.5),
        lambda t: nn.init.normal_(t, 1.0, 0.02),
        nn.init.uniform_,
        nn.init.kaiming_normal_,
        nn.init.xavier_uniform_,
    ],
)
def test_initializers_fill_arrays_as_they_fill_tensors(fill):
    """Models written for PyTorch hand over ``layer.weight.data``."""
    tensor = Tensor(np.full((3, 4), np.nan, np.float32))
    array = np.full((3, 4), np.nan, np.float32)
    for target in (tensor, array):
        instnorm.manual_seed(0)
        assert fill(target) is target
    np.testing.assert_array_equal(tensor.data, array)
    assert np.isfinite(array).all()


# --- containers ----------------------------------------------------------------


def labelled(library, *sizes):
    """Layers that can be told apart by their sizes."""
    return [library.nn.Linear(n, 1) for n in sizes]


ROW_ACTIONS = {
    "append": lambda m, new: m.append(new(9)),
    "extend": lambda m, new: m.extend([new(8), new(9)]),
    # What insert returns is the Sequential in torch, and None of a ModuleList.
    "insert first": lambda m, new: m.insert(0, new(9)) and None,
    "insert": lambda m, new: m.insert(2, new(9)) and None,
    "insert last": lambda m, new: m.insert(len(m), new(9)) and None,
    "set": lambda m, new: m.__setitem__(1, new(9)),
    "set the last": lambda m, new: m.__setitem__(-1, new(9)),
    "delete": lambda m, new: m.__delitem__(1),
    "delete some": lambda m, new: m.__delitem__(slice(0, 2)),
    "pop": lambda m, new: m.pop(1),
    "out of range": lambda m, new: m[5],
    "set out of range": lambda m, new: m.__setitem__(5, new(9)),
    "slice": lambda m, new: m[1:],
    "backwards": lambda m, new: m[::-1],
    "last": lambda m, new: m[-1],
}


@pytest.mark.parametrize("action", ROW_ACTIONS)
@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_modules_in_a_row_are_torchs(kind, action):
    results = []
    for library in (instnorm, torch):
        layers = labelled(library, 1, 2, 3)
        container = getattr(library.nn, kind)(*([layers] if kind == "ModuleList" else layers))
        try:
            returned = ROW_ACTIONS[action](container, lambda n: library.nn.Linear(n, 1))  # noqa: B023
        except IndexError:
            returned = "IndexError"
        results.append((repr(returned), repr(container), list(container.state_dict())))
    assert results[0] == results[1]


def test_module_dict_is_torchs():
    results = []
    for library in (instnorm, torch):
        one, two = labelled(library, 1, 2)
        container = library.nn.ModuleDict({"one": one})
        container["two"] = two
        container.update({"act": library.nn.ReLU(), "one": two})
        results.append(
            (
                repr(container),
                list(container),
                list(container.keys()),
                len(container),
                "act" in container,
                list(container.state_dict()),
                repr(container.pop("act")),
                [name for name, _ in container.items()],
                [repr(module) for module in container.values()],
                container["one"] is two,
            )
        )
        del container["one"]
        results[-1] += (repr(container),)
        container.clear()
        results[-1] += (repr(container),)
    assert results[0] == results[1]


def test_containers_take_modules_only():
    for call in (
        lambda: nn.ModuleList([1]),
        lambda: nn.ModuleDict({"a": 1}),
        lambda: nn.Sequential(nn.ReLU()).insert(0, 1),
    ):
        with pytest.raises(TypeError, match=r"module must be a Module( or None)?, got int"):
            call()


# --- dropout, batch norm, embedding -------------------------------------------------


def test_dropout_is_for_training():
    layer, x = nn.Dropout(0.4), leaf(np.ones((50, 40)))
    assert (layer(x).data == 0).mean() == pytest.approx(0.4, abs=0.05)
    assert layer.eval()(x) is x
    with pytest.raises(ValueError, match="p must be from 0 to 1, got -1"):
        nn.Dropout(-1)


def test_dropout2d_is_for_training():
    layer, x = nn.Dropout2d(0.4), leaf(np.ones((50, 40, 2, 2)))
    dropped = (layer(x).data == 0).reshape(2000, 4)
    assert (dropped.all(1) == dropped.any(1)).all()
    assert dropped.mean() == pytest.approx(0.4, abs=0.05)
    assert layer.eval()(x) is x


BATCH_NORM_ERRORS = {
    "rank": (lambda: nn.BatchNorm2d(3)(np.ones((3, 4, 4))), r"expected 4D input \(got 3D"),
    "ranks": (lambda: nn.BatchNorm1d(3)(np.ones(3)), "expected 2D or 3D input"),
    "channels": (lambda: nn.BatchNorm1d(3)(np.ones((2, 4))), "expected 3 channels on axis 1"),
    "one value": (lambda: nn.BatchNorm1d(3)(np.ones((1, 3))), "more than 1 value per channel"),
    "groups": (lambda: nn.GroupNorm(2, 3), "num_channels must be divisible by num_groups"),
    "padding": (lambda: nn.Embedding(3, 2, padding_idx=3), "padding_idx must be from -3 to 2"),
}


@pytest.mark.parametrize("name", BATCH_NORM_ERRORS)
def test_errors_of_norms_and_embedding(name):
    call, message = BATCH_NORM_ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_embedding_is_torchs():
    ours, theirs = nn.Embedding(6, 3, padding_idx=-2), torch.nn.Embedding(6, 3, padding_idx=-2)
    assert repr(ours) == repr(theirs)
    assert not ours.weight.data[4].any()
    assert np.delete(ours.weight.data, 4, axis=0).all()
    ours.load_state_dict(theirs.state_dict())
    numbers = np.array([[0, 4, 5], [5, 5, 1]])
    assert_same(ours(numbers), theirs(torch.tensor(numbers)), [ours.weight], [theirs.weight])


def test_half_precision_of_layers_of_float32():
    """As torch's: the result keeps the input's dtype."""
    x = normal(2, 4, 3).astype(np.float16)
    for layer in (nn.GroupNorm(2, 4), nn.LayerNorm(3), nn.BatchNorm1d(4)):
        assert layer(x).dtype == np.float16


# --- hooks -------------------------------------------------------------------------------


def hooked(library):
    """What hooks see, and what their replacements lead to."""
    seen = []
    layer, net = library.nn.Tanh(), library.nn.Sequential(library.nn.Tanh())
    net.append(layer)
    handles = [
        layer.register_forward_pre_hook(lambda m, args: seen.append(("pre", args[0].tolist()))),
        layer.register_forward_pre_hook(lambda m, args: args[0] * 2),
        layer.register_forward_hook(lambda m, args, y: seen.append(("post", args[0].tolist()))),
        layer.register_forward_hook(lambda m, args, y: y + 1),
        layer.register_full_backward_hook(
            lambda m, gi, go: seen.append(("back", gi[0].tolist(), go[0].tolist()))
        ),
        layer.register_full_backward_hook(lambda m, gi, go: (gi[0] * 10,)),
    ]
    x = library.tensor([0.25, -0.5], dtype=library.float64, requires_grad=True)
    for _ in range(2):
        y = net(x)
        (y * y).sum().backward()
        seen.append((y.tolist(), x.grad.tolist()))
        handles[1].remove()
        handles.pop().remove()
    for handle in handles:
        handle.remove()
    seen.append(net(x).tolist())
    return seen


def flat(entries):
    for entry in entries:
        yield from flat(entry) if isinstance(entry, list | tuple) else [entry]


def test_hooks_of_modules_are_torchs():
    ours, theirs = hooked(instnorm), hooked(torch)
    assert [entry[0] for entry in ours[:-1]][:3] == ["pre", "post", "back"]
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        assert a == (b if isinstance(b, str) else pytest.approx(b, rel=1e-12))


def test_backward_hooks_see_all_inputs_and_outputs():
    class Two(nn.Module):
        def forward(self, a, factor, b):
            return a * factor, a + b

    seen, layer = [], Two()
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    a, b = leaf([2.0]), Tensor([5.0])
    product, total = layer(a, 3.0, b)
    (product + total * 2).sum().backward()
    ((grad_a, grad_factor, grad_b), grad_outputs) = seen[0]
    assert grad_a.tolist() == a.grad.tolist() == [5]
    assert grad_factor is grad_b is None
    assert [g.tolist() for g in grad_outputs] == [[1], [2]]


def test_hooks_are_copied_with_the_module_and_run_in_lazy_ones():
    seen = []
    layer = nn.LazyInstanceNorm1d()
    layer.register_forward_hook(lambda m, args, y: seen.append(type(m).__name__))
    layer(normal(2, 3, 4))
    layer(normal(2, 3, 4))
    copy.deepcopy(layer)(normal(2, 3, 4))
    assert seen == ["InstanceNorm1d"] * 3


# --- clipping ------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_type", [2.0, 1.0, np.inf, 3.0])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm_is_torchs(norm_type, max_norm):
    ours = [leaf(normal(2, 3)), leaf(normal(4)), leaf(normal(1))]
    theirs = [torch_leaf(a.data) for a in ours]
    for a, t in zip(ours[:2], theirs[:2], strict=True):
        gradient = normal(*a.shape, seed=1)
        a.grad, t.grad = Tensor(gradient.copy()), torch_tensor(gradient)
    total = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert_close(total, expected)
    for a, t in zip(ours[:2], theirs[:2], strict=True):
        assert_close(a.grad, t.grad)
    assert ours[2].grad is None


def test_clip_grad_norm_at_the_edges():
    w = leaf([1.0])
    assert nn.utils.clip_grad_norm_([w], 1.0).item() == 0
    w.grad = Tensor([np.inf]).double()
    with pytest.raises(RuntimeError, match="total norm of the gradients is inf"):
        nn.utils.clip_grad_norm_(w, 1.0, error_if_nonfinite=True)


def test_clip_grad_value_is_torchs():
    results = []
    for library in (instnorm, torch):
        w = library.tensor([1.0, 2.0, 3.0], requires_grad=True)
        (w * library.tensor([5.0, -5.0, 0.1])).sum().backward()
        library.nn.utils.clip_grad_value_([w, library.zeros(1, requires_grad=True)], 0.5)
        results.append(w.grad.tolist())
    assert results[0] == pytest.approx(results[1])


def test_a_module_is_found_by_its_dotted_name():
    net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1), nn.ReLU()))
    assert net.get_submodule("1.0") is net[1][0]
    assert net.get_submodule("") is net
    with pytest.raises(AttributeError, match=r"Sequential has no submodule '1\.2'"):
        net.get_submodule("1.2")


def test_truncated_normal_numbers():
    instnorm.manual_seed(0)
    values = nn.init.trunc_normal_(instnorm.empty(5000), mean=1.0, std=2.0, a=-1.0, b=2.0)
    expected = torch.nn.init.trunc_normal_(torch.empty(5000), mean=1.0, std=2.0, a=-1.0, b=2.0)
    assert -1 <= values.min().item() < -0.95
    assert 1.95 < values.max().item() <= 2
    assert values.mean().item() == pytest.approx(expected.mean().item(), abs=0.05)
    assert values.std().item() == pytest.approx(expected.std().item(), abs=0.05)
    with pytest.raises(ValueError, match=r"mean=0.0 must be within 2 std=1.0 of"):
        nn.init.trunc_normal_(instnorm.empty(2), a=3.0, b=4.0)


def test_an_initializer_that_there_is_not_names_the_nearest():
    with pytest.raises(AttributeError, match=r"orthogonal_.*nearest: tensor.copy_"):
        nn.init.orthogonal_  # noqa: B018
