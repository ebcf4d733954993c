"""Adam and AdamW: torch's trajectory to rounding, their options and state."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from helpers.beside_torch import torch
from helpers.tensors import normal

from instnorm import Tensor, optim

pytestmark = pytest.mark.torch

KINDS = ["Adam", "AdamW"]
GRID = [
    {"lr": 0.05, "weight_decay": decay, "amsgrad": amsgrad, "maximize": maximize, "betas": betas}
    for decay, amsgrad, maximize, betas in itertools.product(
        (0, 0.1), (False, True), (False, True), ((0.9, 0.999), (0.0, 0.5))
    )
]


def both(kind, dtype=np.float64, **options):
    arrays = [np.asarray(normal(*shape), dtype) for shape in ((4, 3), (5,), ())]
    ours = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    return getattr(optim, kind)(ours, **options), getattr(torch.optim, kind)(theirs, **options)


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def run(optimizers, steps):
    for step in steps:
        for i, (a, t) in enumerate(zip(*map(parameters, optimizers), strict=True)):
            # Now and then a parameter has no gradient, and its own count of steps.
            g = None if (step + i) % 5 == 0 else normal(*a.shape, seed=100 * step + i)
            a.grad = None if g is None else Tensor(np.asarray(g, a.dtype))
            t.grad = None if g is None else torch.tensor(np.asarray(g, a.dtype))
        for optimizer in optimizers:
            optimizer.step()


def assert_same(optimizers, eps):
    for a, t in zip(*map(parameters, optimizers), strict=True):
        expected = t.detach().numpy()
        tolerance = eps * np.finfo(a.dtype).eps
        np.testing.assert_allclose(a.data, expected, rtol=tolerance, atol=tolerance)
        assert a.dtype == expected.dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", GRID, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_trajectory_is_torchs(kind, options, dtype):
    optimizers = both(kind, dtype, **options)
    for step in range(20):
        run(optimizers, [step])
        assert_same(optimizers, 8 * (step + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_are_torchs(kind):
    ours, theirs = both(kind)
    assert {k: theirs.defaults[k] for k in ours.defaults} == ours.defaults


@pytest.mark.parametrize("source", ["ours", "torch's", "pickled"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_taken_over(kind, source):
    before = both(kind, lr=0.1, amsgrad=True)
    run(before, range(4))
    state = before[source == "torch's"].state_dict()
    state = pickle.loads(pickle.dumps(state)) if source == "pickled" else copy.deepcopy(state)
    after = getattr(optim, kind)(parameters(before[0]), lr=7.0)
    after.load_state_dict(state)
    run((after, before[1]), range(4, 8))
    assert_same((after, before[1]), 64)


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_of_the_state_is_torchs(kind):
    optimizers = both(kind, amsgrad=True)
    run(optimizers, range(3))
    ours, theirs = (optimizer.state_dict() for optimizer in optimizers)
    assert ours["state"].keys() == theirs["state"].keys()
    for number, entry in ours["state"].items():
        assert sorted(entry) == sorted(theirs["state"][number])
        assert entry["step"] == theirs["state"][number]["step"].item()
    # torch takes it over, too.
    for entry in ours["state"].values():
        entry.update({k: torch.tensor(v) for k, v in entry.items()})
    optimizers[1].load_state_dict({**theirs, "state": ours["state"]})
    run(optimizers, range(3, 5))
    assert_same(optimizers, 64)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -1}, ValueError, "lr must be finite and at least 0, got -1"),
        ({"eps": float("nan")}, ValueError, "eps must be finite"),
        ({"weight_decay": "some"}, TypeError, "weight_decay must be a number, got str"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas must be two numbers from 0 .* got \(0.9, 1.0"),
        ({"betas": (0.9,)}, ValueError, "betas must be two numbers"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_options(kind, options, error, message):
    with pytest.raises(error, match=message):
        getattr(optim, kind)([Tensor(1.0)], **options)


def test_a_closure_computes_the_gradients_and_its_loss_is_returned():
    w = Tensor(np.ones(2), requires_grad=True)
    optimizer = optim.Adam([w], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert w.tolist() == pytest.approx([0.5, 0.5])


def test_what_is_left_out_says_what_is_nearest():
    with pytest.raises(AttributeError, match="nearest: Adam"):
        optim.RMSprop  # noqa: B018
