"""Train a small network of MindSpore's with instance norm on a CPU, in both of its modes.

Run it where MindSpore is installed: python examples/mindspore_bridge.py
"""

import mindspore
import numpy as np

from instnorm.bridge import mindspore as bridge

nn = mindspore.nn
random = np.random.default_rng(0)

# Striped images, lengthwise or across, each with a contrast and a brightness of its own.
labels = random.integers(0, 2, 64)
stripes = np.sin(np.arange(16) * 1.5 + random.uniform(0, 6, (64, 1)))
images = np.where(labels[:, None, None] == 1, stripes[:, None, :], stripes[:, :, None])
images = images * random.uniform(0.1, 3, (64, 1, 1)) + random.normal(size=(64, 1, 1))
x = mindspore.Tensor(images[:, None].astype(np.float32))
y = mindspore.Tensor(labels.astype(np.int32))


class Network(nn.Cell):
    """Two convolutions with MindSpore's own instance norm, which runs on no CPU."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3), nn.InstanceNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8)
        self.relu, self.classify = nn.ReLU(), nn.Dense(8, 2)

    def construct(self, x):
        """Normalize after each convolution, average over the image, classify."""
        x = self.relu(self.norm1(self.conv1(x)))
        x = self.relu(self.norm2(self.conv2(x)))
        return self.classify(x.mean((2, 3)))


def train(compiled):
    """Train a new network and return the losses."""
    mindspore.set_seed(0)
    net = bridge.convert(Network())
    loss = nn.CrossEntropyLoss()
    optimizer = nn.Momentum(net.trainable_params(), learning_rate=0.3, momentum=0.9)

    def forward(x, y):
        return loss(net(x), y)

    step = mindspore.value_and_grad(forward, None, optimizer.parameters)
    step = mindspore.jit(step) if compiled else step
    losses = []
    for _ in range(40):
        value, gradients = step(x, y)
        optimizer(gradients)
        losses.append(float(value.asnumpy()))
    return losses


for name, compiled in (("PyNative", False), ("graph", True)):
    losses = train(compiled)
    print(f"{name:<9} loss {losses[0]:.4f} -> {losses[-1]:.4f}")
