"""Making Tensors: of one value, in a row, at random, of others; and the random numbers' seed.

All random numbers of the package (initial parameters, dropout, shuffled batches) are drawn from
one generator, which `manual_seed` restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from instnorm import _primitives as ops
from instnorm._layouts import Array
from instnorm.tensor import Tensor, check_device, sizes_of, takes_axis

__all__ = [
    "arange",
    "as_tensor",
    "cat",
    "empty",
    "empty_like",
    "eye",
    "from_numpy",
    "full",
    "full_like",
    "linspace",
    "manual_seed",
    "ones",
    "ones_like",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
    "stack",
    "where",
    "zeros",
    "zeros_like",
]

_generator = np.random.default_rng()


def manual_seed(seed: int) -> None:
    """Restart the generator of all random numbers, for reproducible models and runs.

    Parameters
    ----------
    seed : int
        Negative ones too, as in PyTorch.

    Raises
    ------
    TypeError
        If `seed` is no integer.

    Examples
    --------
    >>> import instnorm
    >>> instnorm.manual_seed(0)
    >>> first = instnorm.nn.Linear(2, 1)
    >>> instnorm.manual_seed(0)
    >>> second = instnorm.nn.Linear(2, 1)
    >>> bool((first.weight.data == second.weight.data).all())
    True
    """
    global _generator
    _generator = generator_of(seed)


def generator() -> np.random.Generator:
    """Return the generator that `manual_seed` restarts."""
    return _generator


def generator_of(seed: int) -> np.random.Generator:
    """Return a new generator, the same for the same seed."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    return np.random.default_rng(int(seed) % 2**64)


def zeros(
    *size: Any,
    dtype: npt.DTypeLike | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Zeros of a shape, which is given as ``zeros(2, 3)`` or ``zeros((2, 3))``.

    Parameters
    ----------
    *size : int, or one sequence of int
    dtype : dtype, optional
        float32 by default.
    device : {None, 'cpu'}, optional
        For PyTorch's sake.
    requires_grad : bool, default False

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import instnorm
    >>> instnorm.zeros(2, 3)
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    return _made(lambda shape, dtype: np.zeros(shape, dtype), size, dtype, device, requires_grad)


def ones(
    *size: Any,
    dtype: npt.DTypeLike | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones of a shape; parameters as those of `zeros`."""
    return _made(lambda shape, dtype: np.ones(shape, dtype), size, dtype, device, requires_grad)


def empty(
    *size: Any,
    dtype: npt.DTypeLike | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Whatever the memory holds, which is to be overwritten; parameters as those of `zeros`."""
    return _made(np.empty, size, dtype, device, requires_grad)


def eye(n: int, m: int | None = None, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Return a matrix of n rows and m columns, with ones on its diagonal and zeros elsewhere."""
    return Tensor(np.eye(n, m, dtype=np.float32 if dtype is None else dtype))


def full(
    size: int | Sequence[int],
    fill_value: float,
    dtype: npt.DTypeLike | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """One value throughout; of its own kind of number unless `dtype` says otherwise."""
    dtype = Tensor(fill_value).dtype if dtype is None else dtype
    return _made(
        lambda shape, dtype: np.full(shape, fill_value, dtype),
        (size,),
        dtype,
        device,
        requires_grad,
    )


def rand(
    *size: Any,
    dtype: npt.DTypeLike | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Draws from the uniform distribution on [0, 1); parameters as those of `zeros`."""

    def draw(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        _check_float(dtype, "rand")
        drawn = np.float64 if dtype == np.float64 else np.float32
        return _generator.random(shape, drawn).astype(dtype, copy=False)

    return _made(draw, size, dtype, device, requires_grad)


def randn(
    *size: Any,
    dtype: npt.DTypeLike | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Draws from the standard normal distribution; parameters as those of `zeros`."""

    def draw(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        _check_float(dtype, "randn")
        drawn = np.float64 if dtype == np.float64 else np.float32
        return _generator.standard_normal(shape, drawn).astype(dtype, copy=False)

    return _made(draw, size, dtype, device, requires_grad)


def randint(
    low: int,
    high: int | Sequence[int] | None = None,
    size: Sequence[int] | None = None,
    dtype: npt.DTypeLike | None = None,
    device: str | None = None,
) -> Tensor:
    """Integers from `low` up to but not with `high`; ``randint(high, size)`` starts at 0."""
    check_device(device)
    if size is None:
        low, high, size = 0, low, high  # type: ignore[assignment]
    elif high is None:
        low, high = 0, low
    if size is None:
        raise TypeError("size is missing, expected a sequence of integers")
    drawn = _generator.integers(low, high, tuple(size))
    return Tensor(drawn.astype(np.int64 if dtype is None else dtype))


def randperm(n: int) -> Tensor:
    """The integers from 0 to n - 1 in random order."""
    return Tensor(_generator.permutation(n))


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    dtype: npt.DTypeLike | None = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from `start` up to but not with `end`; ``arange(end)`` starts at 0.

    Examples
    --------
    >>> import instnorm
    >>> instnorm.arange(3), instnorm.arange(0.0, 1.0, 0.25)
    (tensor([0, 1, 2]), tensor([0.  , 0.25, 0.5 , 0.75]))
    """
    check_device(device)
    start, end = (0, start) if end is None else (start, end)
    if step == 0:
        raise ValueError("step must not be 0")
    values = np.arange(start, end, step)
    default = np.float32 if values.dtype.kind == "f" else np.int64
    return Tensor(values.astype(default if dtype is None else dtype), requires_grad)


def linspace(start: float, end: float, steps: int, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Return numbers in equal steps from `start` to `end`, both included."""
    return Tensor(np.linspace(start, end, steps).astype(np.float32 if dtype is None else dtype))


def as_tensor(data: Any, dtype: npt.DTypeLike | None = None, device: str | None = None) -> Tensor:
    """Return a Tensor as it is, and of anything else a new one, which shares an array's memory."""
    result = data if isinstance(data, Tensor) else Tensor(data)
    return result.to(device, dtype=dtype)


def from_numpy(array: Array) -> Tensor:
    """Return a Tensor that shares the memory of an ndarray."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"array must be an ndarray, got {type(array).__name__}")
    return Tensor(array)


def zeros_like(
    input: Tensor, dtype: npt.DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of the shape, dtype and memory layout of a Tensor."""
    return Tensor(np.zeros_like(input.data, dtype), requires_grad)


def ones_like(
    input: Tensor, dtype: npt.DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """Ones of the shape, dtype and memory layout of a Tensor."""
    return Tensor(np.ones_like(input.data, dtype), requires_grad)


def full_like(
    input: Tensor,
    fill_value: float,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """One value throughout, in the shape, dtype and memory layout of a Tensor."""
    return Tensor(np.full_like(input.data, fill_value, dtype), requires_grad)


def empty_like(
    input: Tensor, dtype: npt.DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """Whatever the memory holds, in the shape, dtype and memory layout of a Tensor."""
    return Tensor(np.empty_like(input.data, dtype), requires_grad)


def rand_like(
    input: Tensor, dtype: npt.DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """Draws from the uniform distribution on [0, 1), in the shape and dtype of a Tensor."""
    return rand(
        input.shape, dtype=input.dtype if dtype is None else dtype, requires_grad=requires_grad
    )


def randn_like(
    input: Tensor, dtype: npt.DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """Draws from the standard normal distribution, in the shape and dtype of a Tensor."""
    return randn(
        input.shape, dtype=input.dtype if dtype is None else dtype, requires_grad=requires_grad
    )


@takes_axis
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join Tensors along an axis that they have.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of the same shape, but for the size of the axis `dim`. Different dtypes are promoted.
    dim : int, default 0

    Returns
    -------
    Tensor

    Raises
    ------
    TypeError
        If `tensors` is not a sequence of Tensors.
    ValueError
        If it is empty, or the shapes do not fit.

    Examples
    --------
    >>> import instnorm
    >>> instnorm.cat([instnorm.zeros(2, 1), instnorm.ones(2, 2)], dim=1)
    tensor([[0., 1., 1.],
            [0., 1., 1.]])
    """
    parts = _checked_parts(tensors)
    (axis,) = ops.axes_of(int(dim), parts[0].ndim) or (None,)
    if axis is None:
        raise ValueError("tensors[0] has no axes to be joined along; see stack")
    rest = [(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts]
    for i, part in enumerate(parts):
        if part.ndim != parts[0].ndim or rest[i] != rest[0]:
            raise ValueError(
                f"tensors[{i}] has shape {part.shape}, expected that of tensors[0], "
                f"{parts[0].shape}, but for axis {axis}"
            )
    dtype = _common_dtype(parts)
    return ops.Cat.apply(axis, *[part.to(dtype) for part in parts])


@takes_axis
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join Tensors of one shape along a new axis; see `cat`."""
    parts = _checked_parts(tensors)
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise ValueError(
                f"tensors[{i}] has shape {part.shape}, expected that of tensors[0], "
                f"{parts[0].shape}"
            )
    return cat([part.unsqueeze(dim) for part in parts], dim)


def where(
    condition: Tensor | Array,
    input: Tensor | float | None = None,
    other: Tensor | float | None = None,
) -> Any:
    """Return the elements of `input` where `condition` is True, those of `other` elsewhere.

    With `condition` alone, where that is: ``condition.nonzero(as_tuple=True)``.

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([-1.0, 2.0])
    >>> instnorm.where(x > 0, x, 0.0)
    tensor([0., 2.])
    """
    if input is None and other is None:
        return Tensor(condition).nonzero(as_tuple=True)
    if input is None or other is None:
        raise TypeError("where takes a condition, or a condition, input and other")
    if not isinstance(input, Tensor) and isinstance(other, Tensor):  # which gives the dtype
        input = other._operand(input)
    return (input if isinstance(input, Tensor) else Tensor(input)).where(condition, other)


def _made(
    make: Callable[[tuple[int, ...], np.dtype[Any]], Array],
    size: tuple[Any, ...],
    dtype: npt.DTypeLike | None,
    device: object,
    requires_grad: bool,
) -> Tensor:
    check_device(device)
    shape = sizes_of(size)
    if any(n < 0 for n in shape):
        raise ValueError(f"size must not be negative, got {shape}")
    return Tensor(make(shape, np.dtype(np.float32 if dtype is None else dtype)), requires_grad)


def _check_float(dtype: np.dtype[Any], name: str) -> None:
    if dtype.kind in "biu":
        raise TypeError(f"{name} draws floating point numbers, got dtype {dtype}")


def _checked_parts(tensors: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(tensors, Tensor) or not isinstance(tensors, Sequence):
        raise TypeError(f"tensors must be a sequence of Tensors, got {type(tensors).__name__}")
    for i, part in enumerate(tensors):
        if not isinstance(part, Tensor):
            raise TypeError(f"tensors[{i}] must be a Tensor, got {type(part).__name__}")
    if not tensors:
        raise ValueError("tensors is empty, expected at least one Tensor")
    return list(tensors)


def _common_dtype(parts: list[Tensor]) -> np.dtype[Any]:
    dtype = parts[0].dtype
    for part in parts[1:]:
        dtype = ops.result_dtype(np.empty(1, dtype), np.empty(1, part.dtype))
    return dtype
