"""The array functions: time, and time beside the floor."""

import numpy as np

import instnorm
from instnorm._runtime import simd

from .common import DTYPES, LAYOUTS, SHAPES, Inputs, forward_and_backward, set_threads
from .floor import floors
from .interleaved import mean_seconds, medians, seconds_per_call
from .worker import Remote, Worker

NAMED = {str(shape).replace(" ", ""): shape for shape in SHAPES}
LARGE = ["(16,64,56,56)", "(4,32,256,256)"]


class _Passes:
    """Forward and backward apart."""

    def make(self, shape, dtype, layout, threads):
        set_threads(threads)
        self.inputs = Inputs(NAMED[shape], dtype, layout)
        _, self.mean, self.rstd = instnorm.instance_norm(self.inputs.x, return_stats=True)
        # Memory that the results recycle is touched here, not under the clock.
        forward_and_backward(self.inputs)

    def time_forward(self, *_):
        instnorm.instance_norm(self.inputs.x, self.inputs.weight, self.inputs.bias)

    def time_backward(self, *_):
        instnorm.instance_norm_backward(
            self.inputs.grad_output,
            self.inputs.x,
            self.inputs.weight,
            mean=self.mean,
            rstd=self.rstd,
        )


class Shapes(_Passes):
    params = (list(NAMED), [1, 2], list(LAYOUTS))
    param_names = ("shape", "threads", "layout")

    def setup(self, shape, threads, layout):
        self.make(shape, "float32", layout, threads)


class Dtypes(_Passes):
    params = (LARGE, list(DTYPES), list(LAYOUTS))
    param_names = ("shape", "dtype", "layout")

    def setup(self, shape, dtype, layout):
        self.make(shape, dtype, layout, threads=2)


class InPlace:
    """Into an array of the caller's, and over the input."""

    params = (LARGE,)
    param_names = ("shape",)

    def setup(self, shape):
        self.x = Inputs(NAMED[shape]).x
        self.out = self.x.copy()

    def time_out(self, shape):
        instnorm.instance_norm(self.x, out=self.out)

    def time_in_place(self, shape):
        instnorm.instance_norm(self.x, out=self.x)


class _Level:
    """The passes at the SIMD level that a process was started with."""

    def __init__(self, shape, layout, threads):
        set_threads(threads)
        inputs = Inputs(shape, layout=layout)
        self._passes = {
            "forward": lambda: instnorm.instance_norm(inputs.x, inputs.weight, inputs.bias),
            "forward+backward": lambda: forward_and_backward(inputs),
        }

    def mean_seconds(self, direction, calls):
        return mean_seconds(self._passes[direction], calls)


class RatioToFloor:
    """How many times the floor's time it takes at each SIMD level, on as many threads.

    The level is settled at import: each is measured in a process of its own.
    """

    params = (
        [name for name in NAMED if np.prod(NAMED[name]) >= 2**18],
        [1, 2],
        list(LAYOUTS),
        ["baseline", "avx2", "avx512"],
    )
    param_names = ("shape", "threads", "layout", "level")
    unit = "floors"
    timeout = 120

    def setup(self, shape, threads, layout, level):
        if level not in simd.available():
            raise NotImplementedError(f"this machine has no {level}")  # so that asv skips it
        shape = NAMED[shape]
        self.inputs, self.threads = Inputs(shape, layout=layout), threads
        environment = {"INSTNORM_SIMD": level}
        self.worker = Worker(_Level, shape, layout, threads, environment=environment)
        self.worker.ready()

    def teardown(self, *_):
        if hasattr(self, "worker"):
            self.worker.close()

    def ratio(self, direction):
        floor = floors(self.inputs, self.threads, direction)
        ours = Remote(self.worker, "mean_seconds", direction)
        seconds = medians(seconds_per_call({"ours": ours, **floor}))
        return seconds.pop("ours") / min(seconds.values())

    def track_forward(self, *_):
        return self.ratio("forward")

    def track_forward_and_backward(self, *_):
        return self.ratio("forward+backward")
