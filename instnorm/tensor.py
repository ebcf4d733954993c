"""Tensor: an ndarray that can remember how it was computed, to be differentiated.

The class holds the array, the gradient and the link into the graph. Its arithmetic
is in `_primitives`, the graph in `autograd`.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import math
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from sys import getrefcount
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    NamedTuple,
    ParamSpec,
    TypeAlias,
    TypeVar,
    cast,
)

import numpy as np
import numpy.typing as npt

from instnorm import _primitives as ops
from instnorm import autograd
from instnorm._missing import missing

if TYPE_CHECKING:
    from typing import Self

    from instnorm.autograd import Function, RemovableHandle

__all__ = ["Tensor", "allclose", "equal", "is_tensor", "tensor"]

Options = ParamSpec("Options")
Result = TypeVar("Result")
Operand: TypeAlias = "Tensor | npt.NDArray[Any] | float"


_new = object.__new__
_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


class Device(str):
    """Where a Tensor is: on the CPU."""

    __slots__ = ()

    def __new__(cls, name: object = "cpu") -> Device:
        check_device(name)
        return super().__new__(cls, "cpu")

    @property
    def type(self) -> str:
        """The kind of device."""
        return str(self)


def check_device(device: object) -> None:
    """Raise an error unless it is the CPU."""
    if device is not None and str(device) not in ("cpu", "cpu:0"):
        raise ValueError(f"device must be None or 'cpu', got {device!r}")


_CPU = Device()


class SortResult(NamedTuple):
    """What `sort` and `topk` return."""

    values: Tensor
    indices: Tensor


class MaxResult(NamedTuple):
    """What ``x.max(dim)`` and ``x.min(dim)`` return."""

    values: Tensor
    indices: Tensor


_F = TypeVar("_F", bound=Callable[..., Any])


def takes_axis(function: _F) -> _F:
    """Let a function take `axis` for `dim` and `keepdims` for `keepdim`, as PyTorch's do."""

    @functools.wraps(function)
    def with_axis(*args: Any, **kwargs: Any) -> Any:
        for numpys, ours in (("axis", "dim"), ("keepdims", "keepdim")):
            if numpys in kwargs and ours not in kwargs:
                kwargs[ours] = kwargs.pop(numpys)
        return function(*args, **kwargs)

    return cast("_F", with_axis)


# What PyTorch's Tensor has and this one has not: what to write.
INSTEAD = {
    "cuda": "instnorm computes on the CPU",
    "is_cuda": "instnorm computes on the CPU",
    "type": "write x.to(dtype)",
    "type_as": "write x.to(other.dtype)",
    "new_zeros": "write instnorm.zeros(shape, dtype=x.dtype)",
    "new_ones": "write instnorm.ones(shape, dtype=x.dtype)",
    "new_tensor": "write instnorm.tensor(data, dtype=x.dtype)",
    "masked_select": "write x[mask]",
    "index_fill_": "write x[index] = value",
    "scatter_": "write x[index] = value; nearest: functional.one_hot",
    "scatter_add_": "nearest: numpy.add.at(x.data, index, values)",
    "index_add_": "nearest: numpy.add.at(x.data, index, values)",
    "narrow": "write x[:, start : start + length]",
    "select": "write x[:, index]",
    "diagonal": "write x.diag()",
    "movedim": "write x.permute(dims)",
    "swapaxes": "write x.transpose(dim0, dim1)",
    "mT": "write x.transpose(-1, -2)",
    "unsqueeze_": "write x = x.unsqueeze(dim)",
    "squeeze_": "write x = x.squeeze(dim)",
    "lerp_": "write x.mul_(1 - weight).add_(y, alpha=weight)",
    "lerp": "write x + (y - x) * weight",
    "log1p": "write (x + 1).log()",
    "expm1": "write x.exp() - 1",
    "log2": "write x.log() / math.log(2)",
    "log10": "write x.log() / math.log(10)",
    "rsqrt": "write x**-0.5",
    "reciprocal": "write 1 / x",
    "outer": "write x.unsqueeze(1) * y",
    "median": "nearest: numpy.median(x.detach())",
    "quantile": "nearest: numpy.quantile(x.detach(), q)",
    "bincount": "nearest: numpy.bincount(x)",
    "trace": "write x.diag().sum()",
    "cumprod": "write x.log().cumsum(dim).exp(), where x is positive",
    "nan_to_num": "write x.where(~x.isnan(), 0.0)",
    "std_mean": "write x.std(dim), x.mean(dim)",
    "var_mean": "write x.var(dim), x.mean(dim)",
    "take": "write x.flatten()[index]",
    "tile": "write x.repeat(sizes)",
    "roll": "write instnorm.cat([x[-shift:], x[:-shift]])",
    "repeat_interleave": "nearest: x[instnorm.arange(len(x) * n) // n]",
    "multinomial": "nearest: numpy.random.Generator.choice(len(p), p=p)",
    "bernoulli_": "write x.copy_(instnorm.rand(x.shape) < p)",
    "stride": "write x.data.strides, which are in bytes",
    "ndimension": "write x.ndim",
    **dict.fromkeys(
        ["flags", "nbytes"],
        "an ndarray has it; where an operation asks for it, a Tensor was assigned to x.data, "
        "which is an ndarray: write x.data = y.data",
    ),
}


class Tensor:
    """An n-dimensional array with gradients.

    Operations follow NumPy's broadcasting; names, dtype promotion and behaviour are
    PyTorch's.

    Parameters
    ----------
    data : array_like
        An ndarray is shared, not copied. Python floats become float32.
    requires_grad : bool, default False
        Whether `backward` should compute a gradient for this Tensor.

    Attributes
    ----------
    data : ndarray
        The values. Writing to them is not seen by the graph.
    grad : Tensor or None
        The gradient that `backward` has accumulated so far.
    grad_fn : Function or None
        The node that computed this Tensor; None for a leaf.

    Raises
    ------
    TypeError
        If the data are not bool, integer or real floating point.
    RuntimeError
        If gradients are required of a dtype that is not floating point.

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    __slots__ = (
        "__weakref__",
        "_counter",
        "_grad",
        "_hooks",
        "_output_index",
        "_requires_grad",
        "data",
        "grad_fn",
    )

    data: npt.NDArray[Any]
    grad_fn: Function | None
    _output_index: int  # which output of `grad_fn` it is; not set for a leaf
    _counter: list[int]  # how often the memory was changed in place; views share it

    def __init__(
        self, data: npt.ArrayLike | Tensor, requires_grad: bool = False, *more: object
    ) -> None:
        if more or not isinstance(requires_grad, bool | np.bool_):
            given = ", ".join(map(repr, (data, requires_grad, *more)))
            raise TypeError(
                f"Tensor takes data and requires_grad, a bool, got ({given}); a Tensor of a shape "
                f"is made by instnorm.zeros({given})"
            )
        self.data = _as_array(data)
        self.grad_fn = None
        self._grad: Tensor | None = None
        self._hooks: dict[int, Any] | None = None
        self._requires_grad = False
        self._counter = data._counter if isinstance(data, Tensor) else [0]
        self.requires_grad = requires_grad

    @staticmethod
    def _of(array: npt.NDArray[Any]) -> Tensor:
        """Wrap an array that is known to be fit, at the least cost."""
        self = _new(Tensor)
        self.data = array
        self.grad_fn = self._grad = self._hooks = None
        self._requires_grad = False
        self._counter = [0]
        return self

    def view_of_memory(self, array: npt.NDArray[Any]) -> Tensor:
        """Wrap an array that shares this Tensor's memory; changes to either are seen."""
        view = Tensor._of(array)
        view._counter = self._counter
        return view

    def new(self, array: npt.NDArray[Any]) -> Tensor:
        """Wrap an array in a Tensor with no history."""
        return Tensor._of(np.asarray(array))

    # --- the graph -----------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are computed for this Tensor."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.data.dtype.kind in "biu":
            raise RuntimeError(
                "only Tensors of floating point dtype can require gradients, "
                f"and this one has dtype {self.data.dtype}"
            )
        if not value and self.grad_fn is not None:
            raise RuntimeError(
                "requires_grad can be switched off only for leaves; use x.detach() for a Tensor "
                "outside the graph"
            )
        self._requires_grad = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad`, and return the Tensor itself."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether the Tensor was created by the user and not by a recorded operation."""
        return self.grad_fn is None

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated by `backward`, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, got {type(value).__name__}")
            if value.shape != self.shape:
                raise RuntimeError(
                    f"grad has shape {value.shape}, expected that of the Tensor, {self.shape}"
                )
            if value.dtype != self.dtype:
                raise RuntimeError(
                    f"grad has dtype {value.dtype}, expected that of the Tensor, {self.dtype}"
                )
        self._grad = value

    def _set_history(self, node: Function, index: int) -> None:
        self.grad_fn = node
        self._output_index = index
        self._requires_grad = True

    def mark_changed(self) -> None:
        """Record that the memory was changed, after writing to `data` directly."""
        self._counter[0] += 1

    @property
    def _version(self) -> int:
        return self._counter[0]

    def backward(
        self,
        gradient: npt.ArrayLike | Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add the gradients of this Tensor to the `grad` of every leaf it depends on.

        Parameters
        ----------
        gradient : Tensor or array_like, optional
            The gradient of the final loss for this Tensor, of its shape; 1 for a
            Tensor of one element.
        retain_graph : bool, optional
            Whether to keep the graph, to run through it again; by default as
            `create_graph`.
        create_graph : bool, default False
            Whether the gradients should be differentiable.

        Raises
        ------
        RuntimeError
            If the Tensor does not require gradients, `gradient` is missing or has
            the wrong shape, the graph was freed by an earlier pass, or a Tensor that
            it needs was changed in place.
        """
        seeds = [autograd.seed(self, gradient)]
        autograd.run_backward(seeds, None, create_graph, retain_graph)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Have `hook` called with this Tensor's gradient in each backward pass.

        Parameters
        ----------
        hook : callable
            A Tensor that it returns takes the gradient's place.

        Returns
        -------
        RemovableHandle
            Its method `remove` takes the hook back.

        Raises
        ------
        RuntimeError
            If the Tensor does not require gradients; in the backward pass, if the hook
            returns something else than None or a Tensor of the gradient's shape.

        Examples
        --------
        >>> import instnorm
        >>> x = instnorm.tensor([1.0], requires_grad=True)
        >>> handle = x.register_hook(lambda gradient: gradient * 10)
        >>> (x * 2).backward()
        >>> x.grad
        tensor([20.])
        """
        return autograd.register_hook(self, hook)

    def retain_grad(self) -> None:
        """Have `backward` set the `grad` of this Tensor as well, though it is no leaf."""
        if self.grad_fn is None:
            return
        this = weakref.ref(self)  # as the node, which this Tensor holds, holds the hook

        def keep(gradient: Tensor) -> None:
            tensor = this()
            if tensor is not None:
                so_far = tensor._grad
                tensor._grad = gradient if so_far is None else so_far + gradient

        autograd.register_hook(self, keep)

    def detach(self) -> Tensor:
        """Return a Tensor that shares the memory but has no history."""
        return self.view_of_memory(self.data)

    # --- the array -----------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype of the elements."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def device(self) -> Device:
        """Where the Tensor is: on the CPU."""
        return _CPU

    def dim(self) -> int:
        """Return the number of axes."""
        return self.data.ndim

    def size(self, dim: int | None = None) -> Any:
        """Return the size of each axis, or of one."""
        return self.shape if dim is None else self.shape[ops.axes_of(dim, self.ndim)[0]]

    def numel(self) -> int:
        """Return the number of elements."""
        return self.data.size

    nelement = numel

    def numpy(self) -> npt.NDArray[Any]:
        """Return the ndarray, sharing memory.

        Raises
        ------
        RuntimeError
            If the Tensor requires gradients, which NumPy would lose: detach it first.
        """
        if self._requires_grad:
            raise RuntimeError(
                "numpy() of a Tensor that requires gradients would lose them; "
                "use x.detach().numpy()"
            )
        return self.data

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is None:  # which NumPy 1 does not know
            return np.asarray(self.numpy(), dtype=dtype)
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Let NumPy's functions see the values, as ndarrays, where this loses no gradients."""
        values = [_plain(func.__name__, value) for value in args]
        return func(*values, **{key: _plain(func.__name__, value) for key, value in kwargs.items()})

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any
    ) -> npt.NDArray[Any] | Tensor:
        """``ndarray + Tensor`` is a Tensor; ``ndarray += Tensor`` writes into the ndarray."""
        if ufunc in _OF_UFUNC and method == "__call__" and not kwargs:
            return _OF_UFUNC[ufunc](self._operand(inputs[0]), inputs[1])  # type: ignore[no-any-return]
        values = [_plain(ufunc.__name__, value) for value in inputs]
        return getattr(ufunc, method)(*values, **kwargs)  # type: ignore[no-any-return]

    def item(self) -> Any:
        """Return the only element, as a Python number.

        Raises
        ------
        RuntimeError
            If there is not exactly one element.
        """
        if self.data.size != 1:
            raise RuntimeError(f"item() needs a Tensor of one element, got shape {self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        """Return the elements as nested lists of Python numbers."""
        return self.data.tolist()

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a Tensor without axes has no len()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self[i] for i in range(len(self))])

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> builtins.float:
        return builtins.float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.data.dtype.kind not in "biu":
            raise TypeError(f"only a Tensor of integers is an index, and this one is {self.dtype}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else object.__format__(self, spec)

    def __getattr__(self, name: str) -> Any:
        # Python calls this only where the ordinary lookup has found no attribute.
        if name.startswith("__"):
            raise AttributeError(f"Tensor has no attribute {name!r}")
        raise missing("Tensor", name, dir(Tensor), INSTEAD)

    def __repr__(self) -> str:
        text = np.array2string(self.data, separator=", ", prefix="tensor(")
        if self.dtype.name not in ("float32", "int64", "bool"):
            text += f", dtype={self.dtype}"
        if self.grad_fn is not None:
            text += f", grad_fn=<{type(self.grad_fn).__name__}>"
        elif self._requires_grad:
            text += ", requires_grad=True"
        return f"tensor({text})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.grad_fn is not None:
            raise RuntimeError("only leaves can be copied or pickled; detach() the Tensor first")
        return _rebuild, (type(self), self.data, self._requires_grad, self._grad)

    # --- arithmetic ----------------------------------------------------------

    def _operand(self, other: Operand) -> Tensor:
        """Wrap an operand; a Python number takes this Tensor's dtype where it can."""
        if isinstance(other, Tensor):
            return other
        if isinstance(other, np.ndarray):
            return Tensor(other)
        if isinstance(other, bool | int | float):
            dtype = self.data.dtype
            if dtype.kind in "biu" and isinstance(other, float):
                dtype = _FLOAT32
            elif dtype.kind == "b" and not isinstance(other, bool):
                dtype = _INT64
            return Tensor._of(np.asarray(other, dtype))
        return Tensor(other)

    def __add__(self, other: Operand) -> Tensor:
        return ops.Add.apply(self, self._operand(other))

    __radd__ = __add__

    def __sub__(self, other: Operand) -> Tensor:
        return ops.Sub.apply(self, self._operand(other))

    def __rsub__(self, other: Operand) -> Tensor:
        return ops.Sub.apply(self._operand(other), self)

    def __mul__(self, other: Operand) -> Tensor:
        return ops.Mul.apply(self, self._operand(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> Tensor:
        return ops.Div.apply(self, self._operand(other))

    def __rtruediv__(self, other: Operand) -> Tensor:
        return ops.Div.apply(self._operand(other), self)

    def __mod__(self, other: Operand) -> Tensor:
        return ops.Remainder.apply(self, self._operand(other))

    def __rmod__(self, other: Operand) -> Tensor:
        return ops.Remainder.apply(self._operand(other), self)

    def __floordiv__(self, other: Operand) -> Tensor:
        return Tensor._of(ops.floor_divided(*ops.alike(self, self._operand(other))))

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return self._operand(other) // self

    def __pow__(self, other: Operand) -> Tensor:
        return ops.Pow.apply(self, self._operand(other))

    def __rpow__(self, other: Operand) -> Tensor:
        return ops.Pow.apply(self._operand(other), self)

    def __matmul__(self, other: Tensor | npt.NDArray[Any]) -> Tensor:
        return ops.MatMul.apply(self, self._operand(other))

    def __rmatmul__(self, other: Tensor | npt.NDArray[Any]) -> Tensor:
        return ops.MatMul.apply(self._operand(other), self)

    def matmul(self, other: Tensor | npt.NDArray[Any]) -> Tensor:
        """``self @ other``, which have to be of one dtype."""
        return self @ other

    mm = bmm = dot = matmul

    def pow(self, exponent: Operand) -> Tensor:
        """``self ** exponent``."""
        return self**exponent

    def __neg__(self) -> Tensor:
        return ops.Neg.apply(self)

    def add(self, other: Operand, *, alpha: builtins.float = 1) -> Tensor:
        """``self + alpha * other``."""
        return self + (other if alpha == 1 else other * alpha)

    def sub(self, other: Operand, *, alpha: builtins.float = 1) -> Tensor:
        """``self - alpha * other``."""
        return self - (other if alpha == 1 else other * alpha)

    mul, div, remainder, neg = __mul__, __truediv__, __mod__, __neg__

    def where(self, condition: Tensor | npt.NDArray[Any], other: Operand) -> Tensor:
        """Return these elements where `condition` is True, those of `other` elsewhere."""
        # A copy, as the graph keeps it, and the caller may change the array before backward.
        mask = _as_array(condition).copy()
        result: Tensor = ops.Where.apply(mask, self, self._operand(other))
        return result

    def masked_fill(self, mask: Tensor | npt.NDArray[Any], value: Operand) -> Tensor:
        """Return these elements, and `value` where the mask is True."""
        return self.where(~_as_array(mask), value)

    def maximum(self, other: Operand) -> Tensor:
        """Return the larger of both, element by element; equal ones share the gradient."""
        return ops.Maximum.apply(self, self._operand(other))

    def minimum(self, other: Operand) -> Tensor:
        """Return the smaller of both, element by element; see `maximum`."""
        return -(-self).maximum(-self._operand(other))

    def zeros_like(self) -> Tensor:
        """Return zeros of the same shape and dtype."""
        return Tensor._of(np.zeros(self.shape, self.dtype))

    # Comparisons give bool Tensors, outside the graph.

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._compare(np.equal, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._compare(np.not_equal, other)

    def __lt__(self, other: Any) -> Tensor:
        return self._compare(np.less, other)

    def __le__(self, other: Any) -> Tensor:
        return self._compare(np.less_equal, other)

    def __gt__(self, other: Any) -> Tensor:
        return self._compare(np.greater, other)

    def __ge__(self, other: Any) -> Tensor:
        return self._compare(np.greater_equal, other)

    eq, ne, lt, le, gt, ge = __eq__, __ne__, __lt__, __le__, __gt__, __ge__

    def __and__(self, other: Any) -> Tensor:
        return self._compare(np.bitwise_and, other)

    def __or__(self, other: Any) -> Tensor:
        return self._compare(np.bitwise_or, other)

    def __xor__(self, other: Any) -> Tensor:
        return self._compare(np.bitwise_xor, other)

    def __invert__(self) -> Tensor:
        return Tensor._of(np.asarray(np.invert(self.data)))

    def _compare(self, ufunc: np.ufunc, other: Any) -> Tensor:
        if not isinstance(other, Tensor | np.ndarray | np.generic | int | float | list | tuple):
            return NotImplemented  # type: ignore[no-any-return]
        return Tensor._of(np.asarray(ufunc(self.data, self._operand(other).data)))  # type: ignore[arg-type]

    __hash__ = object.__hash__

    def isnan(self) -> Tensor:
        """Tell of each element whether it is NaN."""
        return Tensor._of(np.asarray(np.isnan(self.data)))

    def isinf(self) -> Tensor:
        """Tell of each element whether it is infinite."""
        return Tensor._of(np.asarray(np.isinf(self.data)))

    def isfinite(self) -> Tensor:
        """Tell of each element whether it is neither infinite nor NaN."""
        return Tensor._of(np.asarray(np.isfinite(self.data)))

    @takes_axis
    def any(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """Tell whether an element is True, or not 0; of all, or along the axes in `dim`."""
        return Tensor._of(np.asarray(np.any(self.data, axis=dim, keepdims=keepdim)))

    @takes_axis
    def all(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """Tell whether every element is True, or not 0; of all, or along the axes in `dim`."""
        return Tensor._of(np.asarray(np.all(self.data, axis=dim, keepdims=keepdim)))

    def nonzero(self, as_tuple: bool = False) -> Any:
        """Return the indices of the elements that are not 0: a row each, or a Tensor an axis."""
        if as_tuple:
            return tuple([Tensor._of(indices) for indices in np.nonzero(self.data)])
        return Tensor._of(np.argwhere(self.data))

    def unique(self) -> Tensor:
        """Return the different elements, in order."""
        return Tensor._of(np.unique(self.data))

    # --- element by element ----------------------------------------------------

    def exp(self) -> Tensor:
        """E to the power of each element."""
        return ops.Exp.apply(self)

    def log(self) -> Tensor:
        """Natural logarithm of each element."""
        return ops.Log.apply(self)

    def sqrt(self) -> Tensor:
        """Square root of each element."""
        return ops.Sqrt.apply(self)

    def abs(self) -> Tensor:
        """Absolute value of each element."""
        return ops.Abs.apply(self)

    __abs__ = abs  # noqa: A003 - the method above

    def square(self) -> Tensor:
        """Square of each element."""
        return self * self

    def sin(self) -> Tensor:
        """Sine of each element."""
        return ops.Sin.apply(self)

    def cos(self) -> Tensor:
        """Cosine of each element."""
        return ops.Cos.apply(self)

    def sign(self) -> Tensor:
        """-1, 0 or 1 for each element; its gradient is 0, as those of `round`, `floor`, `ceil`."""
        return ops.Sign.apply(self)

    def round(self) -> Tensor:
        """The nearest integer to each element, of two the even one."""
        return ops.Round.apply(self)

    def floor(self) -> Tensor:
        """The next lower integer to each element."""
        return ops.Floor.apply(self)

    def ceil(self) -> Tensor:
        """The next higher integer to each element."""
        return ops.Ceil.apply(self)

    def tanh(self) -> Tensor:
        """Hyperbolic tangent of each element."""
        return ops.Tanh.apply(self)

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x)) of each element."""
        return ops.Sigmoid.apply(self)

    def relu(self) -> Tensor:
        """``max(0, x)`` of each element; its gradient at 0 is 0."""
        return ops.LeakyReLU.apply(self, 0.0)

    def clamp(self, min: builtins.float | None = None, max: builtins.float | None = None) -> Tensor:
        """Each element, or the bound that it is beyond.

        Raises
        ------
        RuntimeError
            If no bound is given.
        """
        if min is None and max is None:
            raise RuntimeError("at least one of min and max must be given")
        return ops.Clamp.apply(self, min, max)

    clip = clamp

    def softmax(self, dim: int) -> Tensor:
        """``exp(x) / sum(exp(x))`` along an axis, computed without overflow.

        Parameters
        ----------
        dim : int
            The axis whose elements add up to 1.

        Returns
        -------
        Tensor

        Raises
        ------
        IndexError
            If `dim` is out of range.

        Examples
        --------
        >>> import instnorm
        >>> instnorm.tensor([[0.0, 0.0], [1000.0, 0.0]]).softmax(dim=1)
        tensor([[0.5, 0.5],
                [1. , 0. ]])
        """
        return ops.Softmax.apply(self, ops.axes_of(int(dim), self.ndim))

    def log_softmax(self, dim: int) -> Tensor:
        """``x - log(sum(exp(x)))`` along an axis, computed without overflow; see `softmax`."""
        return ops.LogSoftmax.apply(self, ops.axes_of(int(dim), self.ndim))

    def logsumexp(self, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
        """``log(sum(exp(x)))`` over the axes in `dim`, computed without overflow."""
        largest = self.detach().amax(dim, keepdim=True)
        largest = largest.where(largest.isfinite(), 0.0)
        result = (self - largest).exp().sum(dim, keepdim=True).log() + largest
        return result if keepdim else result.sum(dim)

    # --- reductions --------------------------------------------------------------

    @takes_axis
    def sum(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """Sum over all axes, or over those in `dim`."""
        return ops.sum_over(self, ops.axes_of(dim, self.ndim), keepdim)

    @takes_axis
    def mean(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """Mean over all axes, or over those in `dim`."""
        if ops.is_half(self.dtype):  # whose range the sum or the count may exceed
            return self.float().mean(dim, keepdim).to(self.dtype)
        axes = ops.axes_of(dim, self.ndim)
        return ops.sum_over(self, axes, keepdim) / ops.elements_over(self.shape, axes)

    @takes_axis
    def var(
        self,
        dim: Any = None,
        unbiased: bool = True,
        keepdim: bool = False,
        *,
        correction: builtins.float | None = None,
    ) -> Tensor:
        """Variance over all axes, or over those in `dim`.

        Parameters
        ----------
        dim : int or tuple of int, optional
        unbiased : bool, default True
            Whether to divide by one less than the number of elements.
        keepdim : bool, default False
        correction : float, optional
            How much less than the number of elements to divide by; in place of `unbiased`.

        Returns
        -------
        Tensor
            NaN where nothing is left to divide by.
        """
        if isinstance(dim, bool):  # PyTorch's var(unbiased)
            dim, unbiased = None, dim
        if ops.is_half(self.dtype):
            return self.float().var(dim, unbiased, keepdim, correction=correction).to(self.dtype)
        less = int(unbiased) if correction is None else correction
        axes = ops.axes_of(dim, self.ndim)
        centred = self - self.mean(axes, keepdim=True)
        left = builtins.max(ops.elements_over(self.shape, axes) - less, 0)
        return (centred * centred).sum(axes, keepdim) / left

    @takes_axis
    def std(
        self,
        dim: Any = None,
        unbiased: bool = True,
        keepdim: bool = False,
        *,
        correction: builtins.float | None = None,
    ) -> Tensor:
        """Square root of `var`, with its arguments; where it is 0, so is its gradient."""
        return ops.Root.apply(self.var(dim, unbiased, keepdim, correction=correction))

    @takes_axis
    def norm(
        self,
        p: builtins.float | str = 2,
        dim: int | tuple[int, ...] | None = None,
        keepdim: bool = False,
    ) -> Tensor:
        """``(abs(x) ** p).sum() ** (1 / p)`` over all axes, or over those in `dim`.

        Parameters
        ----------
        p : float or 'fro', default 2
            Greater than 0; infinity for the largest absolute value. 'fro' is 2.
        dim : int or tuple of int, optional
        keepdim : bool, default False

        Examples
        --------
        >>> import instnorm
        >>> instnorm.tensor([3.0, -4.0]).norm()
        tensor(5.)
        """
        p = 2.0 if p == "fro" else p
        if isinstance(p, str) or not p > 0:
            raise ValueError(f"p must be greater than 0 or 'fro', got {p!r}")
        if ops.is_half(self.dtype):
            return self.float().norm(p, dim, keepdim).to(self.dtype)
        if p == 2:
            return ops.Root.apply((self * self).sum(dim, keepdim))
        if p == math.inf:
            return self.abs().amax(dim, keepdim)
        if p == 1:
            return self.abs().sum(dim, keepdim)
        total = (self.abs() ** p).sum(dim, keepdim)
        nonzero = total.data != 0
        return (total.where(nonzero, 1.0) ** (1 / p)).where(nonzero, 0.0)

    @takes_axis
    def prod(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Product of all elements, or along an axis."""
        array = self.reshape(-1) if dim is None or self.ndim == 0 else self
        (axis,) = ops.axes_of(0 if dim is None else int(dim), array.ndim)
        if array.shape[axis] == 0:
            result = array.sum(axis, keepdim=True) + 1
        else:
            result = ops.product_over(array, axis)
        if dim is None or not keepdim or self.ndim == 0:
            return result.reshape(result.shape[:axis] + result.shape[axis + 1 :])
        return result

    def cumsum(self, dim: int) -> Tensor:
        """Sum of each element and those before it along an axis."""
        (axis,) = ops.axes_of(int(dim), max(self.ndim, 1))
        return ops.accumulated(self, axis) if self.ndim else self.clone()

    @takes_axis
    def amax(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """Largest element over all axes, or over those in `dim`; ties share the gradient."""
        axes = ops.axes_of(dim, self.ndim)
        if 0 in [self.shape[axis] for axis in axes]:
            raise ValueError(f"max over no elements: the Tensor has shape {self.shape}")
        result: Tensor = ops.Amax.apply(self, axes)
        if keepdim:
            return result
        return result.reshape([n for axis, n in enumerate(self.shape) if axis not in axes])

    @takes_axis
    def amin(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """Smallest element over all axes, or over those in `dim`; ties share the gradient."""
        return -(-self).amax(dim, keepdim)

    @takes_axis
    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """Largest element, or with `dim` the largest along it and where each is.

        Parameters
        ----------
        dim : int, optional
            The axis to reduce.
        keepdim : bool, default False
            Whether to keep that axis, at size 1.

        Returns
        -------
        Tensor, or with `dim` the named tuple (values, indices)
            Where several are largest, the first is taken, and gets the whole
            gradient; without `dim`, they share it evenly.

        Examples
        --------
        >>> import instnorm
        >>> x = instnorm.tensor([[1.0, 5.0], [7.0, 2.0]])
        >>> x.max()
        tensor(7.)
        >>> x.max(dim=1).indices
        tensor([1, 0])
        """
        if isinstance(dim, Tensor):  # PyTorch's max of two Tensors
            return self.maximum(dim)
        return self.amax() if dim is None else self._extreme(np.argmax, dim, keepdim)

    @takes_axis
    def min(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """Smallest element, or with `dim` the smallest along it and where each is; see `max`."""
        if isinstance(dim, Tensor):
            return self.minimum(dim)
        return self.amin() if dim is None else self._extreme(np.argmin, dim, keepdim)

    def _extreme(self, which: Callable[..., Any], dim: int, keepdim: bool) -> MaxResult:
        (axis,) = ops.axes_of(int(dim), max(self.ndim, 1))
        array = self if self.ndim else self.reshape(1)
        if array.shape[axis] == 0:
            raise ValueError(f"max over no elements: the Tensor has shape {self.shape}")
        indices = which(array.data, axis=axis, keepdims=True)
        values = ops.taken_along(array, indices, axis)
        kept = values.shape
        shape = kept if keepdim and self.ndim else kept[:axis] + kept[axis + 1 :]
        return MaxResult(values.reshape(shape), Tensor._of(indices.reshape(shape)))

    @takes_axis
    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Index of the largest element, in the flattened Tensor or along `dim`."""
        return Tensor._of(np.asarray(np.argmax(self.data, axis=dim, keepdims=keepdim)))

    @takes_axis
    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Index of the smallest element, in the flattened Tensor or along `dim`."""
        return Tensor._of(np.asarray(np.argmin(self.data, axis=dim, keepdims=keepdim)))

    def sort(self, dim: int = -1, descending: bool = False) -> SortResult:
        """Put the elements along an axis in order; return them, and where each was."""
        order = self.argsort(dim, descending)
        return SortResult(self.gather(dim, order), order)

    def argsort(self, dim: int = -1, descending: bool = False) -> Tensor:
        """Indices that put the elements along an axis in order; equal ones stay as they are."""
        if not descending:
            return Tensor._of(np.argsort(self.data, axis=dim, kind="stable"))
        backwards = np.argsort(np.flip(self.data, dim), axis=dim, kind="stable")
        return Tensor._of(np.flip(self.data.shape[dim] - 1 - backwards, dim))

    def topk(self, k: int, dim: int = -1, largest: bool = True) -> SortResult:
        """The `k` largest or smallest elements along an axis, in order, and where each was."""
        (axis,) = ops.axes_of(int(dim), self.ndim)
        if not 0 <= k <= self.shape[axis]:
            raise ValueError(f"k must be from 0 to {self.shape[axis]}, got {k}")
        first = self.argsort(axis, descending=largest)[(slice(None),) * axis + (slice(k),)]
        return SortResult(self.gather(axis, first), first)

    # --- shapes --------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        """Return the same elements in another shape; one size may be -1."""
        return ops.reshaped(self, sizes_of(shape))

    def view(self, *shape: Any) -> Tensor:
        """`reshape`, under PyTorch's other name: a copy is made where strides demand one."""
        return self.reshape(*shape)

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> Tensor:
        """Leave out all axes of size 1, or those of size 1 in `dim`."""
        axes = ops.axes_of(dim, self.ndim)
        return self.reshape([n for i, n in enumerate(self.shape) if n != 1 or i not in axes])

    def unsqueeze(self, dim: int) -> Tensor:
        """Put an axis of size 1 in front of axis `dim`."""
        (axis,) = ops.axes_of(int(dim), self.ndim + 1)
        return self.reshape(*self.shape[:axis], 1, *self.shape[axis:])

    def expand(self, *sizes: Any) -> Tensor:
        """Repeat along axes of size 1 and new leading axes, without a copy; -1 keeps a size."""
        shape = sizes_of(sizes)
        own = (-1,) * (len(shape) - self.ndim) + self.shape
        if len(own) > len(shape):
            raise ValueError(f"sizes has {len(shape)} entries, expected at least {self.ndim}")
        return self.broadcast_to([o if n == -1 else n for n, o in zip(shape, own, strict=True)])

    def repeat(self, *sizes: Any) -> Tensor:
        """Repeat the whole along each axis; further leading entries make new axes."""
        times = sizes_of(sizes)
        if len(times) < self.ndim:
            raise ValueError(f"sizes has {len(times)} entries, expected at least {self.ndim}")
        shape = (1,) * (len(times) - self.ndim) + self.shape
        single = self.reshape([n for size in shape for n in (1, size)])
        pairs = [n for pair in zip(times, shape, strict=True) for n in pair]
        return single.broadcast_to(pairs).reshape(
            [t * n for t, n in zip(times, shape, strict=True)]
        )

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Cut an axis into parts of one size, the last may be smaller, or of given sizes."""
        (axis,) = ops.axes_of(int(dim), self.ndim)
        length = self.shape[axis]
        if isinstance(split_size, int):
            if split_size < 1:
                raise ValueError(f"split_size must be at least 1, got {split_size}")
            starts = range(0, length, split_size) or [0]
            sizes = [builtins.min(split_size, length - start) for start in starts]
        else:
            sizes = list(split_size)
            if sum(sizes) != length or builtins.min(sizes, default=0) < 0:
                raise ValueError(
                    f"split_size is {sizes}, expected sizes that add up to {length}, "
                    f"the length of axis {axis}"
                )
        return ops.split(self, sizes, axis)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """Cut an axis into at most that many parts, all but the last of one size."""
        if chunks < 1:
            raise ValueError(f"chunks must be at least 1, got {chunks}")
        (axis,) = ops.axes_of(int(dim), self.ndim)
        return self.split(builtins.max(-(-self.shape[axis] // chunks), 1), axis)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Join the axes from `start_dim` to `end_dim` into one."""
        if self.ndim == 0:
            return self.reshape(1)
        (start,), (end,) = ops.axes_of(start_dim, self.ndim), ops.axes_of(end_dim, self.ndim)
        if start > end:
            raise ValueError(f"start_dim {start_dim} comes after end_dim {end_dim}")
        joined = ops.elements_over(self.shape, tuple(range(start, end + 1)))
        return self.reshape(*self.shape[:start], joined, *self.shape[end + 1 :])

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Swap two axes."""
        first, second = ops.axes_of(dim0, self.ndim), ops.axes_of(dim1, self.ndim)
        swap = dict(zip(first + second, second + first, strict=True))  # {} for a 0-d Tensor
        return ops.permuted(self, tuple([swap.get(axis, axis) for axis in range(self.ndim)]))

    def permute(self, *dims: Any) -> Tensor:
        """Put the axes in the order `dims`."""
        axes = ops.axes_of(sizes_of(dims), self.ndim)
        if len(axes) != self.ndim:
            raise ValueError(f"dims has {len(axes)} axes, expected all {self.ndim}")
        return ops.permuted(self, axes)

    def t(self) -> Tensor:
        """The matrix, transposed; a vector or a number as it is."""
        if self.ndim > 2:
            raise RuntimeError(f"t() needs at most 2 axes, got shape {self.shape}; see transpose")
        return self.T

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's name
        """The axes in reverse order."""
        return ops.permuted(self, tuple(range(self.ndim))[::-1])

    def broadcast_to(self, *shape: Any) -> Tensor:
        """Repeat along axes of size 1 and new leading axes, without a copy."""
        return ops.broadcasted(self, sizes_of(shape))

    def view_as(self, other: Tensor) -> Tensor:
        """Return the same elements in the shape of another Tensor."""
        return self.reshape(other.shape)

    def expand_as(self, other: Tensor) -> Tensor:
        """Repeat, without a copy, as `expand` to the shape of another Tensor."""
        return self.expand(other.shape)

    def flip(self, *dims: Any) -> Tensor:
        """Reverse the order along axes."""
        axes = ops.axes_of(sizes_of(dims), self.ndim)
        return ops.linear(self, lambda a: np.flip(a, axes), lambda a: np.flip(a, axes))

    def tril(self, diagonal: int = 0) -> Tensor:
        """Set the elements above a diagonal of matrices to 0."""
        return ops.linear(self, lambda a: np.tril(a, diagonal), lambda a: np.tril(a, diagonal))

    def triu(self, diagonal: int = 0) -> Tensor:
        """Set the elements below a diagonal of matrices to 0."""
        return ops.linear(self, lambda a: np.triu(a, diagonal), lambda a: np.triu(a, diagonal))

    def diag(self) -> Tensor:
        """Return a matrix's diagonal, or the matrix that has a vector as its diagonal."""
        if self.ndim == 1:
            return self * np.eye(len(self), dtype=self.dtype)
        if self.ndim != 2:
            raise RuntimeError(f"diag() needs a vector or a matrix, got shape {self.shape}")
        places = np.arange(builtins.min(self.shape))
        return self[places, places]

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """Return the entries along an axis."""
        (axis,) = ops.axes_of(int(dim), self.ndim)
        return tuple([self[(slice(None),) * axis + (i,)] for i in range(self.shape[axis])])

    def __getitem__(self, index: Any) -> Tensor:
        return ops.indexed(self, _plain_index(index))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the entries along an axis that `index` lists."""
        (axis,) = ops.axes_of(int(dim), self.ndim)
        return self[(slice(None),) * axis + (index,)]

    def gather(self, dim: int, index: Tensor) -> Tensor:
        """Return, for each place in `index`, the element that it names along an axis.

        Parameters
        ----------
        dim : int
        index : Tensor of integers
            With as many axes as this Tensor, none but `dim` longer than its own.

        Examples
        --------
        >>> import instnorm
        >>> scores = instnorm.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> scores.gather(1, instnorm.tensor([[1], [0]]))
        tensor([[2.],
                [3.]])
        """
        (axis,) = ops.axes_of(int(dim), self.ndim)
        if index.ndim != self.ndim:
            raise ValueError(f"index has {index.ndim} axes, expected {self.ndim}")
        places: list[Any] = list(np.ogrid[tuple([slice(n) for n in index.shape])])
        places[axis] = index
        return self[tuple(places)]

    # --- copies and dtypes -----------------------------------------------------------

    def clone(self) -> Tensor:
        """Return a copy that is connected to the graph."""
        return ops.linear(self, lambda a: a.copy(order="K"), lambda a: a)

    def contiguous(self) -> Tensor:
        """Return the Tensor itself, or a copy, whose memory is in the order of the axes."""
        if self.data.flags.c_contiguous:
            return self
        return ops.linear(self, np.ascontiguousarray, lambda a: a)

    def is_contiguous(self) -> bool:
        """Return whether the memory is in the order of the axes."""
        return self.data.flags.c_contiguous

    def to(self, *target: Any, device: Any = None, dtype: npt.DTypeLike | None = None) -> Tensor:
        """Return the Tensor itself, or a copy in another dtype.

        Parameters
        ----------
        *target : dtype, device or Tensor
            In any order; of a Tensor, its dtype is meant.
        device : {None, 'cpu'}, optional
            For PyTorch's sake.
        dtype : dtype, optional

        Examples
        --------
        >>> import instnorm
        >>> instnorm.tensor([1, 2]).to("cpu", instnorm.float32)
        tensor([1., 2.])
        """
        new = target_dtype(*target, device=device, dtype=dtype)
        return self if new is None or new == self.dtype else ops.cast(self, new)

    def cpu(self) -> Tensor:
        """Return the Tensor, which is there already."""
        return self

    def half(self) -> Tensor:
        """Return the values as float16."""
        return self.to(np.float16)

    def float(self) -> Tensor:
        """Return the values as float32."""
        return self.to(np.float32)

    def double(self) -> Tensor:
        """Return the values as float64."""
        return self.to(np.float64)

    def long(self) -> Tensor:
        """Return the values as int64, cut towards 0."""
        return self.to(np.int64)

    # --- in place ------------------------------------------------------------------

    def _change(self, index: Any, array: npt.NDArray[Any], *others: object) -> Self:
        """Overwrite ``self[index]``, outside the graph, where this loses no gradient."""
        recorded = builtins.any(isinstance(t, Tensor) and t.requires_grad for t in (self, *others))
        if autograd.is_grad_enabled() and recorded:
            raise RuntimeError(
                "in-place operations are not recorded in the graph for leaves that require "
                "gradients and for views. Compute a new Tensor (x = x + 1), assign to the whole "
                "(x[0] = x[0] + 1), or, to update a parameter, use a `with no_grad():` block."
            )
        self._check_fits(array)
        self.data[index] = array
        self.mark_changed()
        return self

    def _check_fits(self, array: npt.NDArray[Any]) -> None:
        if not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"cannot write {array.dtype} values into a {self.dtype} Tensor in place"
            )

    def __setitem__(self, index: Any, value: Operand) -> None:
        index, value = _plain_index(index), self._operand(value)
        self._check_fits(value.data)
        if autograd.is_recorded(self, value):
            self._become(lambda x: ops.Assign.apply(x, value, index), value)
        else:
            self._change(index, value.data)

    def _become(self, operation: Callable[[Tensor], Tensor], *operands: object) -> Self:
        """Take on the result of an operation on this Tensor, in its memory and in the graph."""
        recorded = autograd.is_recorded(self, *[t for t in operands if isinstance(t, Tensor)])
        is_leaf = self.grad_fn is None and self._requires_grad
        if not recorded or is_leaf or self._is_view():
            with autograd.no_grad():
                result = operation(self).data
            return self._change(..., result, *operands)
        # Of its own memory, as the operation may need the values for its gradient.
        before = Tensor._of(self.data.copy(order="K"))
        if self.grad_fn is not None:
            before._set_history(self.grad_fn, self._output_index)
        after = operation(before)
        if after.shape != self.shape or after.dtype != self.dtype:
            raise RuntimeError(
                f"a Tensor of shape {self.shape} and dtype {self.dtype} cannot hold the result, "
                f"of shape {after.shape} and dtype {after.dtype}, in place"
            )
        self.data[...] = after.data
        self.mark_changed()
        if after.grad_fn is not None:
            self._set_history(after.grad_fn, after._output_index)
        return self

    def _is_view(self) -> bool:
        """Whether there is another Tensor of this memory, whose history would have to change too.

        Where that Tensor is gone, as the ones inside of a batch norm are, nobody else counts the
        changes.
        """
        counter = self._counter
        shared = getrefcount(counter) > autograd._UNSHARED + 1  # the Tensor's own reference
        return shared and isinstance(self.grad_fn, ops.Linear) and self.data.base is not None

    def __iadd__(self, other: Operand) -> Self:
        return self._become(lambda x: x + other, other)

    def __isub__(self, other: Operand) -> Self:
        return self._become(lambda x: x - other, other)

    def __imul__(self, other: Operand) -> Self:
        return self._become(lambda x: x * other, other)

    def __itruediv__(self, other: Operand) -> Self:
        return self._become(lambda x: x / other, other)

    def __ipow__(self, other: Operand) -> Self:
        return self._become(lambda x: x**other, other)

    def copy_(self, source: Operand) -> Self:
        """Overwrite the values in place."""
        return self._change(..., self._operand(source).data.astype(self.dtype), source)

    def zero_(self) -> Self:
        """Set all values to zero in place."""
        return self.fill_(0)

    def fill_(self, value: Operand) -> Self:
        """Set all values to one value in place."""
        return self.copy_(value)

    def normal_(self, mean: builtins.float = 0.0, std: builtins.float = 1.0) -> Self:
        """Overwrite with draws from a normal distribution."""
        return self.copy_(_generator().normal(mean, std, self.shape))

    def uniform_(self, low: builtins.float = 0.0, high: builtins.float = 1.0) -> Self:
        """Overwrite with draws from the uniform distribution on [low, high)."""
        return self.copy_(_generator().uniform(low, high, self.shape))


# What NumPy calls where an ndarray or one of its scalars stands left of a Tensor and an operator.
_OF_UFUNC: dict[np.ufunc, Callable[[Any, Any], Any]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.true_divide: operator.truediv,
    np.floor_divide: operator.floordiv,
    np.remainder: operator.mod,
    np.power: operator.pow,
    np.matmul: operator.matmul,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
    np.bitwise_and: operator.and_,
    np.bitwise_or: operator.or_,
    np.bitwise_xor: operator.xor,
}


def _generator() -> np.random.Generator:
    from instnorm.creation import generator  # which makes Tensors, so imports this module

    return generator()


def _plain(function: str, value: Any) -> Any:
    """The value as a function of NumPy takes it: the Tensors in it as ndarrays."""
    if isinstance(value, list | tuple):
        return type(value)([_plain(function, entry) for entry in value])
    if isinstance(value, Tensor) and value.requires_grad:
        raise RuntimeError(
            f"numpy.{function} of a Tensor that requires gradients would lose them; "
            f"use a method of the Tensor, or numpy.{function}(x.detach())"
        )
    return value.data if isinstance(value, Tensor) else value


# --- PyTorch's other names -----------------------------------------------------------


def _add_in_place(name: str) -> None:
    """Give Tensor the method `name` with an underscore, which overwrites the Tensor."""

    def change(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._become(lambda x: getattr(x, name)(*args, **kwargs), *args)

    change.__name__, change.__qualname__ = f"{name}_", f"Tensor.{name}_"
    change.__doc__ = f"`{name}`, in place."
    setattr(Tensor, f"{name}_", change)


for _name in (
    *("add", "sub", "mul", "div", "pow", "neg", "abs", "exp", "sqrt", "round", "clamp"),
    *("relu", "sigmoid", "tanh", "masked_fill"),
):
    _add_in_place(_name)
for _name, _dtype in (("bool", np.bool_), ("int", np.int32)):  # which the class needs as types
    setattr(Tensor, _name, functools.partialmethod(Tensor.to, dtype=_dtype))


def target_dtype(
    *target: Any, device: Any = None, dtype: npt.DTypeLike | None = None
) -> np.dtype[Any] | None:
    """Return the dtype that the arguments of `to` ask for, if any, once they are found fit."""
    for one in target:
        if isinstance(one, Tensor):
            dtype = one.dtype
        elif _is_dtype(one):
            dtype = one
        else:
            device = one
    check_device(device)
    return None if dtype is None else np.dtype(dtype)


def _is_dtype(value: Any) -> bool:
    try:
        return value is not None and np.dtype(value) is not None
    except TypeError:
        return False


def tensor(
    data: npt.ArrayLike | Tensor,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
    *,
    device: Any = None,
) -> Tensor:
    """Create a Tensor from a copy of the data.

    Parameters
    ----------
    data : array_like
        Python floats become float32 unless `dtype` says otherwise.
    dtype : dtype, optional
        By default that of the data.
    requires_grad : bool, default False
        Whether `backward` should compute a gradient for the Tensor.
    device : {None, 'cpu'}, optional
        For PyTorch's sake.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> a = np.zeros(2)
    >>> t = instnorm.tensor(a)
    >>> a[0] = 1
    >>> t
    tensor([0., 0.], dtype=float64)
    """
    check_device(device)
    array = _as_array(data, python_floats=np.float32 if dtype is None else np.float64)
    return Tensor(array.astype(array.dtype if dtype is None else dtype), requires_grad)


def is_tensor(obj: object) -> bool:
    """Return whether it is a Tensor."""
    return isinstance(obj, Tensor)


def as_function(
    method: Callable[Concatenate[Tensor, Options], Result],
) -> Callable[Concatenate[Tensor | npt.NDArray[Any], Options], Result]:
    """Return the function of the method's name, whose first argument may be an array."""

    @functools.wraps(method)
    def function(
        input: Tensor | npt.NDArray[Any], *args: Options.args, **kwargs: Options.kwargs
    ) -> Result:
        if not isinstance(input, Tensor):
            if not isinstance(input, np.ndarray | np.generic):
                raise TypeError(
                    f"{method.__name__}: input must be a Tensor or an ndarray, "
                    f"got {type(input).__name__}"
                )
            input = Tensor(input)
        return method(input, *args, **kwargs)

    itself, *others = inspect.signature(method).parameters.values()
    signature = inspect.Signature([itself.replace(name="input"), *others])
    function.__signature__ = signature  # type: ignore[attr-defined]
    return cast("Callable[Concatenate[Tensor | npt.NDArray[Any], Options], Result]", function)


def equal(input: Tensor, other: Tensor) -> bool:
    """Return whether shapes and all elements are equal."""
    return bool(np.array_equal(input.data, other.data))


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Return whether no two elements differ by more than ``atol + rtol * abs(other)``."""
    return bool(np.allclose(input.data, other.data, rtol, atol, equal_nan))


def _as_array(
    data: npt.ArrayLike | Tensor, python_floats: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    if isinstance(data, Tensor):
        return data.data
    if type(data) is not np.ndarray and isinstance(data, np.ndarray) and hasattr(data, "mask"):
        raise TypeError(
            "a Tensor cannot be made of a masked array, whose mask would be ignored; expected a "
            "plain one, such as a.filled(0) or a.data"
        )
    array = np.asarray(data)
    if array.dtype == np.float64 and not hasattr(data, "__array__") and not _has_float64(data):
        array = array.astype(python_floats, copy=False)
    # ml_dtypes' bfloat16 has kind "V", as structured types have, but no fields.
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(
            f"a Tensor holds bool, integer or real floating point numbers, got dtype {array.dtype}"
        )
    return array


def _has_float64(data: Any) -> bool:
    """Whether a NumPy float64 is among nested sequences of numbers: its precision stays."""
    if isinstance(data, list | tuple):
        return any(_has_float64(entry) for entry in data)
    return isinstance(data, np.float64 | np.ndarray | Tensor)


def _rebuild(
    cls: type[Tensor], array: npt.NDArray[Any], requires_grad: bool, grad: Tensor | None
) -> Tensor:
    result = cls.__new__(cls)
    Tensor.__init__(result, array, requires_grad)
    result.grad = grad
    return result


def sizes_of(values: tuple[Any, ...]) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` alike."""
    if len(values) == 1 and isinstance(values[0], tuple | list):
        values = tuple(values[0])
    return tuple([int(v) for v in values])


def _plain_index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple([_plain_index(i) for i in index])
    if isinstance(index, Tensor | np.ndarray):
        # A copy, as the graph keeps it, and the caller may change the array before backward.
        return (index.data if isinstance(index, Tensor) else index).copy()
    return index
