"""The task `photo`: restore faded, colour-cast, noisy photographs; scikit-learn's two.

Of each photograph the left part is trained on, and the right part tested on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from instnorm import functional as F
from instnorm import instance_norm, nn, no_grad
from instnorm._layouts import Array
from instnorm.demo.task import Defaults, Learner, Task
from instnorm.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLIT_COLUMN = 448  # of 640
CROP = 64
CROPS_PER_EPOCH = 128
TEST_SIZE = 192
TEST_COPIES = 2  # of each test image, each spoiled differently

# Every channel of a spoiled image fills a random part of the range from 0 to 1, of a
# random width from this on; then there is noise of this standard deviation.
LEAST_CONTRAST = 0.3
NOISE = 0.04

# The target has this mean and standard deviation in each channel: balanced colours and
# full contrast. Nets see and make pixels in units of it.
MEAN, STD = 0.5, 0.2
# Added to a crop's variance, so that the grain of an even sky is not blown up.
FLATNESS = 4e-4

TEST_SEED = 2


class Photo(Task):
    """Restore a photograph: balance its colours, stretch its contrast, remove the noise.

    Attributes
    ----------
    photographs : list of ndarray of shape (3, 427, 448)
        What is trained on.
    test_inputs, test_targets : ndarray of shape (8, 3, 192, 192)
    """

    name: ClassVar[str] = "photo"
    defaults: ClassVar[Defaults] = Defaults(epochs=6, lr=0.03, momentum=0.9, batch_size=4)
    measures: ClassVar[Mapping[str, str]] = {"psnr": "PSNR after"}

    def __init__(self, dtype: np.dtype[Any]) -> None:
        from sklearn.datasets import load_sample_images

        images = [
            (image / 255).transpose(2, 0, 1).astype(dtype) for image in load_sample_images().images
        ]
        self.photographs = [image[:, :, :SPLIT_COLUMN] for image in images]
        self.samples = CROPS_PER_EPOCH
        clean = np.stack(
            [
                image[:, rows, SPLIT_COLUMN:]
                for image in images
                for rows in (slice(TEST_SIZE), slice(-TEST_SIZE, None))
            ]
            * TEST_COPIES
        )
        self.test_targets = balanced(clean, FLATNESS)
        self.test_inputs = spoiled(clean, np.random.default_rng(TEST_SEED))

    @staticmethod
    def make_net(norm: bool) -> nn.Module:
        """Make the residual net."""
        return RestorationNet(norm)

    def batches(self, seed: int, epoch: int, batch_size: int) -> Iterator[tuple[Array, Array]]:
        """Yield crops at random places, spoiled at random: both depend on seed and epoch."""
        rng = np.random.default_rng([seed, epoch])
        for start in range(0, self.samples, batch_size):
            count = min(batch_size, self.samples - start)
            clean = np.stack([self._crop(rng) for _ in range(count)])
            yield spoiled(clean, rng), balanced(clean, FLATNESS)

    def _crop(self, rng: np.random.Generator) -> Array:
        photograph = self.photographs[rng.integers(len(self.photographs))]
        top, left = (rng.integers(size - CROP + 1) for size in photograph.shape[1:])
        crop: Array = photograph[:, top : top + CROP, left : left + CROP]
        return crop[:, :, ::-1] if rng.random() < 0.5 else crop

    def loss(self, output: Tensor, target: Array) -> Tensor:
        """Absolute error, which blurs less than the squared one."""
        return F.l1_loss(output, target)

    score_name = "PSNR"

    def score(self, output: Array, target: Array) -> float:
        """PSNR of the batch."""
        return float(psnr(output, target).mean())

    def measure(self, net: nn.Module) -> dict[str, float]:
        """Mean PSNR over the test images."""
        return {"psnr": float(psnr(restored(net, self.test_inputs), self.test_targets).mean())}

    def shown(self, value: float) -> str:
        """Write a PSNR."""
        return f"{value:.1f} dB"

    def reference_rows(self) -> Mapping[str, str]:
        """PSNR of the inputs, and of what takes no training."""
        levels = balanced(from_units(self.test_inputs))
        return {
            "PSNR before": self.shown(float(psnr(self.test_inputs, self.test_targets).mean())),
            "PSNR of automatic levels": self.shown(float(psnr(levels, self.test_targets).mean())),
        }

    def describe(self) -> str:
        """Tell what is trained and tested on."""
        return (
            f"Crops of {CROP} x {CROP} pixels from the left of two photographs to train on, "
            f"{len(self.test_inputs)} of {TEST_SIZE} x {TEST_SIZE} from\nthe right to test on. "
            "Automatic levels: each channel's mean and spread set right, the noise left."
        )

    def pictures(self, learners: list[Learner]) -> Mapping[str, Figure]:
        """Draw the curves, and test images before and after."""
        from instnorm.demo import pictures

        shown = slice(len(self.test_inputs) // TEST_COPIES)
        inputs, targets = self.test_inputs[shown], self.test_targets[shown]
        columns = {"input": inputs, "automatic levels": balanced(from_units(inputs))}
        columns.update({learner.name: restored(learner.net, inputs) for learner in learners})
        return {
            "curves": pictures.curves(
                learners, {"psnr": "held-out images"}, measure_label="PSNR (dB)"
            ),
            "pictures": pictures.before_and_after(
                {name: from_units(images) for name, images in columns.items()},
                {name: psnr(images, targets) for name, images in columns.items()},
                from_units(targets),
            ),
        }


class RestorationNet(nn.Module):
    """The input, normalized, plus what a few convolutions around a bottleneck make of it.

    Parameters
    ----------
    norm : bool
        Whether there is instance norm, on the input and after the convolutions.
    width : int, default 12
        Channels at full resolution.
    """

    def __init__(self, norm: bool, width: int = 12) -> None:
        super().__init__()

        def normalization(channels: int) -> nn.Module:
            return nn.InstanceNorm2d(channels, affine=True) if norm else nn.Identity()

        def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
            return nn.Conv2d(inputs, outputs, 3, stride, padding=1, padding_mode="reflect")

        def block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
            return [conv(inputs, outputs, stride), normalization(outputs), nn.ReLU()]

        self.normalize = normalization(3)
        self.correction = nn.Sequential(
            *block(3, width),
            *block(width, 2 * width, stride=2),
            *block(2 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            *block(2 * width, width),
            conv(width, 3),
        )

    def forward(self, input: Tensor | Array) -> Tensor:
        """Restore (N, 3, H, W), H and W even."""
        normalized: Tensor = self.normalize(input)
        corrected: Tensor = normalized + self.correction(normalized)
        return corrected


# Images come in two scales: from 0 to 1, as on a screen, and in the target's units.


def from_units(images: Array) -> Array:
    """From the target's units to the scale from 0 to 1."""
    return images * STD + MEAN


def balanced(images: Array, flatness: float = 0.0) -> Array:
    """Set every channel's mean and spread to the target's, in its units: 0 and 1."""
    return instance_norm(images, eps=flatness)


def spoiled(clean: Array, rng: np.random.Generator) -> Array:
    """Fade, cast and add noise, at random; from the scale 0 to 1 to the target's units."""
    contrast = rng.uniform(LEAST_CONTRAST, 1, (len(clean), 3, 1, 1))
    darkest = rng.uniform(0, 1 - contrast)
    images = contrast * clean + darkest + NOISE * rng.standard_normal(clean.shape)
    return ((images - MEAN) / STD).astype(clean.dtype)


def restored(net: nn.Module, images: Array) -> Array:
    """Apply the net to one image at a time, which takes little memory."""
    with no_grad():
        outputs: list[Tensor] = [net(image[None]) for image in images]
    return np.concatenate([output.numpy() for output in outputs])


def psnr(images: Array, targets: Array) -> Array:
    """Peak signal-to-noise ratio of each image on the screen, in decibels."""
    on_screen, wanted = (np.clip(from_units(a.astype(np.float64)), 0, 1) for a in (images, targets))
    squared_error: Array = np.square(on_screen - wanted).mean(axis=(1, 2, 3))
    return -10 * np.log10(np.maximum(squared_error, np.finfo(np.float64).tiny))
