"""Instance norm as an operator of MindSpore, which has no kernel for it on a CPU.

`_InstanceNorm` is the operator: called from Python (PyNative mode) it goes through
MindSpore's autograd functions, on shared memory; compiled into a graph it is a custom
operator that calls the same kernels.
"""

from __future__ import annotations

import functools
from typing import Any

import mindspore
import numpy as np
from mindspore import ops

from instnorm import Tensor, functional, grad, instance_norm, instance_norm_backward
from instnorm._layouts import Array

# --- PyNative mode -----------------------------------------------------------------


class _Forward(mindspore.common._Function):
    """The normalization of Tensors; its backward pass is a function of its own."""

    @staticmethod
    def forward(ctx: Any, x: Any, gamma: Any, beta: Any, eps: float) -> Any:
        y, mean, rstd = instance_norm(
            ndarray_of(x), ndarray_of(gamma), ndarray_of(beta), eps=eps, return_stats=True
        )
        ctx.save_for_backward(x, gamma)
        ctx.rest = mean, rstd, eps
        return tensor_of(y, x)

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        return (*_Backward.apply(grad_output, *ctx.saved_tensors, *ctx.rest), None)


class _Backward(mindspore.common._Function):
    """The gradients, which can be differentiated in turn."""

    @staticmethod
    def forward(
        ctx: Any, grad_output: Any, x: Any, gamma: Any, mean: Array, rstd: Array, eps: float
    ) -> Any:
        ctx.save_for_backward(grad_output, x, gamma)
        ctx.eps = eps
        grad_input, grad_gamma, grad_beta, *_ = instance_norm_backward(
            ndarray_of(grad_output), ndarray_of(x), ndarray_of(gamma), mean=mean, rstd=rstd
        )
        return tensor_of(grad_input, x), tensor_of(grad_gamma, gamma), tensor_of(grad_beta, gamma)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        seconds = _SecondBackward.apply(*ctx.saved_tensors, *cotangents, ctx.eps)
        return (*seconds, None, None, None)


class _SecondBackward(mindspore.common._Function):
    """The second derivatives, from our own graph."""

    @staticmethod
    def forward(ctx: Any, grad_output: Any, x: Any, gamma: Any, *rest: Any) -> Any:
        *cotangents, eps = rest
        likes = grad_output, x, gamma
        g, a, weight = (Tensor(ndarray_of(tensor), requires_grad=True) for tensor in likes)
        # The results do not depend on the bias, but one is needed to have its gradient.
        bias = Tensor(np.zeros_like(weight.data), requires_grad=True)
        y = functional.instance_norm(a, weight=weight, bias=bias, eps=eps)
        firsts: Any = grad([y], [a, weight, bias], [g], create_graph=True)
        seconds: Any = grad(firsts, [g, a, weight], [Tensor(ndarray_of(c)) for c in cotangents])
        return tuple(
            tensor_of(second.data, like) for second, like in zip(seconds, likes, strict=True)
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


class _InstanceNorm(ops.Custom):
    """The operator (x, gamma, beta) -> (y, ...) for one eps.

    A graph takes in the primitive, and with it `forward` and `bprop`; Python calls it.
    """

    def __init__(self, eps: float) -> None:
        def forward(x: Array, gamma: Array, beta: Array) -> tuple[Array, Array, Array]:
            return instance_norm(x, gamma, beta, eps=eps, return_stats=True)

        def backward(g: Array, x: Array, gamma: Array, mean: Array, rstd: Array) -> Any:
            return instance_norm_backward(g, x, gamma, mean=mean, rstd=rstd)

        def like_inputs(g: Any, x: Any, gamma: Any, mean: Any, rstd: Any) -> Any:
            return x, gamma, gamma

        gradients = ops.Custom(backward, like_inputs, like_inputs, func_type="pyfunc")

        def bprop(x, gamma, beta, out, dout):  # type: ignore[no-untyped-def]
            # MindSpore compiles this from its source, and knows no annotations.
            return gradients(dout[0], x, gamma, out[1], out[2])

        super().__init__(
            forward,
            lambda x, gamma, beta: (x, x[:2], x[:2]),
            lambda x, gamma, beta: (x, mindspore.float64, mindspore.float64),
            func_type="pyfunc",
            bprop=bprop,
        )
        self.eps = eps

    def __call__(self, x: Any, gamma: Any, beta: Any) -> tuple[Any]:
        return (_Forward.apply(x, gamma, beta, self.eps),)


# MindSpore never lets go of a custom operator's functions, so equal eps share one operator.
operator_for = functools.cache(_InstanceNorm)
