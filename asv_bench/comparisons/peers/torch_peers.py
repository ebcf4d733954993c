"""PyTorch: two functions that compute instance norm, run eagerly, and one of them compiled."""

from types import FunctionType

import numpy as np
import torch
from torch.nn import functional

from .peer import EPS, Peer

VERSION = torch.__version__


def instance_norm(x, weight, bias):
    return functional.instance_norm(x, weight=weight, bias=bias, eps=EPS)


def group_norm(x, weight, bias):
    """With a group for each channel, group norm is instance norm."""
    return functional.group_norm(x, x.shape[1], weight, bias, EPS)


class Eager(Peer):
    def __init__(self, function):
        self.name, self.label = f"torch-{function.__name__}", f"PyTorch {function.__name__}"
        self._function = function

    def function(self):
        return self._function

    def forward(self, case):
        function = self.function()
        x, weight, bias = (_tensor(a) for a in (case.x, case.weight, case.bias))
        return lambda: (function(x, weight, bias),)

    def training(self, case):
        function = self.function()
        x, weight, bias = (_tensor(a).requires_grad_() for a in (case.x, case.weight, case.bias))
        grad_output = _tensor(case.grad_output)

        def step():
            x.grad = weight.grad = bias.grad = None
            y = function(x, weight, bias)
            y.backward(grad_output)
            return y, x.grad, weight.grad, bias.grad

        return step

    def arrays(self, case, result):
        return tuple(_array(part) for part in result)


class Compiled(Eager):
    def __init__(self):
        super().__init__(instance_norm)
        self.name, self.label = "torch-compile", "torch.compile"

    def function(self):
        # PyTorch keeps what it compiled with the code object, and tries one after the other at
        # each call: with a code object of its own, a case has one program, for its very shape.
        own = FunctionType(instance_norm.__code__.replace(), globals())
        return torch.compile(own, dynamic=False)


def _tensor(array):
    """A Tensor that shares the array's memory, in its layout."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(tensor):
    tensor = tensor.detach()
    return (tensor.double() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def peers(threads):
    torch.set_num_threads(threads)
    return [Eager(instance_norm), Eager(group_norm), Compiled()]
