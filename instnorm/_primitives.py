"""The differentiable operations that Tensor's methods are made of.

Two kinds. Linear maps (reshape, sum, indexing, padding, ...) are all one Function,
`Linear`: a linear map's gradient is its adjoint, which is a linear map again. The
others each have a Function whose backward is written in Tensor operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from instnorm._layouts import Array
from instnorm._runtime import memory
from instnorm._runtime.simd import layers
from instnorm._special import erf
from instnorm.autograd import Function, is_grad_enabled

if TYPE_CHECKING:
    from instnorm.tensor import Tensor

ArrayMap: TypeAlias = Callable[[Array], Array]


# --- linear maps ---------------------------------------------------------------


class Linear(Function):
    """``forward_map(x)``, for a linear map of arrays given together with its adjoint."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, forward_map: ArrayMap, adjoint_map: ArrayMap, result: Array | None
    ) -> Any:
        """Apply the map, unless its result is known."""
        ctx.maps = forward_map, adjoint_map
        if result is None:
            result = forward_map(x.data)
        return x.view_of_memory(result) if np.may_share_memory(result, x.data) else result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        """Apply the adjoint, whose own adjoint is the map."""
        forward_map, adjoint_map = ctx.maps
        return linear(grad_output, adjoint_map, forward_map), None, None, None


def linear(
    x: Tensor, forward_map: ArrayMap, adjoint_map: ArrayMap, result: Array | None = None
) -> Tensor:
    """``forward_map(x)``, or `result` where that is known, differentiable by ``adjoint_map``."""
    return Linear.apply(x, forward_map, adjoint_map, result)


def sum_to_shape(array: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which `shape` was broadcast to the array's shape."""
    if array.shape == shape:
        return array
    extra = array.ndim - len(shape)
    stretched = [extra + i for i, n in enumerate(shape) if n == 1 and array.shape[extra + i] != 1]
    return _sum(array, (*range(extra), *stretched), keepdims=True).reshape(shape)


def is_half(dtype: np.dtype[Any]) -> bool:
    """Tell whether `dtype` is float16 or bfloat16."""
    return dtype.name in ("float16", "bfloat16")


def _sum(array: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    if not is_half(array.dtype):
        wide = np.int64 if array.dtype.kind in "biu" else None
        return np.asarray(array.sum(axis=axes, keepdims=keepdims, dtype=wide))
    # In bfloat16, 256 + 1 is 256: sums of half precision are taken in float32.
    with np.errstate(over="ignore"):
        summed = array.sum(axis=axes, keepdims=keepdims, dtype=np.float32)
        return np.asarray(summed.astype(array.dtype))


def _unbroadcast(gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo on a gradient what broadcasting did to an operand of `shape`."""
    if gradient.shape == shape:
        return gradient
    full = gradient.shape
    return linear(gradient, lambda a: sum_to_shape(a, shape), lambda a: np.broadcast_to(a, full))


def scatter_add(shape: tuple[int, ...], index: Any) -> ArrayMap:
    """The adjoint of ``a[index]`` for arrays of `shape`: adds up where indices repeat."""
    parts = index if isinstance(index, tuple) else (index,)
    basic = all(
        p is None or p is Ellipsis or isinstance(p, slice | int | np.integer) for p in parts
    )

    def adjoint(gradient: Array) -> Array:
        result = np.zeros(shape, gradient.dtype)
        if basic:
            result[index] = gradient
        else:
            np.add.at(result, index, gradient)
        return result

    return adjoint


# --- compiled loops --------------------------------------------------------------


def looped(task: str, a: Array, b: Array | None = None, number: float = 0.0) -> Array | None:
    """The result of a loop of `_layers.elementwise`; None where it does not take these arrays."""
    out = memory.empty_like(a) if a.nbytes >= memory.SMALLEST_RECYCLED else np.empty_like(a)
    return out if layers.elementwise(task, a, b, out, number) else None


def added(a: Array, b: Array) -> Array:
    """The sum of both; by several threads where that pays."""
    if a.nbytes >= memory.SMALLEST_RECYCLED and a.shape == b.shape and a.dtype == b.dtype:
        result = looped("add", a, b)
        if result is not None:
            return result
    return np.asarray(a + b)


def multiplied(a: Array, b: Array, bias: Array | None = None) -> Array:
    """The product of matrices or batches of them, and a bias for each of its rows.

    By loops of our own where there is one for the dtype: the threads of NumPy's BLAS would spin
    between its products, on the processors of the kernels' threads.
    """
    if not (a.dtype == b.dtype and a.dtype.char in "fd" and a.ndim == b.ndim and a.ndim in (2, 3)):
        product = np.asarray(np.matmul(a, b))
        return product if bias is None else product + bias[:, None]
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        return np.asarray(np.matmul(a, b))  # broadcasts, or raises NumPy's error
    out = memory.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    layers.multiply(aligned(a), aligned(b), bias, out)
    return out


def aligned(array: Array) -> Array:
    """The array as compiled loops can read it: native and aligned; itself, or a copy."""
    plain = array.flags.aligned and array.dtype.isnative
    return array if plain else array.astype(array.dtype.newbyteorder("="))


# --- arithmetic ------------------------------------------------------------------

_KIND_OF_NUMBER = {"b": 0, "i": 1, "u": 1}


def result_dtype(a: Array, b: Array) -> np.dtype[Any]:
    """The dtype of an operation on both, by PyTorch's rules.

    Floats come before integers, and integers before bool, whatever their widths; among numbers
    of one kind, arrays come before scalars; what is left is NumPy's.
    """
    kinds = [_KIND_OF_NUMBER.get(array.dtype.kind, 2) for array in (a, b)]
    if kinds[0] != kinds[1]:
        return a.dtype if kinds[0] > kinds[1] else b.dtype
    if (a.ndim == 0) != (b.ndim == 0):
        return a.dtype if a.ndim else b.dtype
    return np.promote_types(a.dtype, b.dtype)


def alike(a: Tensor, b: Tensor) -> tuple[Array, Array]:
    """The values of both, in the dtype of an operation on them."""
    x, y = a.data, b.data
    if x.dtype is y.dtype:
        return x, y
    dtype = result_dtype(x, y)
    return x.astype(dtype, copy=False), y.astype(dtype, copy=False)


def floating(array: Array) -> Array:
    """The array; integers and bool as float32, as the functions of real numbers take them."""
    return array.astype(np.float32) if array.dtype.kind in "biu" else array


def _quietly(ufunc: Any, *arrays: Array) -> Array:
    """Apply a ufunc; inf and NaN stand in the result, as in PyTorch, and warn of nothing."""
    with np.errstate(all="ignore"):
        return np.asarray(ufunc(*arrays))


class Add(Function):
    """a + b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Array:
        ctx.shapes = a.shape, b.shape
        return added(*alike(a, b))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (shape_a, shape_b), (need_a, need_b) = ctx.shapes, ctx.needs_input_grad
        return (
            _unbroadcast(g, shape_a) if need_a else None,
            _unbroadcast(g, shape_b) if need_b else None,
        )


class Sub(Function):
    """a - b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Array:
        ctx.shapes = a.shape, b.shape
        x, y = alike(a, b)
        return np.asarray(x - y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (shape_a, shape_b), (need_a, need_b) = ctx.shapes, ctx.needs_input_grad
        return (
            _unbroadcast(g, shape_a) if need_a else None,
            _unbroadcast(-g, shape_b) if need_b else None,
        )


class Mul(Function):
    """a * b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Array:
        need_a, need_b = ctx.needs_input_grad
        ctx.shapes = a.shape, b.shape
        ctx.save_for_backward(a if need_b else None, b if need_a else None)
        x, y = alike(a, b)
        return np.asarray(x * y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """d(ab) = da b + a db."""
        (a, b), (shape_a, shape_b) = ctx.saved_tensors, ctx.shapes
        return (
            None if b is None else _unbroadcast(g * b, shape_a),
            None if a is None else _unbroadcast(g * a, shape_b),
        )


class Div(Function):
    """a / b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Array:
        ctx.save_for_backward(a, b)
        x, y = alike(a, b)
        return _quietly(np.divide, floating(x), floating(y))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """d(a/b) = da / b - a db / b^2."""
        (a, b), (need_a, need_b) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            _unbroadcast(g / b, a.shape) if need_a else None,
            _unbroadcast(-g * (a / b / b), b.shape) if need_b else None,
        )


def floor_divided(a: Array, b: Array) -> Array:
    """How often b goes into a, a whole number."""
    return _quietly(np.floor_divide, a, b)


class Remainder(Function):
    """a % b, which has the sign of b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Array:
        x, y = alike(a, b)
        ctx.shapes, ctx.quotient = (a.shape, b.shape), floor_divided(x, y)
        return _quietly(np.remainder, x, y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """d(a % b) = da - (a // b) db."""
        (shape_a, shape_b), (need_a, need_b) = ctx.shapes, ctx.needs_input_grad
        return (
            _unbroadcast(g, shape_a) if need_a else None,
            _unbroadcast(-g * ctx.quotient, shape_b) if need_b else None,
        )


class Maximum(Function):
    """The larger of a and b; where they are equal, they share the gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Array:
        x, y = alike(a, b)
        ctx.shapes, half = (a.shape, b.shape), (x == y) * 0.5
        ctx.shares = [(1 - (lost | (x == y)) + half).astype(x.dtype) for lost in (x < y, y < x)]
        return np.maximum(x, y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Each gets its share; NaN loses nothing."""
        grad_a, grad_b = (
            _unbroadcast(g * share, shape) if need else None
            for share, shape, need in zip(ctx.shares, ctx.shapes, ctx.needs_input_grad, strict=True)
        )
        return grad_a, grad_b


class Pow(Function):
    """a ** b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Array:
        result = _quietly(np.power, *alike(a, b))
        ctx.save_for_backward(a, b)
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """d(a^b) = b a^(b-1) da + a^b log(a) db; x^0 has gradient 0, for x = 0 too."""
        (a, b), (need_a, need_b) = ctx.saved_tensors, ctx.needs_input_grad
        grad_a = grad_b = None
        if need_a:
            exponent = (b - 1).where(b.data != 0, b)
            grad_a = _unbroadcast(g * (b * a**exponent), a.shape)
        if need_b:
            # 0^b is flat in b for b > 0, where log(0) would give 0 * -inf.
            log_a = a.where((a.data != 0) | (b.data < 0), a + 1).log()
            grad_b = _unbroadcast(g * (a**b * log_a), b.shape)
        return grad_a, grad_b


class MatMul(Function):
    """a @ b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Array:
        """Multiply matrices; leading axes broadcast."""
        if a.ndim == 0 or b.ndim == 0:
            raise ValueError(
                f"matmul needs at least 1 axis on both sides, got {a.shape} @ {b.shape}"
            )
        dtype = a.dtype
        if dtype != b.dtype:
            raise RuntimeError(
                f"a matrix product needs both sides of one dtype, got {dtype} and {b.dtype}; "
                "cast one of them, for example by x.float(), or a model by net.double()"
            )
        ctx.save_for_backward(a, b)
        if is_half(dtype):  # NumPy is slow at float16, and has no bfloat16 matmul
            return np.asarray(_quietly(np.matmul, a.float().data, b.float().data), dtype)
        return multiplied(a.data, b.data)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """DA = dY B^T, dB = A^T dY, with vectors taken as one-row or one-column matrices."""
        (a, b), (need_a, need_b) = ctx.saved_tensors, ctx.needs_input_grad
        matrix_a = a.reshape(1, -1) if a.ndim == 1 else a
        matrix_b = b.reshape(-1, 1) if b.ndim == 1 else b
        if a.ndim == 1:
            g = g.reshape(*g.shape[: max(b.ndim - 2, 0)], 1, *g.shape[max(b.ndim - 2, 0) :])
        if b.ndim == 1:
            g = g.reshape(*g.shape, 1)
        grad_a = grad_b = None
        if need_a:
            grad_a = _unbroadcast(g @ matrix_b.transpose(-1, -2), matrix_a.shape).reshape(a.shape)
        if need_b:
            grad_b = _unbroadcast(matrix_a.transpose(-1, -2) @ g, matrix_b.shape).reshape(b.shape)
        return grad_a, grad_b


class Assign(Function):
    """x with other values at an index."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, index: Any) -> Array:
        """Copy x, and overwrite."""
        ctx.index, ctx.shape = index, value.shape
        result = x.data.copy(order="K")
        result[index] = value.data
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """The values get the gradient at the index, and x that of the rest."""
        kept = np.ones(g.shape, bool)
        kept[ctx.index] = False
        value = _unbroadcast(g[ctx.index], ctx.shape) if ctx.needs_input_grad[1] else None
        return g.where(kept, 0.0), value, None


class Where(Function):
    """a where the mask is True, b elsewhere."""

    @staticmethod
    def forward(ctx: Any, mask: Array, a: Tensor, b: Tensor) -> Array:
        """Select element by element, with broadcasting."""
        ctx.mask, ctx.shapes = mask, (a.shape, b.shape)
        return np.where(mask, *alike(a, b))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        """Each side gets the gradient where it was selected, and 0 elsewhere."""
        (shape_a, shape_b), (_, need_a, need_b) = ctx.shapes, ctx.needs_input_grad
        zero = g.zeros_like()
        return (
            None,
            _unbroadcast(g.where(ctx.mask, zero), shape_a) if need_a else None,
            _unbroadcast(zero.where(ctx.mask, g), shape_b) if need_b else None,
        )


# --- element by element ------------------------------------------------------------


class _Elementwise(Function):
    """A function of each element; its subclasses are the lines of the table below."""

    value: Callable[[Array], Array]
    gradient: Callable[..., Tensor]
    uses: str | None
    of_integers: bool

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor | Array:
        """Compute the value, and save what its gradient is made of: that or the argument."""
        result = np.asarray(ctx.value(x.data if ctx.of_integers else floating(x.data)))
        saved = x.new(result) if ctx.uses == "y" else x
        if ctx.uses is not None:
            ctx.save_for_backward(saved)
        return saved if ctx.uses == "y" else result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Compute the gradient for the argument."""
        result: Tensor = ctx.gradient(g, *ctx.saved_tensors)
        return result


def _elementwise(
    name: str,
    value: Callable[[Array], Any],
    gradient: Callable[..., Any],
    uses: str | None = None,
    of_integers: bool = False,
) -> type[_Elementwise]:
    """A line of the table; `gradient` is a function of the result's gradient, and of x or y.

    Integers are taken as float32, but where a function is one `of_integers` too.
    """
    attributes = {
        "value": staticmethod(value),
        "gradient": staticmethod(gradient),
        "uses": uses,
        "of_integers": of_integers,
    }
    return type(name, (_Elementwise,), attributes)


def _sigmoid(a: Array) -> Array:
    return _quietly(lambda a: 1 / (1 + np.exp(-a)), a)  # where exp overflows, it is 0, rightly


def _widely(function: ArrayMap) -> ArrayMap:
    """The same function, computed in float32 where its argument is half precision."""

    def wide(a: Array) -> Array:
        if is_half(a.dtype):
            return np.asarray(_quietly(function, a.astype(np.float32)), a.dtype)
        return _quietly(function, a)

    return wide


def _normal_cdf(x: Tensor) -> Tensor:
    return (Erf.apply(x * math.sqrt(0.5)) + 1) * 0.5


def _normal_density(x: Tensor) -> Tensor:
    return (x * x * -0.5).exp() * (1 / math.sqrt(2 * math.pi))


def _softplus(a: Array) -> Array:
    return _quietly(lambda a: np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a))), a)


Neg = _elementwise("Neg", np.negative, lambda g: -g, of_integers=True)
Abs = _elementwise("Abs", np.abs, lambda g, x: g * np.sign(x.data), "x", of_integers=True)
Exp = _elementwise("Exp", partial(_quietly, np.exp), lambda g, y: g * y, "y")
Log = _elementwise("Log", partial(_quietly, np.log), lambda g, x: g / x, "x")
Sqrt = _elementwise("Sqrt", partial(_quietly, np.sqrt), lambda g, y: g / (y * 2), "y")
Sin = _elementwise("Sin", partial(_quietly, np.sin), lambda g, x: g * x.cos(), "x")
Cos = _elementwise("Cos", partial(_quietly, np.cos), lambda g, x: -g * x.sin(), "x")
Sign = _elementwise("Sign", np.sign, lambda g: g.zeros_like(), of_integers=True)
Round = _elementwise("Round", np.round, lambda g: g.zeros_like(), of_integers=True)
Floor = _elementwise("Floor", np.floor, lambda g: g.zeros_like(), of_integers=True)
Ceil = _elementwise("Ceil", np.ceil, lambda g: g.zeros_like(), of_integers=True)
# The square root of a sum of squares, as in a norm, whose gradient at 0 is 0.
Root = _elementwise("Root", np.sqrt, lambda g, y: g * (0.5 / y.where(y.data != 0, math.inf)), "y")
Tanh = _elementwise("Tanh", np.tanh, lambda g, y: g * (1 - y * y), "y")
Sigmoid = _elementwise("Sigmoid", _sigmoid, lambda g, y: g * (y * (1 - y)), "y")
Softplus = _elementwise("Softplus", _softplus, lambda g, x: g * x.sigmoid(), "x")
Erf = _elementwise(
    "Erf", _widely(erf), lambda g, x: g * ((-x * x).exp() * (2 / math.sqrt(math.pi))), "x"
)
GELU = _elementwise(
    "GELU",
    _widely(lambda a: a * (0.5 + 0.5 * erf(a * math.sqrt(0.5)))),
    lambda g, x: g * (_normal_cdf(x) + x * _normal_density(x)),
    "x",
)
SiLU = _elementwise(
    "SiLU",
    _widely(lambda a: a * _sigmoid(a)),
    lambda g, x: g * (x.sigmoid() * (1 + x * (1 - x.sigmoid()))),
    "x",
)


class Clamp(Function):
    """Each element, or the bound that it is beyond."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, least: float | None, most: float | None) -> Array:
        """Clip; NaN stays NaN."""
        ctx.inside = np.ones(x.shape, bool)
        result = x.data
        if least is not None:
            ctx.inside &= x.data >= least
            result = np.maximum(*alike(x, x._operand(least)))
        if most is not None:
            ctx.inside &= x.data <= most
            result = np.minimum(*alike(x.new(result), x._operand(most)))
        return np.asarray(result)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """The gradient passes where the element is not beyond a bound."""
        return g * ctx.inside, None, None


class LeakyReLU(Function):
    """x where x > 0, slope * x elsewhere; slope 0 is ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor | Array:
        """Rectify; NaN stays NaN."""
        ctx.slope = slope
        result = looped("rectify", x.data, None, slope)
        if result is None:
            zero, factor = x.data.dtype.type(0), x.data.dtype.type(slope)
            below = np.minimum(x.data, zero) * factor if slope else zero
            result = np.where(x.data > 0, x.data, np.where(np.isnan(x.data), x.data, below))
        if not ctx.needs_input_grad[0]:
            return result
        # The signs are those of x, and in most nets somebody else keeps the result anyway.
        y = x.new(result) if slope >= 0 else None
        ctx.save_for_backward(x if y is None else y)
        return result if y is None else y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        """The derivative is 1 where x > 0, slope elsewhere."""
        (signs,) = ctx.saved_tensors
        if is_grad_enabled():
            return LeakyReLUGradient.apply(g, signs.data, ctx.slope), None
        return g.new(LeakyReLUGradient.forward(ctx, g, signs.data, ctx.slope)), None


class LeakyReLUGradient(Function):
    """g where a number is above 0, slope * g elsewhere."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, signs: Array, slope: float) -> Array:
        """Multiply by the derivative."""
        ctx.signs, ctx.slope = signs, slope
        result = looped("rectify_gradient", g.data, signs, slope)
        if result is None:
            result = np.asarray(g.data * np.where(signs > 0, 1, slope).astype(g.dtype))
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """The map is its own adjoint."""
        return LeakyReLUGradient.apply(g, ctx.signs, ctx.slope), None, None


class Amax(Function):
    """The largest element along axes; those that tie share the gradient evenly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> Array:
        """Maximum, with the reduced axes kept at size 1; NaN if there is one."""
        result = x.data.max(axis=axes, keepdims=True)
        largest = (x.data == result) | np.isnan(x.data)
        ctx.share = (largest / largest.sum(axis=axes, keepdims=True)).astype(x.dtype)
        return np.asarray(result)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        """Each of the largest gets its share."""
        return g * ctx.share, None


class Cat(Function):
    """Tensors one after the other along an axis."""

    @staticmethod
    def forward(ctx: Any, axis: int, *parts: Tensor) -> Array:
        """Join."""
        ctx.axis, ctx.lengths = axis, [part.shape[axis] for part in parts]
        return np.concatenate([part.data for part in parts], axis)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Split."""
        return None, *split(g, ctx.lengths, ctx.axis)


class Softmax(Function):
    """exp(x) / sum(exp(x)) along axes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Softmax; the maximum is subtracted first, so that exp cannot overflow."""
        powers = np.exp(_quietly(np.subtract, x.data, x.data.max(axis=axes, keepdims=True)))
        y = x.new(powers / _sum(powers, axes, keepdims=True))
        ctx.save_for_backward(y)
        ctx.axes = axes
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        """The gradient is y * (g - sum(g * y))."""
        y: Tensor
        (y,) = ctx.saved_tensors
        return y * (g - (g * y).sum(ctx.axes, keepdim=True)), None


class LogSoftmax(Function):
    """x - log(sum(exp(x))) along axes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Log of the softmax; the maximum is subtracted first, so that exp cannot overflow."""
        shifted = _quietly(np.subtract, x.data, x.data.max(axis=axes, keepdims=True))
        y = x.new(shifted - np.log(np.exp(shifted).sum(axis=axes, keepdims=True)))
        ctx.save_for_backward(y)
        ctx.axes = axes
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        """The gradient is g - softmax(x) * sum(g)."""
        y: Tensor
        (y,) = ctx.saved_tensors
        return g - y.exp() * g.sum(ctx.axes, keepdim=True), None


# --- reductions and shapes -----------------------------------------------------------


def sum_over(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """Sum over axes, counted from 0."""
    full = x.shape
    kept = tuple([1 if i in axes else n for i, n in enumerate(full)])
    return linear(
        x,
        lambda a: _sum(a, axes, keepdim),
        lambda a: np.broadcast_to(a.reshape(kept), full),
    )


def reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same elements in another shape, without a copy where strides allow."""
    before = x.shape
    return linear(x, lambda a: a.reshape(shape), lambda a: a.reshape(before))


def permuted(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The same elements with the axes in another order, without a copy."""
    inverse = tuple(np.argsort(axes).tolist())
    return linear(x, lambda a: a.transpose(axes), lambda a: a.transpose(inverse))


def broadcasted(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Repeat along axes of size 1 and new leading axes, without a copy."""
    before = x.shape
    return linear(x, lambda a: np.broadcast_to(a, shape), lambda a: sum_to_shape(a, before))


def indexed(x: Tensor, index: Any) -> Tensor:
    """``x[index]`` by NumPy's rules."""
    return linear(x, lambda a: _view_at(a, index), scatter_add(x.shape, index))


def _view_at(array: Array, index: Any) -> Array:
    result = array[index]
    if isinstance(result, np.ndarray):
        return result
    # A single element: with an ellipsis NumPy gives a view of it, not a copy.
    return np.asarray(array[(*index, ...) if isinstance(index, tuple) else (index, ...)])


def taken_along(x: Tensor, indices: Array, axis: int) -> Tensor:
    """One element for each index along an axis; no index comes twice in a row of them."""
    shape = x.shape

    def adjoint(gradient: Array) -> Array:
        result = np.zeros(shape, gradient.dtype)
        np.put_along_axis(result, indices, gradient, axis)
        return result

    return linear(x, lambda a: np.take_along_axis(a, indices, axis), adjoint)


def split(x: Tensor, lengths: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    """Parts of these lengths along an axis."""
    ends = np.cumsum(lengths).tolist()
    before = (slice(None),) * axis
    return tuple([x[(*before, slice(end - n, end))] for end, n in zip(ends, lengths, strict=True)])


def accumulated(x: Tensor, axis: int) -> Tensor:
    """Sums of each element and those before it along an axis."""

    def forwards(array: Array) -> Array:
        wide = np.float32 if is_half(array.dtype) else None
        return np.cumsum(array, axis, dtype=wide).astype(array.dtype, copy=False)

    return linear(x, forwards, lambda a: np.flip(forwards(np.flip(a, axis)), axis))


def product_over(x: Tensor, axis: int) -> Tensor:
    """The product along an axis, which it keeps: halves are multiplied until one is left.

    Unlike the quotient of product and element, the gradients of this are right where there are
    zeros.
    """
    before = (slice(None),) * axis
    while x.shape[axis] > 1:
        half = x.shape[axis] // 2
        product = x[(*before, slice(0, half))] * x[(*before, slice(half, 2 * half))]
        rest = x[(*before, slice(2 * half, None))]
        x = product if rest.shape[axis] == 0 else Cat.apply(axis, product, rest)
    return x


def cast(x: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """The same values in another dtype."""
    before = x.dtype
    return linear(x, lambda a: a.astype(dtype), lambda a: a.astype(before))


def axes_of(dim: int | tuple[int, ...] | list[int] | None, ndim: int) -> tuple[int, ...]:
    """`dim` as axes counted from 0; None stands for all.

    Raises
    ------
    IndexError
        If an axis is out of range.
    ValueError
        If an axis comes twice.
    """
    if dim is None:
        return tuple(range(ndim))
    dims = (dim,) if not isinstance(dim, tuple | list) else tuple(dim)
    bound = max(ndim, 1)
    for d in dims:
        if not -bound <= d < bound:
            raise IndexError(f"dim {d} is out of range, expected from {-bound} to {bound - 1}")
    axes = tuple([d % bound for d in dims])
    if len(set(axes)) != len(axes):
        raise ValueError(f"dim {dim} names an axis twice")
    return axes if ndim else ()


def elements_over(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """How many elements are reduced to one."""
    return math.prod([shape[axis] for axis in axes])
