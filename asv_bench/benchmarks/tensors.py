"""Through Tensors: what the graph and the layer add to the kernels."""

import numpy as np

import instnorm
from instnorm import nn

from .common import Inputs, layer_for
from .kernels import NAMED


class Layer:
    """The layer on Tensors; the smallest shapes show what Python costs."""

    params = (list(NAMED),)
    param_names = ("shape",)

    def setup(self, shape):
        inputs = Inputs(NAMED[shape])
        self.layer, self.frozen = layer_for(inputs), layer_for(inputs, requires_grad=False)
        self.x = instnorm.Tensor(inputs.x, requires_grad=True)
        self.data = instnorm.Tensor(inputs.x)
        self.grad_output = instnorm.Tensor(inputs.grad_output)
        self.time_training_step(shape)  # touches the memory that is recycled

    def time_forward(self, shape):
        self.frozen(self.data)

    def time_training_step(self, shape):
        self.x.grad = self.layer.weight.grad = self.layer.bias.grad = None
        self.layer(self.x).backward(self.grad_output)


class Overhead:
    """Single operations on six numbers."""

    def setup(self):
        self.array = np.ones((2, 3), np.float32)
        self.x = instnorm.Tensor(self.array)
        self.variable = instnorm.Tensor(self.array, requires_grad=True)

    def time_wrap_an_array(self):
        instnorm.Tensor(self.array)

    def time_add(self):
        self.x + self.x

    def time_add_recorded(self):
        self.variable + self.x

    def time_add_and_backward(self):
        (self.variable + self.x).backward(self.x)


class Network:
    """A step of SGD on a small convolutional network."""

    def setup(self):
        instnorm.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.InstanceNorm2d(16, affine=True), nn.ReLU()
        )
        self.optimizer = instnorm.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        self.x = instnorm.Tensor(Inputs((8, 3, 32, 32)).x)

    def time_step(self):
        self.optimizer.zero_grad()
        ((self.net(self.x) - 0.5) ** 2).mean().backward()
        self.optimizer.step()
