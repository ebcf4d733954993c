"""A whole training run beside PyTorch: the same net, weights and batches give the same losses."""

import numpy as np
import pytest
import torch
from beside_torch import LAYOUTS, torch_tensor
from sklearn.datasets import load_digits

import instnorm

STEPS, BATCH = 50, 64


def digits():
    """Images (N, 1, 8, 8) from 0 to 1, and what they show."""
    data = load_digits()
    return data.images[:, None].astype(np.float32) / 16, data.target


def network(nn, dtype):
    """Conv, norm, ReLU, pool, conv, norm, ReLU, linear: in either library."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, dtype=dtype),
        nn.InstanceNorm2d(16, affine=True, dtype=dtype),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, dtype=dtype),
        nn.InstanceNorm2d(32, track_running_stats=True, dtype=dtype),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10, dtype=dtype),
    )


def pair(dtype):
    torch.manual_seed(0)
    theirs = network(torch.nn, getattr(torch, np.dtype(dtype).name))
    ours = network(instnorm.nn, dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def train(ours, theirs, dtype, layout="contiguous", **options):
    """The losses of both at every step."""
    images, target = digits()
    our_optimizer = instnorm.optim.SGD(ours.parameters(), **options)
    their_optimizer = torch.optim.SGD(theirs.parameters(), **options)
    our_loss, their_loss = instnorm.nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()
    order = np.random.default_rng(0).permutation(len(images))
    losses = []
    for step in range(STEPS):
        chosen = np.take(order, range(step * BATCH, (step + 1) * BATCH), mode="wrap")
        x, y = LAYOUTS[layout](images[chosen].astype(dtype)), target[chosen]

        loss = our_loss(ours(x), y)
        our_optimizer.zero_grad()
        loss.backward()
        our_optimizer.step()

        expected = their_loss(theirs(torch_tensor(x)), torch.tensor(y))
        their_optimizer.zero_grad()
        expected.backward()
        their_optimizer.step()
        losses.append((loss.item(), expected.item()))
    return np.array(losses).T


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.05, "momentum": 0.9},
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    ],
    ids=["momentum", "nesterov"],
)
def test_fifty_steps_give_torchs_losses(options):
    ours, theirs = pair(np.float32)
    losses, expected = train(ours, theirs, np.float32, **options)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=0)
    assert losses[-5:].mean() < 0.2 * losses[0]  # it did learn
    for name, value in ours.state_dict().items():
        np.testing.assert_allclose(value, theirs.state_dict()[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "strided"])
def test_in_float64_the_losses_are_the_same_to_rounding(layout):
    ours, theirs = pair(np.float64)
    losses, expected = train(ours, theirs, np.float64, layout, lr=0.05, momentum=0.9)
    np.testing.assert_allclose(losses, expected, rtol=1e-11, atol=0)


def test_the_trained_networks_evaluate_alike():
    ours, theirs = pair(np.float32)
    train(ours, theirs, np.float32, lr=0.05, momentum=0.9)
    images, target = digits()
    ours.eval()
    theirs.eval()
    with instnorm.no_grad(), torch.no_grad():
        scores, expected = ours(images).data, theirs(torch_tensor(images)).numpy()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert (scores.argmax(1) == expected.argmax(1)).all()
    assert (scores.argmax(1) == target).mean() > 0.9
