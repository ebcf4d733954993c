"""Five toy nets, each written once for both libraries, and random data to train them on.

`lib` is `instnorm` or `torch`: what a net needs of either has the same name in both.
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np


class Toy(NamedTuple):
    make: object  # of a library, the net
    sample: tuple  # the shape of one input
    classes: int | None  # of a classifier; None where the target is an image like the output
    outputs: int = 3  # channels of such an image


def digits(lib):
    """The net of `instnorm train digits`."""
    nn = lib.nn

    def conv(inputs, outputs):
        return [
            nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.ReLU(),
        ]

    return nn.Sequential(
        *conv(1, 16),
        *conv(16, 32),
        nn.MaxPool2d(2),
        *conv(32, 32),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    )


def photo(lib):
    """The net of `instnorm train photo`."""
    nn = lib.nn

    def conv(inputs, outputs, stride=1):
        return nn.Conv2d(inputs, outputs, 3, stride, padding=1, padding_mode="reflect")

    def block(inputs, outputs, stride=1):
        norm = nn.InstanceNorm2d(outputs, affine=True)
        return [conv(inputs, outputs, stride), norm, nn.ReLU()]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.normalize = nn.InstanceNorm2d(3, affine=True)
            self.correction = nn.Sequential(
                *block(3, 12),
                *block(12, 24, stride=2),
                *block(24, 24),
                nn.Upsample(scale_factor=2),
                *block(24, 12),
                conv(12, 3),
            )

        def forward(self, x):
            x = self.normalize(x)
            return x + self.correction(x)

    return Net()


def series(lib):
    """A classifier of series, from one channel to 64."""
    nn = lib.nn

    def block(inputs, outputs, width):
        conv = nn.Conv1d(inputs, outputs, width, padding=width // 2)
        return [conv, nn.InstanceNorm1d(outputs, affine=True), nn.ReLU(), nn.MaxPool1d(2)]

    return nn.Sequential(
        *block(1, 16, 7),
        *block(16, 32, 5),
        *block(32, 64, 3),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(64, 5),
    )


def style(lib):
    """A residual net like those of style transfer: down by four, three blocks, and up again."""
    nn = lib.nn

    def conv(inputs, outputs, size, stride=1):
        return [
            nn.ReflectionPad2d(size // 2),
            nn.Conv2d(inputs, outputs, size, stride),
            nn.InstanceNorm2d(outputs, affine=True),
        ]

    class Block(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.body = nn.Sequential(
                *conv(channels, channels, 3), nn.ReLU(), *conv(channels, channels, 3)
            )

        def forward(self, x):
            return x + self.body(x)

    return nn.Sequential(
        *conv(3, 16, 9),
        nn.ReLU(),
        *conv(16, 32, 3, 2),
        nn.ReLU(),
        *conv(32, 64, 3, 2),
        nn.ReLU(),
        *(Block(64) for _ in range(3)),
        nn.Upsample(scale_factor=2),
        *conv(64, 32, 3),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        *conv(32, 16, 3),
        nn.ReLU(),
        nn.ReflectionPad2d(4),
        nn.Conv2d(16, 3, 9),
    )


def unet(lib):
    """A U-Net for volumes, of three levels."""
    nn = lib.nn

    def block(inputs, outputs):
        conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        return [conv, nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01)]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(*block(1, 8), *block(8, 8))
            self.second = nn.Sequential(nn.MaxPool3d(2), *block(8, 16), *block(16, 16))
            self.deepest = nn.Sequential(nn.MaxPool3d(2), *block(16, 32))
            self.up_second = nn.ConvTranspose3d(32, 16, 2, 2)
            self.back_second = nn.Sequential(*block(32, 16))
            self.up_first = nn.ConvTranspose3d(16, 8, 2, 2)
            self.back_first = nn.Sequential(*block(16, 8))
            self.head = nn.Conv3d(8, 2, 1)

        def forward(self, x):
            first = self.first(x)
            second = self.second(first)
            up = self.up_second(self.deepest(second))
            up = self.up_first(self.back_second(lib.cat([second, up], 1)))
            return self.head(self.back_first(lib.cat([first, up], 1)))

    return Net()


def smooth(lib):
    """The library with nothing whose derivative jumps: what a net is made of, without its kinks.

    Rounding that takes an element to the other side of zero in a ReLU, or another winner in a
    maximum, changes a gradient at once by as much as the element's share of it. Losses of nets that
    have neither must agree as closely as their arithmetic does.
    """
    nn = lib.nn

    class Smooth:
        ReLU = nn.SiLU
        MaxPool1d, MaxPool2d, MaxPool3d = nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d
        LeakyReLU = staticmethod(lambda slope: nn.SiLU())

        def __getattr__(self, name):
            return getattr(nn, name)

    return SimpleNamespace(nn=Smooth(), cat=lib.cat)


TOYS = {
    "digits": Toy(digits, (1, 8, 8), 10),
    "photo": Toy(photo, (3, 64, 64), None),
    "series": Toy(series, (1, 256), 5),
    "style": Toy(style, (3, 64, 64), None),
    "unet": Toy(unet, (1, 16, 16, 16), None, 2),
}


def batches(name, batch_size, dtype, count):
    """Inputs and targets of some batches; the same in every process."""
    toy, rng = TOYS[name], np.random.default_rng(0)
    for _ in range(count):
        inputs = _normal(rng, (batch_size, *toy.sample), dtype)
        if toy.classes is not None:
            yield inputs, rng.integers(toy.classes, size=batch_size)
        else:
            shape = (batch_size, toy.outputs, *toy.sample[1:])
            yield inputs, _normal(rng, shape, dtype)


def _normal(rng, shape, dtype):
    """The same numbers in each precision."""
    return rng.standard_normal(shape).astype(np.float32).astype(dtype)


def weights(name, dtype):
    """The state that both libraries start from, as arrays."""
    import torch

    torch.manual_seed(0)
    state = TOYS[name].make(torch).state_dict()
    return {key: value.numpy().astype(dtype) for key, value in state.items()}
