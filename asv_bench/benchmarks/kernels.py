"""The array functions: time, and time beside a copy of the same bytes."""

import numpy as np

import instnorm

from .common import DTYPES, LAYOUTS, SHAPES, Inputs, forward_and_backward, set_threads
from .copying import copies
from .interleaved import medians, seconds_per_call

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


class RatioToCopy:
    """How many copies of the input's bytes would take as long, on as many threads."""

    params = ([name for name in NAMED if np.prod(NAMED[name]) >= 2**18], [1, 2], list(LAYOUTS))
    param_names = ("shape", "threads", "layout")
    unit = "copies"
    timeout = 120

    def setup(self, shape, threads, layout):
        set_threads(threads)
        self.inputs = Inputs(NAMED[shape], layout=layout)
        self.copies = copies(self.inputs.x, threads)

    def ratio(self, function):
        seconds = medians(seconds_per_call({"function": function, **self.copies}))
        return seconds.pop("function") / min(seconds.values())

    def track_forward(self, *_):
        x, weight, bias = self.inputs.x, self.inputs.weight, self.inputs.bias
        return self.ratio(lambda: instnorm.instance_norm(x, weight, bias))

    def track_forward_and_backward(self, *_):
        return self.ratio(lambda: forward_and_backward(self.inputs))
