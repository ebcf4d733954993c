"""The task `digits`: scikit-learn's handwritten digits, 8 x 8 pixels.

The test images come twice: as they are, and *shifted*, each with a contrast and a
brightness of its own, which the training images never have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from instnorm import functional as F
from instnorm import nn, no_grad
from instnorm._layouts import Array
from instnorm.demo.task import Defaults, Learner, Task
from instnorm.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEST_IMAGES = 450
CLASSES = 10

# A pixel is from 0 (paper) to 1 (ink); shifted, it is contrast * pixel + brightness.
CONTRAST = 3.0  # from 1/3 to 3
BRIGHTNESS = 1.0  # from -1 to 1

# The split and the shifts are part of the task: no option changes them.
SPLIT_SEED = 0
SHIFT_SEED = 1


class Digits(Task):
    """Read a digit, whatever its contrast and brightness.

    Attributes
    ----------
    train_images, test_images, shifted_images : ndarray of shape (N, 1, 8, 8)
    train_labels, test_labels : ndarray of shape (N,)
    """

    name: ClassVar[str] = "digits"
    defaults: ClassVar[Defaults] = Defaults(epochs=15, lr=0.03, momentum=0.9, batch_size=32)
    measures: ClassVar[Mapping[str, str]] = {
        "plain": "accuracy, plain",
        "shifted": "accuracy, shifted",
    }

    def __init__(self, dtype: np.dtype[Any]) -> None:
        from sklearn.datasets import load_digits

        data = load_digits()
        images = (data.images / 16).astype(dtype)[:, None]
        order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
        test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
        self.train_images, self.train_labels = images[train], data.target[train]
        self.test_images, self.test_labels = images[test], data.target[test]
        self.shifted_images = shifted(self.test_images)
        self.samples = len(train)

    @staticmethod
    def make_net(norm: bool) -> nn.Module:
        """Make three convolutions and a linear layer.

        The norm follows the convolutions. Their padding is by reflection: a border of
        zeros would tell the brightness of an image from that of its surroundings, and
        its contrast from nothing.
        """

        def conv(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect"),
                nn.InstanceNorm2d(outputs, affine=True) if norm else nn.Identity(),
                nn.ReLU(),
            ]

        return nn.Sequential(
            *conv(1, 16),
            *conv(16, 32),
            nn.MaxPool2d(2),
            *conv(32, 32),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 2 * 2, CLASSES),
        )

    def batches(self, seed: int, epoch: int, batch_size: int) -> Iterator[tuple[Array, Array]]:
        """Yield the training images in an order that depends on seed and epoch."""
        order = np.random.default_rng([seed, epoch]).permutation(self.samples)
        for start in range(0, self.samples, batch_size):
            batch = order[start : start + batch_size]
            yield self.train_images[batch], self.train_labels[batch]

    def loss(self, output: Tensor, target: Array) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(output, target)

    score_name = "accuracy"

    def score(self, output: Array, target: Array) -> float:
        """Accuracy on the batch."""
        return accuracy(output, target)

    def measure(self, net: nn.Module) -> dict[str, float]:
        """Accuracy on the test images, plain and shifted."""
        return {
            "plain": accuracy(scores(net, self.test_images), self.test_labels),
            "shifted": accuracy(scores(net, self.shifted_images), self.test_labels),
        }

    def shown(self, value: float) -> str:
        """Write an accuracy in percent."""
        return f"{100 * value:.1f} %"

    def describe(self) -> str:
        """Tell the numbers of images, and what 'shifted' means."""
        return (
            f"{self.samples} images to train on, {len(self.test_labels)} to test on. "
            f"Shifted: each test image with\na contrast from 1/{CONTRAST:g} to {CONTRAST:g} and a "
            f"brightness from -{BRIGHTNESS:g} to {BRIGHTNESS:g} of its own, never seen in training."
        )

    def pictures(self, learners: list[Learner]) -> Mapping[str, Figure]:
        """Draw the curves, and one test image of each class with the predictions."""
        from instnorm.demo import pictures

        first = [int(np.argmax(self.test_labels == label)) for label in range(CLASSES)]
        sets = {"plain": self.test_images[first], "shifted": self.shifted_images[first]}
        return {
            "curves": pictures.curves(
                learners,
                {"plain": "plain test images", "shifted": "shifted test images"},
                measure_label="accuracy (%)",
                measure_scale=100,
            ),
            "predictions": pictures.predictions(
                sets,
                {
                    learner.name: {
                        kind: scores(learner.net, images).argmax(axis=1)
                        for kind, images in sets.items()
                    }
                    for learner in learners
                },
                self.test_labels[first],
            ),
        }


def shifted(images: Array) -> Array:
    """Give each image a random contrast and brightness; the same ones each time."""
    rng = np.random.default_rng(SHIFT_SEED)
    shape = (len(images), 1, 1, 1)
    log_contrast = rng.uniform(-math.log(CONTRAST), math.log(CONTRAST), shape)
    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS, shape)
    return (np.exp(log_contrast) * images + brightness).astype(images.dtype)


def scores(net: nn.Module, images: Array) -> Array:
    """One row of class scores for each image."""
    with no_grad():
        output: Tensor = net(images)
    return output.numpy()


def accuracy(class_scores: Array, labels: Array) -> float:
    """Return the share of images whose highest score is that of their label."""
    return float((class_scores.argmax(axis=1) == labels).mean())
