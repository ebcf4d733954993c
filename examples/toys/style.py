"""Style transfer: a residual net gives a photograph the colours and textures of another.

As in fast style transfer (Johnson et al., 2016, https://arxiv.org/abs/1603.08155), with instance
norm (Ulyanov et al., 2016, https://arxiv.org/abs/1607.08022), but that the losses look through
convolutions with random weights, which need no download (Ustyuzhaninov et al., 2016,
https://arxiv.org/abs/1606.00021). The style's loss compares which of their channels go together,
the content's where the edges are.

Run it from the repository: python examples/toys/style.py [--steps N] [FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

import instnorm
import instnorm.functional as F
from instnorm import nn, optim

PATCH, BATCH = 64, 4


def photograph(name):
    """Return one of scikit-learn's photographs, at half its size, (3, H, W) from 0 to 1."""
    image = load_sample_image(name).astype(np.float32) / 255
    height, width = (n // 8 * 8 for n in image.shape[:2])
    image = image[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def patches(image, count, rng):
    """Return random square parts of a photograph."""
    _, height, width = image.shape
    tops, lefts = rng.integers(height - PATCH, size=count), rng.integers(width - PATCH, size=count)
    places = zip(tops, lefts, strict=True)
    return np.stack([image[:, top : top + PATCH, left : left + PATCH] for top, left in places])


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            *conv(channels, channels, 3), nn.ReLU(), *conv(channels, channels, 3)
        )

    def forward(self, x):
        """Add what the body finds."""
        return x + self.body(x)


def conv(inputs, outputs, size, stride=1):
    """Return a convolution that sees the image mirrored at its borders, and its norm."""
    return [
        nn.ReflectionPad2d(size // 2),
        nn.Conv2d(inputs, outputs, size, stride),
        nn.InstanceNorm2d(outputs, affine=True),
    ]


def transformer():
    """Return the residual net: down by four, three blocks, and up again."""
    return nn.Sequential(
        *conv(3, 12, 7),
        nn.ReLU(),
        *conv(12, 24, 3, stride=2),
        nn.ReLU(),
        *conv(24, 32, 3, stride=2),
        nn.ReLU(),
        *(Block(32) for _ in range(3)),
        nn.Upsample(scale_factor=2),
        *conv(32, 24, 3),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        *conv(24, 12, 3),
        nn.ReLU(),
        nn.ReflectionPad2d(3),
        nn.Conv2d(12, 3, 7),
        nn.Sigmoid(),
    )


class RandomFeatures(nn.Module):
    """Convolutions with random weights at three scales."""

    def __init__(self, channels=32):
        super().__init__()
        self.scales = nn.ModuleList([nn.Conv2d(3, channels, 7) for _ in range(3)])
        for layer in self.scales:
            nn.init.normal_(layer.weight, std=0.1)
        self.requires_grad_(False)

    def forward(self, x):
        """Return the features of each scale."""
        found = []
        for layer in self.scales:
            found.append(F.relu(layer(x)))
            x = F.avg_pool2d(x, 2)
        return found


def gram(features):
    """Return how strongly each two channels go together."""
    n, channels, height, width = features.shape
    rows = features.view(n, channels, height * width)
    return rows.bmm(rows.transpose(1, 2)) / (height * width)


def edges(x):
    """Return the differences of neighbours in brightness, whatever the contrast."""
    grey = F.instance_norm(x.mean(1, keepdim=True))
    return grey[..., 1:, :] - grey[..., :-1, :], grey[..., 1:] - grey[..., :-1]


def train(net, content, style, steps, rng):
    """Train the net; return the losses of style and content of each step."""
    features = RandomFeatures()
    optimizer = optim.Adam(net.parameters(), lr=5e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    with instnorm.no_grad():
        wanted = [gram(f).mean(0) for f in features(instnorm.tensor(patches(style, 200, rng)))]
    history = []
    for _ in range(steps):
        x = instnorm.from_numpy(patches(content, BATCH, rng))
        y = net(x)
        of_style = sum(
            ((gram(f).mean(0) - g) ** 2).sum() / (g**2).sum()
            for f, g in zip(features(y), wanted, strict=True)
        )
        of_content = sum(F.mse_loss(a, b) for a, b in zip(edges(y), edges(x), strict=True))
        loss = of_style + 10 * of_content
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append((of_style.item(), of_content.item()))
    return np.array(history)


def main():
    """Train the net, print the table, and save the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument("--steps", type=int, default=250)
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    instnorm.manual_seed(0)
    content, style = photograph("china.jpg"), photograph("flower.jpg")
    net = transformer()
    history = train(net, content, style, arguments.steps, rng)
    print("step     style   content")
    for step in np.linspace(0, len(history) - 1, 6).astype(int):
        print(f"{step + 1:4}" + "".join(f"{loss:10.4f}" for loss in history[step]))

    with instnorm.no_grad():
        result = net.eval()(instnorm.from_numpy(content[None]))[0].numpy()
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    panels = {"content": content, "style": style, "the net's": result}
    for axes, (title, image) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.imshow(image.transpose(1, 2, 0))
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(arguments.folder / "toys-style.png", dpi=70)


if __name__ == "__main__":
    main()
