"""instnorm: the array functions, and the layer through Tensors and the graph."""

from benchmarks.common import forward_and_backward, layer_for, set_threads

import instnorm

from .peer import EPS, Peer

VERSION = instnorm.__version__


class ArrayFunctions(Peer):
    name = label = "instnorm"

    def forward(self, case):
        return lambda: (instnorm.instance_norm(case.x, case.weight, case.bias, eps=EPS),)

    def training(self, case):
        return lambda: forward_and_backward(case)


class Layer(Peer):
    name, label = "instnorm-layer", "instnorm layer"

    def forward(self, case):
        layer, x = layer_for(case, requires_grad=False), instnorm.Tensor(case.x)
        return lambda: (layer(x),)

    def training(self, case):
        layer, x = layer_for(case), instnorm.Tensor(case.x, requires_grad=True)
        grad_output = instnorm.Tensor(case.grad_output)

        def step():
            x.grad = layer.weight.grad = layer.bias.grad = None
            y = layer(x)
            y.backward(grad_output)
            return y, x.grad, layer.weight.grad, layer.bias.grad

        return step

    def arrays(self, case, result):
        return tuple(part.data for part in result)


def peers(threads):
    set_threads(threads)
    return [ArrayFunctions(), Layer()]
