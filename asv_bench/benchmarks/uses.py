"""What follows a norm in the same pass, beside the plain norm: how many times its time."""

import numpy as np

import instnorm

from .common import LAYOUTS, Inputs, empty, set_threads
from .interleaved import medians, seconds_per_call

SHAPES = {
    str(shape).replace(" ", ""): shape
    for shape in ((32, 512, 7, 7), (16, 64, 56, 56), (2, 32, 64, 64, 64), (16, 256, 2048))
}


class Passes:
    """The forward pass, and both passes, by array functions with some options."""

    def __init__(self, inputs, weight=None, **options):
        self._inputs, self._options = inputs, options
        self._weight = inputs.weight if weight is None else weight
        self._bias = self._weight * 0 + 0.05

    def forward(self):
        return instnorm.instance_norm(
            self._inputs.x, self._weight, self._bias, return_stats=True, **self._options
        )

    def both(self):
        _, mean, rstd = self.forward()
        return instnorm.instance_norm_backward(
            self._inputs.grad_output,
            self._inputs.x,
            self._weight,
            bias=self._bias if self._options else None,
            mean=mean,
            rstd=rstd,
            **self._options,
        )


class Unfused(Passes):
    """Norm and leaky ReLU one after the other, as NumPy would do it without new memory."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self._y, self._grad = np.empty_like(inputs.x), np.empty_like(inputs.x)

    def forward(self):
        y, mean, rstd = super().forward()
        np.maximum(y, np.multiply(y, np.float32(0.01), out=self._y), out=self._y)
        return y, mean, rstd

    def both(self):
        y, mean, rstd = self.forward()
        grad = np.where(
            y > 0, self._inputs.grad_output, self._inputs.grad_output * np.float32(0.01)
        )
        return instnorm.instance_norm_backward(
            grad, self._inputs.x, self._weight, mean=mean, rstd=rstd
        )


def variants(shape, layout):
    """By name: objects with `forward` and `both`."""
    inputs = Inputs(shape, layout=layout)
    samples, channels, *spatial = shape
    residual = empty(shape, np.float32, layout, "y")
    residual[...] = inputs.grad_output
    rng = np.random.default_rng(1)
    length = int(np.prod(spatial))
    half = (np.arange(length) < length // 2).reshape(spatial)
    leaky = {"activation": "leaky_relu"}
    return {
        "plain": Passes(inputs),
        "unfused": Unfused(inputs),
        "leaky ReLU": Passes(inputs, **leaky),
        "PReLU": Passes(inputs, negative_slope=np.full(channels, 0.2), **leaky),
        "residual": Passes(inputs, residual=residual, **leaky),
        "per sample": Passes(inputs, np.ones((samples, channels), np.float32)),
        "half a prefix": Passes(inputs, mask=np.broadcast_to(half, (samples, *spatial)).copy()),
        "half scattered": Passes(inputs, mask=rng.random((samples, *spatial)) < 0.5),
    }


class Ratio:
    """Times the plain norm's time, on two threads."""

    params = (
        list(SHAPES),
        list(LAYOUTS),
        ["leaky ReLU", "PReLU", "residual", "per sample", "half a prefix", "half scattered"],
    )
    param_names = ("shape", "layout", "use")
    unit = "plain norms"
    timeout = 120

    def setup(self, shape, layout, use):
        set_threads(2)
        found = variants(SHAPES[shape], layout)
        self.plain, self.used = found["plain"], found[use]

    def ratio(self, name):
        functions = {"plain": getattr(self.plain, name), "use": getattr(self.used, name)}
        seconds = medians(seconds_per_call(functions))
        return seconds["use"] / seconds["plain"]

    def track_forward(self, *_):
        return self.ratio("forward")

    def track_both(self, *_):
        return self.ratio("both")


class InPlaceMemory:
    """Ten blocks of convolution, norm and leaky ReLU: the process's peak in a training step."""

    params = (["plain", "fused", "in place"],)
    param_names = ("way",)

    def setup(self, way):
        nn = instnorm.nn
        layers = []
        for _ in range(10):
            layers.append(nn.Conv2d(16, 16, 3, padding=1))
            if way == "plain":
                layers += [nn.InstanceNorm2d(16, affine=True), nn.LeakyReLU(0.01)]
            else:
                options = {"activation": "leaky_relu", "inplace": way == "in place"}
                layers.append(nn.InstanceNorm2d(16, affine=True, **options))
        self.net = nn.Sequential(*layers)
        self.x = np.random.default_rng(0).random((2, 16, 128, 128), np.float32)

    def peakmem_training_step(self, way):
        (self.net(self.x) ** 2).mean().backward()
