"""SGD: torch's trajectory to rounding, its options, groups and state."""

import copy
import itertools
import pickle
import re

import numpy as np
import pytest
from helpers.beside_torch import torch
from helpers.tensors import normal

from instnorm import Tensor, nn, optim

pytestmark = pytest.mark.torch

SHAPES = [(4, 3), (5,), (), (2, 3, 2, 2)]

GRID = [
    {
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "maximize": maximize,
    }
    for momentum, dampening, weight_decay, nesterov, maximize in itertools.product(
        (0, 0.9), (0, 0.3), (0, 0.01), (False, True), (False, True)
    )
    if not nesterov or (momentum and not dampening)
]


def described(options):
    return ", ".join(f"{name}={value}" for name, value in options.items())


def parameters(dtype=np.float64):
    """The same parameters in both libraries."""
    arrays = [np.asarray(normal(*shape), dtype) for shape in SHAPES]
    ours = [Tensor(np.array(a), requires_grad=True) for a in arrays]
    return ours, [torch.tensor(a, requires_grad=True) for a in arrays]


def give_gradients(ours, theirs, step):
    """Random ones; now and then a parameter has none."""
    for i, (a, t) in enumerate(zip(ours, theirs, strict=True)):
        if (step + i) % 5 == 0:
            a.grad = t.grad = None
            continue
        gradient = np.asarray(normal(*a.shape, seed=100 * step + i), a.dtype)
        a.grad, t.grad = Tensor(gradient.copy()), torch.tensor(gradient)


def assert_same_parameters(ours, theirs, ulps):
    for a, t in zip(ours, theirs, strict=True):
        expected = t.detach().numpy()
        assert a.dtype == expected.dtype
        scale = max(1, np.abs(expected).max())
        error = np.abs(a.data - expected).max()
        assert error <= ulps * np.finfo(a.dtype).eps * scale


# --- the trajectory -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", GRID, ids=described)
def test_the_trajectory_is_torchs(options, dtype):
    ours, theirs = parameters(dtype)
    optimizers = optim.SGD(ours, lr=0.1, **options), torch.optim.SGD(theirs, lr=0.1, **options)
    for step in range(20):
        give_gradients(ours, theirs, step)
        for optimizer in optimizers:
            optimizer.step()
        assert_same_parameters(ours, theirs, ulps=step + 2)


def test_the_defaults_are_torchs():
    ours, theirs = parameters()
    optimizers = optim.SGD(ours), torch.optim.SGD(theirs)
    for name, value in optimizers[0].defaults.items():
        assert optimizers[1].defaults[name] == value
    give_gradients(ours, theirs, 1)
    for optimizer in optimizers:
        optimizer.step()
    assert_same_parameters(ours, theirs, 1)


def test_positional_options_have_torchs_order():
    ours, theirs = parameters()
    options = (0.1, 0.9, 0.0, 0.01, True)
    optimizers = optim.SGD(ours, *options), torch.optim.SGD(theirs, *options)
    for name, value in optimizers[0].defaults.items():
        assert optimizers[1].defaults[name] == value
    with pytest.raises(TypeError, match="positional"):
        optim.SGD(ours, *options, True)


def test_minimizing_a_loss():
    """From gradients that autograd computes, where errors would feed back."""
    arrays = normal(6, 3), normal(3, 2, seed=1), normal(6, 2, seed=2)
    w = Tensor(arrays[1].copy(), requires_grad=True)
    t = torch.tensor(arrays[1], requires_grad=True)
    options = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
    ours, theirs = optim.SGD([w], **options), torch.optim.SGD([t], **options)
    first = None
    for _ in range(40):
        loss = (((Tensor(arrays[0]) @ w).tanh() - arrays[2]) ** 2).mean()
        ours.zero_grad()
        loss.backward()
        ours.step()
        expected = (((torch.tensor(arrays[0]) @ t).tanh() - torch.tensor(arrays[2])) ** 2).mean()
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        first = first or loss.item()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert loss.item() < 0.9 * first


def groups(params):
    return [
        {"params": params[:2], "lr": 0.3, "nesterov": True},
        {"params": params[2], "momentum": 0, "maximize": True},
        {"params": iter(params[3:]), "weight_decay": 0.1, "dampening": 0.5},
    ]


def test_groups_have_options_of_their_own():
    ours, theirs = parameters()
    optimizers = [
        library.SGD(groups(params), lr=0.1, momentum=0.8)
        for library, params in ((optim, ours), (torch.optim, theirs))
    ]
    for step in range(10):
        give_gradients(ours, theirs, step)
        for optimizer in optimizers:
            optimizer.step()
            for group in optimizer.param_groups:
                group["lr"] *= 0.9  # a schedule
    assert_same_parameters(ours, theirs, 15)


def test_groups_can_be_added():
    ours, theirs = parameters()
    for library, params in ((optim, ours), (torch.optim, theirs)):
        optimizer = library.SGD(params[:1], lr=0.1, momentum=0.5)
        optimizer.add_param_group({"params": params[1:], "lr": 1.0})
        for step in range(3):
            for i, p in enumerate(params):
                g = normal(*p.shape, seed=step + i)
                p.grad = Tensor(g) if library is optim else torch.tensor(g)
            optimizer.step()
    assert_same_parameters(ours, theirs, 10)


def test_zero_grad():
    ours, _ = parameters()
    optimizer = optim.SGD(ours)
    for p in ours[1:]:
        p.grad = Tensor(np.ones(p.shape))
    optimizer.zero_grad(set_to_none=False)
    assert ours[0].grad is None
    assert not any(p.grad.data.any() for p in ours[1:])
    optimizer.zero_grad()
    assert all(p.grad is None for p in ours)


def test_a_step_is_seen_by_the_graph_and_leaves_gradients_alone():
    w = Tensor(np.ones(3), requires_grad=True)
    loss = (w * w).sum()
    w.grad = Tensor(np.ones(3))
    optimizer = optim.SGD([w], lr=0.5, momentum=0.9, weight_decay=0.1, maximize=True)
    for _ in range(3):
        optimizer.step()
    assert w.grad.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        loss.backward()


def test_parameters_may_lie_in_memory_in_any_way():
    w = Tensor(np.asfortranarray(np.ones((3, 4)))[:, ::2], requires_grad=True)
    w.grad = Tensor(np.arange(6.0).reshape(3, 2))
    array = w.data
    optim.SGD([w], lr=1, momentum=0.9).step()
    assert w.data is array
    assert w.tolist() == [[1, 0], [-1, -2], [-3, -4]]


# --- state --------------------------------------------------------------------


def steps(optimizers, ours, theirs, numbers):
    for step in numbers:
        give_gradients(ours, theirs, step)
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("source", ["ours", "torch's", "pickled"])
def test_state_carries_on(source):
    ours, theirs = parameters()
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    before = optim.SGD(ours, **options)
    torchs = torch.optim.SGD(theirs, **options)
    steps([before, torchs], ours, theirs, range(5))
    state = before.state_dict() if source != "torch's" else torchs.state_dict()
    if source == "pickled":
        state = pickle.loads(pickle.dumps(state))

    after = optim.SGD(ours, lr=7.0)
    after.load_state_dict(state)
    steps([after, torchs], ours, theirs, range(5, 10))
    assert_same_parameters(ours, theirs, 15)


def test_loading_copies():
    ours, theirs = parameters()
    optimizer = optim.SGD(ours, lr=0.1, momentum=0.9)
    steps([optimizer], ours, theirs, range(2))
    state = copy.deepcopy(optimizer.state_dict())
    kept = copy.deepcopy(state)
    other = optim.SGD(ours, lr=0.1, momentum=0.9)
    other.load_state_dict(state)
    steps([other], ours, theirs, range(2, 4))
    for number, entry in state["state"].items():
        expected = kept["state"][number]["momentum_buffer"]
        np.testing.assert_array_equal(entry["momentum_buffer"], expected)


def test_the_form_of_the_state_is_torchs():
    ours, theirs = parameters()
    optimizers = (
        optim.SGD(groups(ours), momentum=0.9),
        torch.optim.SGD(groups(theirs), momentum=0.9),
    )
    steps(optimizers, ours, theirs, range(1, 3))
    state, expected = (optimizer.state_dict() for optimizer in optimizers)
    assert list(state) == list(expected) == ["state", "param_groups"]
    for group, its in zip(state["param_groups"], expected["param_groups"], strict=True):
        assert {k: its[k] for k in group} == group
    buffers = {k: v["momentum_buffer"] for k, v in expected["state"].items()}
    buffers = {k: v.tolist() for k, v in buffers.items() if v is not None}
    found = {k: v["momentum_buffer"].tolist() for k, v in state["state"].items()}
    assert found.keys() == buffers.keys()
    for number, values in found.items():
        np.testing.assert_allclose(values, buffers[number], rtol=1e-14)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copied_optimizer_keeps_its_momentum(copied):
    net = nn.Linear(3, 2)
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    twin_net, twin = copied((net, optimizer))
    x = normal(4, 3).astype(np.float32)
    for _ in range(2):
        for model, o in ((net, optimizer), (twin_net, twin)):
            model.zero_grad()
            (model(x) ** 2).sum().backward()
            o.step()
        twin_net, twin = copied((twin_net, twin))
    np.testing.assert_array_equal(twin_net.weight.data, net.weight.data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["param_groups"].pop(), "groups of sizes [2, 1], expected [2, 1, 1]"),
        (lambda s: s["param_groups"][0]["params"].pop(), "groups of sizes [1, 1, 1]"),
        (lambda s: s.pop("state"), "has no key 'state'"),
        (lambda s: s["state"].update({7: {}}), "the state of a parameter 7, expected numbers from"),
        (lambda s: s["state"].update({-1: {}}), "the state of a parameter -1"),
        (
            lambda s: s["state"].update({3: {"momentum_buffer": np.zeros(2)}}),
            "momentum_buffer of parameter 3 has shape (2,), expected (2, 3, 2, 2)",
        ),
        (lambda s: s["param_groups"][2].update(lr=float("nan")), "lr must be finite"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    ours, theirs = parameters()
    optimizer = optim.SGD(groups(ours), lr=0.1, momentum=0.9)
    steps([optimizer], ours, theirs, range(3))
    before = copy.deepcopy(optimizer.state_dict())
    state = copy.deepcopy(before)
    for entry in state["state"].values():
        entry["momentum_buffer"] += 1
    state["param_groups"][0]["lr"] = 0.7
    change(state)
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for number, entry in after["state"].items():
        expected = before["state"][number]["momentum_buffer"]
        np.testing.assert_array_equal(entry["momentum_buffer"], expected)


# --- bad input ----------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        *(
            ({name: value}, ValueError, f"{name} must be finite and at least 0, got {value}")
            for name in ("lr", "momentum", "weight_decay")
            for value in (-0.1, NAN, INF, -INF)
        ),
        ({"dampening": NAN}, ValueError, "dampening must be finite, got nan"),
        ({"lr": "fast"}, TypeError, "lr must be a number, got str"),
        ({"momentum": None}, TypeError, "momentum must be a number, got NoneType"),
        ({"weight_decay": [0.1]}, TypeError, "weight_decay must be a number, got list"),
        ({"nesterov": True}, ValueError, "nesterov needs a momentum and no dampening"),
        (
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            ValueError,
            "got momentum=0.9 and dampening=0.1",
        ),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        optim.SGD(parameters()[0], **options)
    with pytest.raises(error, match=re.escape(message)):
        optim.SGD([{"params": parameters()[0], **options}])


w = Tensor(np.ones(2), requires_grad=True)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([], ValueError, "params is empty"),
        (w, TypeError, "params must be an iterable of Tensors, got a Tensor"),
        ([np.ones(2)], TypeError, "params[0] must be a Tensor, got ndarray"),
        ([w, "w"], TypeError, "params[1] must be a Tensor, got str"),
        (nn.Sequential(nn.ReLU()), TypeError, "params[0] must be a Tensor, got ReLU"),
        ([w, w], ValueError, "params[1] comes twice"),
        ([{"params": [w]}, {"params": [w]}], ValueError, "params[0] comes twice"),
        ([w * 2], ValueError, "params[0] is the result of an operation, expected a leaf"),
    ],
)
def test_bad_parameters(params, error, message):
    with pytest.raises(error, match=re.escape(message)):
        optim.SGD(params)


def test_an_option_that_turns_bad_stops_the_step_before_it_starts():
    ours, theirs = parameters()
    optimizer = optim.SGD([{"params": ours[:2]}, {"params": ours[2:]}], lr=0.1)
    give_gradients(ours, theirs, 1)
    before = [p.tolist() for p in ours]
    optimizer.param_groups[1]["lr"] = NAN
    with pytest.raises(ValueError, match="lr must be finite"):
        optimizer.step()
    assert [p.tolist() for p in ours] == before


def test_repr_tells_the_options():
    assert repr(optim.SGD([w], lr=0.1, momentum=0.9)) == (
        "SGD(lr=0.1, momentum=0.9, dampening=0, weight_decay=0, nesterov=False, maximize=False, "
        "1 parameters)"
    )
