"""Instance norm composed of MindSpore's operators, which run on a CPU where its own does not.

And the losses of a network that is trained with it, or with what is to take its place.
"""

import mindspore
import numpy as np
from mindspore import nn, ops

from helpers.tensors import normal

C = 3
RANKS = (1, 2, 3)
SHAPES = {1: (2, C, 5), 2: (2, C, 4, 3), 3: (2, C, 2, 3, 2)}


def composed(x, gamma, beta, eps):
    """The output; eps is a Tensor, since Python's numbers would be float32 here."""
    axes = tuple(range(2, x.ndim))
    per_channel = (1, -1) + (1,) * len(axes)
    centred = x - ops.mean(x, axes, True)
    var = ops.mean(centred * centred, axes, True)
    scale = gamma.reshape(per_channel) / ops.sqrt(var + mindspore.Tensor(eps, x.dtype))
    return centred * scale + beta.reshape(per_channel)


def composed_results(x, gamma, beta, eps, g):
    """Output and gradients for x, gamma and beta, as MindSpore's Tensors, of NumPy's arrays."""

    def loss(*arguments):
        y = composed(*arguments, eps)
        return (y * mindspore.Tensor(g)).sum(), y

    function = mindspore.value_and_grad(loss, (0, 1, 2), has_aux=True)
    (_, y), gradients = function(*(mindspore.Tensor(array) for array in (x, gamma, beta)))
    return y, *gradients


def exact(x, gamma, beta, eps, g, slope=1.0):
    """Result, and gradients for x, gamma, beta and slope, in NumPy's float64.

    `slope`, a number or one for each channel, is what negative results are multiplied by.
    """
    axes = tuple(range(2, x.ndim))
    per_channel = (1, -1) + (1,) * len(axes)
    rstd = 1 / np.sqrt(x.var(axes, keepdims=True) + eps)
    normed = (x - x.mean(axes, keepdims=True)) * rstd
    y = normed * gamma.reshape(per_channel) + beta.reshape(per_channel)
    factor = np.where(y < 0, np.reshape(slope, (1, -1) + (1,) * len(axes)), 1)
    dslope = (g * np.minimum(y, 0)).sum((0, *axes))
    g = g * factor
    along = (g * normed).mean(axes, keepdims=True)
    dx = gamma.reshape(per_channel) * rstd * (g - g.mean(axes, keepdims=True) - normed * along)
    dslope = dslope if np.size(slope) > 1 else dslope.sum(keepdims=True)
    return y * factor, dx, (g * normed).sum((0, *axes)), g.sum((0, *axes)), dslope


class Composed(mindspore.nn.InstanceNorm2d):
    """MindSpore's layer, of operators that run on a CPU."""

    def construct(self, x):
        return composed(x, self.gamma, self.beta, self.eps)


def losses_of(net, *, compiled, steps=20, optimizer=None):
    """The losses of some steps; `optimizer` makes one of parameters, by default with momentum."""
    x = mindspore.Tensor(normal(16, 1, 8, 8), mindspore.float32)
    y = mindspore.Tensor(np.arange(16) % 2, mindspore.int32)
    criterion = nn.CrossEntropyLoss()
    parameters = net.trainable_params()
    optimizer = nn.Momentum(parameters, 0.005, 0.9) if optimizer is None else optimizer(parameters)

    def loss(x, y):
        return criterion(net(x), y)

    step = mindspore.value_and_grad(loss, None, optimizer.parameters)
    step = mindspore.jit(step) if compiled else step
    losses = []
    for _ in range(steps):
        value, gradients = step(x, y)
        optimizer(gradients)
        losses.append(float(value.asnumpy()))
    return losses
