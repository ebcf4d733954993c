"""MindSpore's InstanceNorm1d, 2d and 3d on a CPU, where MindSpore has no kernel for them.

`_InstanceNorm` is the operator: called from Python (PyNative mode) it goes through
MindSpore's autograd functions, on shared memory; compiled into a graph it is a custom
operator that calls the same kernels. The layers are MindSpore's own with that operator.
"""

from __future__ import annotations

import contextlib
import functools
import io
from typing import Any

import mindspore
import numpy as np
import numpy.typing as npt
from mindspore import nn, ops

from instnorm import Tensor, functional, grad, instance_norm, instance_norm_backward

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "convert"]

Array = npt.NDArray[Any]


def _settle_numpy() -> None:
    """Have MindSpore meet NumPy 2 here rather than in the user's first operator.

    MindSpore 2.10 is compiled for NumPy 1: the first operator of a process raises
    SystemError and prints a page, all later ones run. An operator that refuses its
    arguments is enough, and leaves the device still to be chosen.
    """
    refusals = contextlib.suppress(SystemError, TypeError)
    with refusals, contextlib.redirect_stderr(io.StringIO()):
        ops.ReduceMean()(mindspore.Tensor([0.0]), "no axis")


_settle_numpy()


# --- PyNative mode -----------------------------------------------------------------


class _Forward(mindspore.common._Function):
    """The normalization of Tensors; its backward pass is a function of its own."""

    @staticmethod
    def forward(ctx: Any, x: Any, gamma: Any, beta: Any, eps: float) -> Any:
        y, mean, rstd = instance_norm(
            _ndarray(x), _ndarray(gamma), _ndarray(beta), eps=eps, return_stats=True
        )
        ctx.save_for_backward(x, gamma)
        ctx.rest = mean, rstd, eps
        return _tensor(y, x)

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
        gradients = instance_norm_backward(
            _ndarray(grad_output), _ndarray(x), _ndarray(gamma), mean=mean, rstd=rstd
        )
        return tuple(map(_tensor, gradients, (x, gamma, gamma)))

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
        g, a, weight = (Tensor(_ndarray(tensor), requires_grad=True) for tensor in likes)
        # The results do not depend on the bias, but one is needed to have its gradient.
        bias = Tensor(np.zeros_like(weight.data), requires_grad=True)
        y = functional.instance_norm(a, weight=weight, bias=bias, eps=eps)
        firsts: Any = grad([y], [a, weight, bias], [g], create_graph=True)
        seconds: Any = grad(firsts, [g, a, weight], [Tensor(_ndarray(c)) for c in cotangents])
        return tuple(
            _tensor(second.data, like) for second, like in zip(seconds, likes, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        # MindSpore would otherwise take the third derivatives for zero.
        raise NotImplementedError(
            "the instance norm of instnorm.bridge.mindspore can be differentiated twice, "
            "not three times"
        )


def _ndarray(tensor: Any) -> Array:
    """Return the Tensor's memory; NumPy has no bfloat16, so that is copied to float32."""
    if tensor.dtype == mindspore.bfloat16:
        tensor = tensor.astype(mindspore.float32)
    array: Array = tensor.asnumpy()
    return array


def _tensor(array: Array, like: Any) -> Any:
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
            # Compiled by MindSpore, which reads this source: no annotations.
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


# MindSpore keeps a custom operator's functions for good: one for each eps will do.
_operator = functools.cache(_InstanceNorm)


# --- the layers --------------------------------------------------------------------


class _Layer(nn.Cell):
    """What the three layers add to MindSpore's."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        gamma_init: Any = "ones",
        beta_init: Any = "zeros",
        dtype: Any = mindspore.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, gamma_init, beta_init, dtype)
        self.instance_bn = _operator(self.eps)

    def construct(self, x):  # type: ignore[no-untyped-def]
        # Compiled by MindSpore, which reads this source: no annotations.
        self._check_input_dim(self.shape(x), self.cls_name)
        return self.instance_bn(x, self.gamma, self.beta)[0]


_DOCSTRING = """`mindspore.nn.InstanceNorm{rank}d`, computed by the kernels of this package.

    .. math::
        y = \\frac{{x - \\mathrm{{mean}}}}{{\\sqrt{{\\mathrm{{var}} + \\epsilon}}}}
            \\cdot \\gamma + \\beta

    A subclass of MindSpore's layer, with its constructor, its checks and its parameters
    `gamma`, `beta`, `moving_mean` and `moving_variance`. It runs in PyNative and in graph
    mode, in training and in evaluation alike by the input's own statistics; the moving
    ones stay as they are. In PyNative mode it can be differentiated twice, in graph mode
    once.

    Parameters
    ----------
    num_features : int
        C, the number of channels; at least 1.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float, default 0.1
        In [0, 1]. It has no effect.
    affine : bool, default True
        Whether `gamma` and `beta` are trained; they are applied in either case.
    gamma_init, beta_init : str, number, mindspore.Tensor or Initializer
        First values, by default 'ones' and 'zeros'.
    dtype : mindspore.dtype, default mindspore.float32
        Of the parameters.

    Shape
    -----
    Input and output: {shapes}, of float16, bfloat16 (PyNative mode only), float32
    or float64.

    Raises
    ------
    TypeError
        If an argument or the input's dtype is of the wrong type.
    ValueError
        If an argument is out of range, or the input's rank or channel count does not fit.
    NotImplementedError
        If third derivatives are asked for; of second ones in graph mode, MindSpore itself
        says that they are not defined.

    References
    ----------
    mindspore.nn.InstanceNorm{rank}d of MindSpore 2.10

    Examples
    --------
    >>> import mindspore, numpy as np
    >>> from instnorm.bridge.mindspore import InstanceNorm{rank}d
    >>> layer = InstanceNorm{rank}d(3)
    >>> isinstance(layer, mindspore.nn.InstanceNorm{rank}d)
    True
    >>> layer(mindspore.Tensor(np.ones({example}, np.float32))).shape
    {example}
    """


class InstanceNorm1d(_Layer, nn.InstanceNorm1d):  # noqa: D101 - template
    __doc__ = _DOCSTRING.format(rank=1, shapes="(N, C, L)", example=(2, 3, 5))


class InstanceNorm2d(_Layer, nn.InstanceNorm2d):  # noqa: D101 - template
    __doc__ = _DOCSTRING.format(rank=2, shapes="(N, C, H, W)", example=(2, 3, 5, 4))


class InstanceNorm3d(_Layer, nn.InstanceNorm3d):  # noqa: D101 - template
    __doc__ = _DOCSTRING.format(rank=3, shapes="(N, C, D, H, W)", example=(2, 3, 5, 4, 2))


_OURS = {
    nn.InstanceNorm1d: InstanceNorm1d,
    nn.InstanceNorm2d: InstanceNorm2d,
    nn.InstanceNorm3d: InstanceNorm3d,
}


def convert(net: Any) -> Any:
    """Make every instance norm of MindSpore in `net` one of this package, in place.

    The layers stay the same objects: parameters, their names, hooks and training flags
    are untouched. Subclasses of MindSpore's layers are left as they are.

    Parameters
    ----------
    net : mindspore.nn.Cell
        A network, or a layer by itself.

    Returns
    -------
    mindspore.nn.Cell
        `net`.

    Raises
    ------
    TypeError
        If `net` is no Cell.

    Examples
    --------
    >>> import mindspore, numpy as np
    >>> from instnorm.bridge.mindspore import convert
    >>> net = convert(mindspore.nn.SequentialCell(mindspore.nn.InstanceNorm2d(3)))
    >>> net(mindspore.Tensor(np.ones((1, 3, 4, 4), np.float32))).shape
    (1, 3, 4, 4)
    """
    if not isinstance(net, nn.Cell):
        raise TypeError(f"net must be a mindspore.nn.Cell, got {type(net).__name__}")
    for _, cell in net.cells_and_names():
        if type(cell) in _OURS:
            cell.__class__ = _OURS[type(cell)]
            cell.instance_bn = _operator(cell.eps)
    return net
