"""Parameter, and the parameters and buffers of lazy layers, whose shape is not known yet."""

from __future__ import annotations

from typing import Any, ClassVar, TypeGuard

import numpy as np
import numpy.typing as npt

from instnorm import arrays
from instnorm.tensor import Tensor, check_device


class Parameter(Tensor):
    """A Tensor that a Module it is assigned to will list among its parameters.

    Parameters
    ----------
    data : array_like
        An ndarray is shared, not copied.
    requires_grad : bool, default True
    """

    __slots__ = ()

    def __init__(self, data: npt.ArrayLike | Tensor, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class _Uninitialized(Tensor):
    """A Tensor of a known dtype that has no shape and no values until `materialize`.

    It turns into another class in place, so that whoever holds it (a Module, an
    optimizer) need not be told.
    """

    # Python lets an object change its class only if both classes have the same slots.
    __slots__ = ()

    cls_to_become: ClassVar[type[Tensor]]

    def __init__(
        self,
        requires_grad: bool = False,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(np.empty(0, checked_dtype(device, dtype)))
        self.requires_grad = requires_grad

    def materialize(
        self,
        shape: int | tuple[int, ...],
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        """Become an ordinary parameter or buffer, with values that are still to be set.

        Parameters
        ----------
        shape : int or tuple of int
        device : {None, 'cpu'}, optional
            For PyTorch's sake.
        dtype : dtype, optional
            By default the one that was given to the constructor.
        """
        array = np.empty(shape, checked_dtype(device, self.dtype if dtype is None else dtype))
        self.__class__ = self.cls_to_become  # type: ignore[assignment]
        self.data = array

    # What works before `materialize`: the dtype, requires_grad, copies and pickles.

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype of the elements to come."""
        result: np.dtype[Any] = _SLOT.__get__(self).dtype
        return result

    @property
    def requires_grad(self) -> bool:
        """Whether gradients will be computed."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._requires_grad = bool(value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.requires_grad, None, self.dtype)

    # What fails before `materialize`: any operation, as all of them read `data`.

    @property
    def data(self) -> npt.NDArray[Any]:
        """The values, which there are none of."""
        raise ValueError(_UNKNOWN)

    @data.setter
    def data(self, array: npt.NDArray[Any]) -> None:
        _SLOT.__set__(self, array)

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis, which is not known."""
        raise RuntimeError(_UNKNOWN)


# The slot behind `Tensor.data`, which holds an empty array of the dtype until `materialize`.
_SLOT: Any = Tensor.__dict__["data"]

_UNKNOWN = (
    "the values and the shape of an uninitialized parameter or buffer are not known yet: "
    "run a batch through the lazy module that it belongs to, or load a state dict into it, first"
)


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter of a lazy module, which will get its shape from the first input.

    Parameters
    ----------
    requires_grad : bool, default True
    device : {None, 'cpu'}, optional
        For PyTorch's sake.
    dtype : dtype, optional
        float32 by default.

    Examples
    --------
    >>> import instnorm
    >>> parameter = instnorm.nn.UninitializedParameter()
    >>> parameter
    <UninitializedParameter>
    >>> parameter.materialize(3)
    >>> type(parameter).__name__, parameter.shape
    ('Parameter', (3,))
    """

    __slots__ = ()
    cls_to_become = Parameter

    def __init__(
        self,
        requires_grad: bool = True,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(requires_grad, device, dtype)


class UninitializedBuffer(_Uninitialized):
    """A buffer of a lazy module, which will get its shape from the first input.

    Parameters
    ----------
    requires_grad : bool, default False
    device : {None, 'cpu'}, optional
        For PyTorch's sake.
    dtype : dtype, optional
        float32 by default.
    """

    __slots__ = ()
    cls_to_become = Tensor


def is_lazy(value: object) -> TypeGuard[_Uninitialized]:
    """Return whether it is an uninitialized parameter or buffer."""
    return isinstance(value, _Uninitialized)


def checked_dtype(device: object, dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    """Return the dtype for new parameters, once it and the device are found fit."""
    check_device(device)
    result = np.dtype(np.float32 if dtype is None else dtype)
    if not arrays.is_float_dtype(result):
        raise TypeError(f"dtype must be a floating point type, got {result}")
    return result
