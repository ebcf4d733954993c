"""Training runs beside PyTorch: same net, same first weights, same batches, same losses."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import instnorm

STEPS, BATCH = 50, 32


def net_of(nn, norm):
    def layer(channels):
        return nn.InstanceNorm2d(channels, affine=True) if norm else nn.Identity()

    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        layer(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        layer(16),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 10),
    )


def losses(net, optimizer, cross_entropy, wrap):
    digits = load_digits()
    images, labels = (digits.images[:, None] / 16).astype(np.float32), digits.target
    rng, history = np.random.default_rng(0), []
    for _ in range(STEPS):
        batch = rng.integers(0, len(images), BATCH)
        optimizer.zero_grad()
        loss = cross_entropy(net(wrap(images[batch])), wrap(labels[batch]))
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return np.array(history)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    "options",
    [{"lr": 0.02}, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}],
)
def test_fifty_steps_give_pytorchs_losses(norm, options):
    torch.manual_seed(0)
    theirs, ours = net_of(torch.nn, norm), net_of(instnorm.nn, norm)
    ours.load_state_dict(theirs.state_dict())
    expected = losses(
        theirs,
        torch.optim.SGD(theirs.parameters(), **options),
        torch.nn.functional.cross_entropy,
        torch.from_numpy,
    )
    got = losses(
        ours,
        instnorm.optim.SGD(ours.parameters(), **options),
        instnorm.functional.cross_entropy,
        instnorm.Tensor,
    )
    assert expected[-10:].mean() < 0.8 * expected[:10].mean(), "the net must learn something"
    np.testing.assert_allclose(got, expected, rtol=1e-4)
