"""Segmentation of small volumes from scanners whose brightness and contrast differ.

A U-Net finds balls and rods in noise, with and without InstanceNorm3d. It is trained on volumes of
one scanner, and tested on those of another as well, which gets brighter or darker pictures.

Run it from the repository: python examples/toys/segmentation.py [--epochs N] [FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

import instnorm
import instnorm.functional as F
from instnorm import nn, optim
from instnorm.utils.data import DataLoader, TensorDataset

CLASSES = ["background", "ball", "rod"]
SIZE = 20
BRIGHTNESS = np.array([0.0, 1.0, 0.6])  # of each class


def volume(rng):
    """Return the class of each voxel of a volume with three balls and two rods."""
    z, y, x = np.ogrid[:SIZE, :SIZE, :SIZE]
    classes = np.zeros((SIZE, SIZE, SIZE), np.int64)
    for _ in range(2):  # rods along any of the axes
        centre, first = rng.uniform(2, SIZE - 2, 2)
        rod = (y - centre) ** 2 + (x - first) ** 2 < 4
        rod = np.broadcast_to(rod, classes.shape).transpose(rng.permutation(3))
        classes[rod] = 2
    for _ in range(3):
        centre, radius = rng.uniform(3, SIZE - 3, 3), rng.uniform(2, 4)
        classes[(z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2] = 1
    return classes


def scans(count, rng, other_scanner):
    """Return pictures (count, 1, SIZE, SIZE, SIZE) and the classes of their voxels."""
    classes = np.stack([volume(rng) for _ in range(count)])
    noise = gaussian_filter(rng.standard_normal(classes.shape), (0, 0.7, 0.7, 0.7))
    pictures = BRIGHTNESS[classes] + 0.6 * noise
    if other_scanner:
        gain, offset = np.exp(rng.uniform(-1.5, 1.5, count)), rng.uniform(-2, 2, count)
        pictures = gain[:, None, None, None] * pictures + offset[:, None, None, None]
    return pictures[:, None].astype(np.float32), classes


class UNet(nn.Module):
    """A U-Net of three levels; `norm` makes what comes first and what follows each convolution."""

    def __init__(self, norm, channels=8):
        super().__init__()
        self.norm = norm
        self.input = norm(1)  # before the first convolution pads with zeros
        self.first = self.block(1, channels)
        self.second = self.block(channels, 2 * channels)
        self.deepest = self.block(2 * channels, 2 * channels)
        self.up_second = nn.ConvTranspose3d(2 * channels, 2 * channels, 2, stride=2)
        self.back_second = self.block(4 * channels, 2 * channels)
        self.up_first = nn.ConvTranspose3d(2 * channels, channels, 2, stride=2)
        self.back_first = self.block(2 * channels, channels)
        self.head = nn.Conv3d(channels, len(CLASSES), 1)

    def block(self, inputs, outputs):
        """Return a convolution with what follows it."""
        conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        return nn.Sequential(conv, self.norm(outputs), nn.LeakyReLU(0.01))

    def forward(self, x):
        """Return scores of the classes for each voxel."""
        first = self.first(self.input(x))
        second = self.second(F.max_pool3d(first, 2))
        deepest = self.deepest(F.max_pool3d(second, 2))
        back = self.back_second(instnorm.cat([second, self.up_second(deepest)], dim=1))
        back = self.back_first(instnorm.cat([first, self.up_first(back)], dim=1))
        return self.head(back)


def soft_dice(scores, classes):
    """Return the mean Dice of balls and rods, by the probabilities of the classes."""
    truth = F.one_hot(classes, len(CLASSES)).permute(0, 4, 1, 2, 3)
    probabilities = scores.softmax(1)
    both = (probabilities * truth).sum((0, 2, 3, 4))
    either = (probabilities + truth).sum((0, 2, 3, 4))
    return (2 * both / either)[1:].mean()


def train(net, loader, epochs):
    """Train the net; return the mean loss of each epoch."""
    optimizer = optim.AdamW(net.parameters(), lr=1e-2)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    history = []
    for _ in range(epochs):
        losses = []
        for pictures, classes in loader:
            scores = net(pictures)
            loss = F.cross_entropy(scores, classes) + 1 - soft_dice(scores, classes)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        history.append(np.mean(losses))
    return history


@instnorm.no_grad()
def segmented(net, pictures):
    """Return the class that the net gives each voxel."""
    return net.eval()(instnorm.from_numpy(pictures)).argmax(1).numpy()


def dice(found, classes):
    """Return twice the voxels that both have over the sum of those that each has, by class."""
    return [
        2 * ((found == c) & (classes == c)).sum() / ((found == c).sum() + (classes == c).sum())
        for c in range(1, len(CLASSES))
    ]


def fullest(classes):
    """Return the volume and the slice that show the most of the class of which they show least."""
    counts = np.stack([(classes == c).sum((2, 3)) for c in range(1, len(CLASSES))])
    return np.unravel_index(counts.min(0).argmax(), counts.shape[1:])


def draw(rows, path):
    """Draw a slice of a volume from each scanner: the picture, the truth and each net's answer."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for axes_of_row, (scanner, panels) in zip(
        figure.subplots(len(rows), 4), rows.items(), strict=True
    ):
        for axes, (title, image) in zip(axes_of_row, panels.items(), strict=True):
            if image.dtype.kind == "f":
                axes.imshow(image, cmap="gray")
            else:
                axes.imshow(image, cmap="viridis", vmin=0, vmax=len(CLASSES) - 1)
            axes.set(title=title, xticks=[], yticks=[])
        axes_of_row[0].set_ylabel(scanner)
    figure.savefig(path, dpi=80)


def main():
    """Train both nets, print the table, and save the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    data = TensorDataset(*scans(64, rng, other_scanner=False))
    tests = {
        "the same scanner": scans(16, rng, other_scanner=False),
        "other scanners": scans(16, rng, other_scanner=True),
    }
    norms = {
        "InstanceNorm3d": lambda channels: nn.InstanceNorm3d(channels, affine=True),
        "without a norm": nn.Identity,
    }
    slices = {name: fullest(classes) for name, (_, classes) in tests.items()}
    rows = {
        name: {"picture": pictures[:, 0][slices[name]], "truth": classes[slices[name]]}
        for name, (pictures, classes) in tests.items()
    }
    table = []
    for name, norm in norms.items():
        instnorm.manual_seed(0)
        net = UNet(norm)
        history = train(net, DataLoader(data, batch_size=4, shuffle=True), arguments.epochs)
        print(f"{name}: loss {history[0]:.3f} to {history[-1]:.3f}")
        scores = []
        for test, (pictures, classes) in tests.items():
            found = segmented(net, pictures)
            scores += dice(found, classes)
            rows[test][name] = found[slices[test]]
        table.append(f"{name:16}" + "".join(f"{score:10.3f}" for score in scores))

    print("\nDice            the same scanner    other scanners")
    print(f"{'':16}" + 2 * "".join(f"{name:>10}" for name in CLASSES[1:]))
    print("\n".join(table))
    draw(rows, arguments.folder / "toys-segmentation.png")


if __name__ == "__main__":
    main()
