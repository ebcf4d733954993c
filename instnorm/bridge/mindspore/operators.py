"""Instance norm as an operator of MindSpore, which has no kernel for it on a CPU.

`InstanceNorm` is the operator: called from Python (PyNative mode) it goes through
MindSpore's autograd functions, on shared memory; compiled into a graph it is a custom
operator that calls the same kernels.
"""

from __future__ import annotations

import functools
import sys
from types import FrameType
from typing import Any, NamedTuple

import mindspore
import numpy as np
from mindspore import ops

from instnorm import Tensor, functional, grad, instance_norm, instance_norm_backward
from instnorm._layouts import Array
from instnorm.arrays import check_spatial_size


class Options(NamedTuple):
    """What an operator does besides its arguments x, gamma, beta and slope."""

    eps: float
    activation: str | None = None
    # What the leaky ReLU multiplies negative numbers by; None for the argument `slope`.
    negative_slope: float | None = 0.01

    def epilogue(self, slope: Any) -> dict[str, Any]:
        """Keyword arguments of this package's functions."""
        if self.activation is None:
            return {}
        given = slope if self.negative_slope is None else self.negative_slope
        return {"activation": self.activation, "negative_slope": given}


def _forward(options: Options, x: Array, gamma: Array, beta: Array, slope: Array) -> Any:
    epilogue = options.epilogue(slope)
    return instance_norm(x, gamma, beta, eps=options.eps, return_stats=True, **epilogue)


def _backward(options: Options, *arrays: Array) -> tuple[Any, ...]:
    """Return the gradients for x, gamma, beta and slope; those for a slope without any are 0."""
    g, x, gamma, beta, slope, mean, rstd = arrays
    epilogue = options.epilogue(slope)
    bias = beta if epilogue else None
    found = instance_norm_backward(g, x, gamma, mean=mean, rstd=rstd, bias=bias, **epilogue)
    return (*found[:3], found[4] if len(found) > 3 else np.zeros_like(slope))


# --- PyNative mode -----------------------------------------------------------------


class _Forward(mindspore.common._Function):
    """The normalization of Tensors; its backward pass is a function of its own."""

    @staticmethod
    def forward(ctx: Any, x: Any, gamma: Any, beta: Any, slope: Any, options: Options) -> Any:
        tensors = x, gamma, beta, slope
        y, mean, rstd = _forward(options, *map(ndarray_of, tensors))
        ctx.save_for_backward(*tensors)
        ctx.rest = mean, rstd, options
        return tensor_of(y, x)

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        return (*_Backward.apply(grad_output, *ctx.saved_tensors, *ctx.rest), None)


class _Backward(mindspore.common._Function):
    """The gradients, which can be differentiated in turn."""

    @staticmethod
    def forward(
        ctx: Any,
        grad_output: Any,
        x: Any,
        gamma: Any,
        beta: Any,
        slope: Any,
        mean: Array,
        rstd: Array,
        options: Options,
    ) -> Any:
        likes = x, gamma, beta, slope
        ctx.save_for_backward(grad_output, *likes)
        ctx.options = options
        arrays = map(ndarray_of, (grad_output, *likes))
        gradients = _backward(options, *arrays, mean, rstd)
        return tuple(tensor_of(g, like) for g, like in zip(gradients, likes, strict=True))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        seconds = _SecondBackward.apply(*ctx.saved_tensors, *cotangents, ctx.options)
        return (*seconds, None, None, None)


class _SecondBackward(mindspore.common._Function):
    """The second derivatives, from our own graph."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        *tensors, options = arguments
        # The gradient of the output, the four arguments, and the cotangents of their gradients.
        likes, cotangents = tensors[:5], tensors[5:]
        leaves = [Tensor(ndarray_of(tensor), requires_grad=True) for tensor in likes]
        g, x, gamma, beta, slope = leaves
        y = functional.instance_norm(
            x, weight=gamma, bias=beta, eps=options.eps, **options.epilogue(slope)
        )
        sources = [x, gamma, beta, slope][: 4 if options.negative_slope is None else 3]
        firsts: Any = grad([y], sources, [g], create_graph=True)
        given = [Tensor(ndarray_of(c)) for c, _ in zip(cotangents, sources, strict=False)]
        seconds: Any = grad(firsts, leaves, given, allow_unused=True)
        return tuple(
            tensor_of(np.zeros_like(leaf.data) if second is None else second.data, like)
            for second, leaf, like in zip(seconds, leaves, likes, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        # Without this method MindSpore would compute third derivatives of zero.
        raise NotImplementedError(
            "the instance norm of instnorm.bridge.mindspore can be differentiated twice, "
            "not three times"
        )


def ndarray_of(tensor: Any) -> Array:
    """Return the Tensor's memory; NumPy has no bfloat16, so that is copied to float32."""
    if tensor.dtype == mindspore.bfloat16:
        tensor = tensor.astype(mindspore.float32)
    array: Array = tensor.asnumpy()
    return array


def tensor_of(array: Array, like: Any) -> Any:
    """Return a Tensor of the dtype of `like`, on the memory of `array` where that has it."""
    tensor = mindspore.from_numpy(array)
    return tensor if tensor.dtype == like.dtype else tensor.astype(like.dtype)


# --- graph mode --------------------------------------------------------------------


@functools.cache
def _functions(options: Options) -> Any:
    """What graphs call for some options: MindSpore never lets go of these functions."""

    def forward(x: Array, gamma: Array, beta: Array, slope: Array) -> Any:
        return _forward(options, x, gamma, beta, slope)

    def backward(
        g: Array, x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, rstd: Array
    ) -> Any:
        return _backward(options, g, x, gamma, beta, slope, mean, rstd)

    def like_arguments(g: Any, x: Any, gamma: Any, beta: Any, slope: Any, *statistics: Any) -> Any:
        return x, gamma, beta, slope

    gradients = ops.Custom(backward, like_arguments, like_arguments, func_type="pyfunc")

    def bprop(x, gamma, beta, slope, out, dout):  # type: ignore[no-untyped-def]
        # MindSpore compiles this from its source, and knows no annotations.
        return gradients(dout[0], x, gamma, beta, slope, out[1], out[2])

    return forward, bprop


class InstanceNorm(ops.Custom):
    """The operator (x, gamma, beta, slope) -> (y, ...) for some options.

    A graph takes in the primitive, and with it `forward` and `bprop`; Python calls it. Each
    layer has one of its own, as MindSpore writes to the primitives that a layer has.
    """

    def __init__(self, options: Options) -> None:
        forward, bprop = _functions(options)
        super().__init__(
            forward,
            lambda x, *parameters: (x, x[:2], x[:2]),
            lambda x, *parameters: (x, mindspore.float64, mindspore.float64),
            func_type="pyfunc",
            bprop=bprop,
        )
        self.options = options

    def __call__(self, x: Any, gamma: Any, beta: Any, slope: Any) -> tuple[Any]:
        """Compute it at once, where Python runs."""
        return (_Forward.apply(x, gamma, beta, slope, self.options),)

    def __deepcopy__(self, memo: Any) -> InstanceNorm:
        return InstanceNorm(self.options)


class Composition(ops.PrimitiveWithInfer):
    """In which dtype MindSpore's operators are to compute the norm of x: None for not at all.

    They do so in graphs that the operator above cannot be part of: it calls Python, which is not
    there where an exported graph runs, and MindSpore cannot infer the shape of its results while
    a graph runs, which graphs of dynamic shapes need. Graphs see the answer as a constant.
    """

    def __init__(self) -> None:
        super().__init__("InstnormComposition")

    def __call__(self, x: Any, num_features: int | None = None) -> Any:
        """Return None: where Python runs, the kernels can be called."""
        return None

    def __infer__(self, x: dict[str, Any], num_features: Any = None) -> dict[str, Any]:
        """Find the answer for a graph; of a norm's input also check what the kernels would."""
        dtype, shape = None, x["shape"]
        if _exporting():
            # Devices that graphs are exported for seldom have float64.
            float64 = x["dtype"].element_type() == mindspore.float64
            dtype = mindspore.float64 if float64 else mindspore.float32
        elif min(shape) < 0:
            dtype = mindspore.float64
        if dtype is not None and num_features is not None:
            _check_shape(shape, num_features["value"])
        return {"shape": None, "dtype": None, "value": dtype}


def _check_shape(shape: tuple[int, ...], num_features: int) -> None:
    """Check what is known of a shape: -1 stands for what is not."""
    if len(shape) > 1 and shape[1] not in (-1, num_features):
        raise ValueError(f"x has {shape[1]} channels, expected num_features, {num_features}")
    if min(shape) >= 0:
        check_spatial_size(shape, shape)


def _exporting() -> bool:
    """Whether the graph that is being compiled is for `mindspore.export`, which calls us then."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not mindspore.export.__code__:
        frame = frame.f_back
    return frame is not None
