"""instnorm at each SIMD level: the array functions, and the layer through Tensors and the graph.

Which level runs is settled at import, so each has a process of its own (`Job` runs there), which
waits while another one is timed. What the runner sees of it is `AtLevel`.
"""

from benchmarks.common import forward_and_backward, layer_for, set_threads
from benchmarks.interleaved import mean_seconds
from benchmarks.worker import Remote, Worker

import instnorm
from instnorm._runtime import simd

from .peer import EPS, Case, Peer

VERSION = instnorm.__version__


class ArrayFunctions(Peer):
    def forward(self, case):
        return lambda: (instnorm.instance_norm(case.x, case.weight, case.bias, eps=EPS),)

    def training(self, case):
        return lambda: forward_and_backward(case)


class Layer(Peer):
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


KINDS = {"instnorm": ArrayFunctions(), "instnorm-layer": Layer()}


class Job:
    """Runs in the process of a level, on one shape and pass at a time."""

    def __init__(self, level, threads):
        if simd.level != level:
            raise RuntimeError(f"asked for {level}, got {simd.level}")
        set_threads(threads)
        self._current, self._cases, self._functions = None, {}, {}

    def prepare(self, kind, shape, dtype, layout, method):
        """Compute the results once; they go to the caller, who checks them."""
        if self._current != (shape, method):
            self._current, self._cases, self._functions = (shape, method), {}, {}
        if (dtype, layout) not in self._cases:
            self._cases[dtype, layout] = Case(shape, dtype, layout)
        case = self._cases[dtype, layout]
        function = getattr(KINDS[kind], method)(case)
        self._functions[kind, dtype, layout] = function
        return KINDS[kind].arrays(case, function())

    def mean_seconds(self, kind, dtype, layout, calls):
        return mean_seconds(self._functions[kind, dtype, layout], calls)


class Prepared(Remote):
    """Called once, it gives the first results; then it is timed."""

    def __init__(self, worker, kind, case, method):
        place = case.dtype.name, case.layout
        super().__init__(worker, "mean_seconds", kind, *place)
        self._first = worker.ask("prepare", kind, case.shape, *place, method)

    def __call__(self):
        first, self._first = self._first, None
        return first


class AtLevel(Peer):
    """One kind of call, in the process of a level."""

    def __init__(self, name, kind, worker):
        self.name, self._kind, self._worker = name, kind, worker

    def forward(self, case):
        return Prepared(self._worker, self._kind, case, "forward")

    def training(self, case):
        return Prepared(self._worker, self._kind, case, "training")

    def arrays(self, case, result):
        return result


def peers(threads, levels):
    """Every level's array functions; the layer, which adds Python's time to any, at the first."""
    workers = {
        level: Worker(Job, level, threads, environment={"INSTNORM_SIMD": level}) for level in levels
    }
    for worker in workers.values():
        worker.ready()
    found = [AtLevel(f"instnorm-{n}", "instnorm", worker) for n, worker in workers.items()]
    return [*found, AtLevel("instnorm-layer", "instnorm-layer", workers[levels[0]])]
