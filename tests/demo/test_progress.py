"""The progress bar of `instnorm train`: what it tells is of the epoch so far."""

from collections.abc import Iterator

import numpy as np
import pytest
import tqdm

from instnorm import nn, optim
from instnorm.demo.checkpoint import Settings
from instnorm.demo.digits import Digits
from instnorm.demo.photo import Photo
from instnorm.demo.task import Learner
from instnorm.demo.training import train


class Recorded(tqdm.tqdm):
    """A progress bar that is not shown."""

    told: list[str]

    def __init__(self, **options):
        super().__init__(**options, disable=True)
        type(self).told = []

    def set_postfix_str(self, s="", refresh=True):
        self.told.append(s)


class TwoBatches(Digits):
    """Nine samples of class 1, then a batch of one that the net gets right."""

    samples = 10

    def __init__(self, dtype):
        pass

    def batches(self, seed, epoch, batch_size) -> Iterator:
        images = np.zeros((9, 4), np.float32)
        yield images, np.ones(9, np.int64)
        yield images[:1], np.zeros(1, np.int64)

    def measure(self, net):
        return {"plain": 0.0, "shifted": 0.0}


def test_the_accuracy_is_that_of_the_epoch_so_far(monkeypatch):
    monkeypatch.setattr(tqdm, "tqdm", Recorded)
    net = nn.Linear(4, 3)
    nn.init.zeros_(net.weight)
    net.bias.data[...] = [1, 0, 0]
    learner = Learner(
        "plain", net, optim.SGD(net.parameters(), 0), {"loss": [], "plain": [], "shifted": []}
    )
    settings = Settings("digits", 0, "float32", 0.1, 0.9, 9)
    train(TwoBatches(np.dtype("f4")), settings, [learner], range(1), lambda epoch: None)
    first, second = Recorded.told
    assert first.endswith("accuracy 0.0 %")
    assert second.endswith("accuracy 10.0 %")
    assert f"loss {learner.history['loss'][0]:.4f}" in second


@pytest.mark.parametrize("task", [Digits, Photo])
def test_the_score_of_a_batch_is_a_mean(task):
    """So that means of batches can be weighed by their sizes."""
    rng = np.random.default_rng(0)
    shape, target = ((8, 10), rng.integers(0, 10, 8)) if task is Digits else ((8, 3, 4, 4),) * 2
    output = rng.standard_normal(shape)
    target = target if task is Digits else rng.standard_normal(shape)
    score = task.score(task, output, target)
    halves = [task.score(task, output[half], target[half]) for half in (slice(4), slice(4, 8))]
    assert score == pytest.approx(np.mean(halves))
