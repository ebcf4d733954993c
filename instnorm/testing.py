"""Gradient checks: analytical gradients held to central differences.

`gradcheck` holds first derivatives to differences of the function, `gradgradcheck`
second derivatives to differences of the first. Both draw a random cotangent for
each output: with one of all ones, an error that sums to zero would not be seen (the
gradient of an instance norm's sum is zero everywhere, right or wrong).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from instnorm.autograd import enable_grad, grad
from instnorm.tensor import Tensor

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]

Array: TypeAlias = npt.NDArray[np.float64]
Index: TypeAlias = tuple[int, ...]
Outputs: TypeAlias = Tensor | Sequence[Any]


class GradcheckError(RuntimeError):
    """An analytical gradient differs from the central difference."""


def gradcheck(
    func: Callable[..., Outputs],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    seed: int = 0,
) -> bool:
    r"""Check the gradients of `func` against central differences.

    For each output :math:`y` a random cotangent :math:`v` is drawn, and every entry
    of every input that requires gradients is checked:

    .. math:: \Bigl| \frac{\partial (v \cdot y)}{\partial x_k}
        - \frac{v \cdot (y(x_k + \epsilon) - y(x_k - \epsilon))}{2 \epsilon} \Bigr|
        \le atol + rtol \cdot |numerical|

    Parameters
    ----------
    func : callable
        Takes the inputs and returns a Tensor or a tuple of Tensors, those not of
        floating point dtype being left out of the check. It must be deterministic.
    inputs : Tensor or sequence
        What `func` is called with. Tensors that require gradients are checked; they
        must be float64. They are perturbed in place while `func` runs, so `func` may
        also reach them in other ways (the parameters of a module), and have their
        old values again, bit by bit, at the end. `grad` is left alone.
    eps : float, default 1e-6
        How far an entry is moved to each side.
    atol, rtol : float
        Absolute tolerance, and tolerance relative to the numerical value.
    raise_exception : bool, default True
        Whether a wrong gradient is an error, or makes the function return False.
    seed : int, default 0
        Of the random cotangents.

    Returns
    -------
    bool
        True if the gradients are right.

    Raises
    ------
    GradcheckError
        If a gradient is wrong and `raise_exception` is set; the message names the
        output, the input and its worst entry, with both values.
    TypeError, ValueError
        If there is nothing to check, an input cannot be checked (not float64,
        read-only, or of overlapping memory), or an option is out of range.

    See Also
    --------
    gradgradcheck : the same for second derivatives.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> x = instnorm.Tensor(np.array([0.5, 2.0]), requires_grad=True)
    >>> instnorm.testing.gradcheck(lambda x: x.log() * x, x)
    True

    Where a gradient goes missing, the check fails:

    >>> instnorm.testing.gradcheck(lambda x: x.log() * x.detach(), x, raise_exception=False)
    False
    """
    _check_options(eps, atol, rtol)
    arguments = _sequence(inputs)
    checked = _checked_inputs(arguments)
    with enable_grad():
        outputs = _float_outputs(func(*arguments))
        cotangents = _cotangents(outputs, seed)
        analytical = [
            _vector_jacobian(out, v, [tensor for _, tensor in checked])
            for out, v in zip(outputs, cotangents, strict=True)
        ]
        differences = _Differences(func, arguments, cotangents, eps)
        for i, (position, tensor) in enumerate(checked):
            numerical = differences.of_input(tensor)
            for o in range(len(outputs)):
                mismatch = _worst(analytical[o][i], numerical[o], atol, rtol)
                if mismatch is None:
                    continue
                if not raise_exception:
                    return False
                half_step = differences.of_entry(tensor, mismatch.entry, eps / 2)[o]
                place = f"outputs[{o}] for inputs[{position}]"
                raise GradcheckError(_message(place, mismatch, half_step, atol, rtol))
    return True


def gradgradcheck(
    func: Callable[..., Outputs],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    seed: int = 0,
) -> bool:
    """Check the second derivatives of `func` against differences of the first.

    `gradcheck` is run on the function from the inputs and one gradient for each
    output to the gradients of the inputs. The first derivatives are taken to be
    right: check them by `gradcheck`.

    Parameters
    ----------
    func, inputs, eps, atol, rtol, raise_exception, seed
        As those of `gradcheck`.
    grad_outputs : Tensor or sequence of Tensor, optional
        A gradient for each floating point output, checked as an input is if it
        requires gradients; random by default.

    Returns
    -------
    bool
        True if the second derivatives are right.

    Raises
    ------
    GradcheckError
        If one is wrong and `raise_exception` is set. In the message, outputs are the
        gradients of the inputs, and the last inputs are `grad_outputs`.
    TypeError, ValueError
        As `gradcheck`; also if `grad_outputs` does not fit the outputs.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> x = instnorm.Tensor(np.array([0.5, 2.0]), requires_grad=True)
    >>> instnorm.testing.gradgradcheck(lambda x: x.log() * x, x)
    True
    """
    _check_options(eps, atol, rtol)
    arguments = _sequence(inputs)
    wanted = [tensor for _, tensor in _checked_inputs(arguments)]
    with enable_grad():
        outputs = _float_outputs(func(*arguments))
    if grad_outputs is None:
        # From another seed than `gradcheck` below draws its cotangents from.
        grad_outputs = [Tensor(v, requires_grad=True) for v in _cotangents(outputs, seed + 1)]
    cotangents = _sequence(grad_outputs)
    _check_grad_outputs(cotangents, outputs)

    def first_derivatives(*both: Any) -> tuple[Tensor, ...]:
        results = _float_outputs(func(*both[: len(arguments)]))
        pairs = zip(results, both[len(arguments) :], strict=True)
        used = [(out, v) for out, v in pairs if out.requires_grad]
        if not used:
            raise ValueError("no output of func depends on an input that requires gradients")
        found = grad(
            [out for out, _ in used],
            wanted,
            [v for _, v in used],
            create_graph=True,
            allow_unused=True,
        )
        return tuple([g for g in found if g is not None])

    return gradcheck(
        first_derivatives,
        (*arguments, *cotangents),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        seed=seed,
    )


# --- what comes in -------------------------------------------------------------


def _check_options(eps: float, atol: float, rtol: float) -> None:
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"eps must be finite and greater than 0, got {eps}")
    for name, value in (("atol", atol), ("rtol", rtol)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and at least 0, got {value}")


def _sequence(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _checked_inputs(arguments: Sequence[Any]) -> list[tuple[int, Tensor]]:
    """The inputs that require gradients, each with its position."""
    tensors = [(i, t) for i, t in enumerate(arguments) if isinstance(t, Tensor)]
    checked = [(i, t) for i, t in tensors if t.requires_grad]
    if not checked:
        raise ValueError("none of the inputs is a Tensor that requires gradients")
    for i, tensor in checked:
        _check_input(f"inputs[{i}]", tensor)
        for j, other in tensors:
            if j != i and np.shares_memory(tensor.data, other.data):
                raise ValueError(
                    f"inputs[{i}] shares memory with inputs[{j}], so that one cannot be moved "
                    "without the other; pass a copy, or the Tensor only once"
                )
    return checked


def _check_input(name: str, tensor: Tensor) -> None:
    if tensor.dtype != np.float64:
        raise TypeError(
            f"{name} has dtype {tensor.dtype}, expected float64: in lower precision the "
            "differences are lost in rounding"
        )
    if not tensor.data.flags.writeable:
        raise ValueError(f"{name} is read-only, and has to be perturbed in place")
    if _overlaps_itself(tensor.data):
        raise ValueError(
            f"{name} has elements that share memory (strides {tensor.data.strides}), so that one "
            "cannot be moved without another; pass a copy"
        )


def _overlaps_itself(array: npt.NDArray[Any]) -> bool:
    offsets = np.zeros(array.shape, np.int64)
    for axis, (size, stride) in enumerate(zip(array.shape, array.strides, strict=True)):
        along = (-1,) + (1,) * (array.ndim - 1 - axis)
        offsets = offsets + (np.arange(size) * stride).reshape(along)
    return bool((np.diff(np.sort(offsets, axis=None)) < array.itemsize).any())


def _check_grad_outputs(cotangents: Sequence[Any], outputs: Sequence[Tensor]) -> None:
    if len(cotangents) != len(outputs):
        raise ValueError(
            f"grad_outputs has {len(cotangents)} entries, expected one for each of the "
            f"{len(outputs)} floating point outputs"
        )
    for i, (v, out) in enumerate(zip(cotangents, outputs, strict=True)):
        if not isinstance(v, Tensor):
            raise TypeError(f"grad_outputs[{i}] must be a Tensor, got {type(v).__name__}")
        if v.shape != out.shape:
            raise ValueError(
                f"grad_outputs[{i}] has shape {v.shape}, expected that of outputs[{i}], {out.shape}"
            )


def _float_outputs(result: Outputs) -> list[Tensor]:
    if not isinstance(result, Tensor | tuple | list):
        raise TypeError(
            f"func must return a Tensor or a tuple of these, got {type(result).__name__}"
        )
    outputs = [result] if isinstance(result, Tensor) else list(result)
    for i, out in enumerate(outputs):
        if not isinstance(out, Tensor):
            raise TypeError(f"func returned {type(out).__name__} as outputs[{i}], not a Tensor")
    floats = [out for out in outputs if out.dtype.kind not in "biu"]
    if not floats:
        raise ValueError("func returned no Tensor of floating point dtype to check")
    return floats


def _cotangents(outputs: Sequence[Tensor], seed: int) -> list[Array]:
    """Random weights of the outputs' entries, none of them so small that it hides an error."""
    rng = np.random.default_rng(seed)
    return [
        rng.uniform(0.5, 1.5, out.shape) * rng.choice([-1.0, 1.0], out.shape) for out in outputs
    ]


# --- the two derivatives -------------------------------------------------------


def _vector_jacobian(output: Tensor, cotangent: Array, inputs: Sequence[Tensor]) -> list[Array]:
    """The gradient of ``(cotangent * output).sum()`` for each input, by autograd."""
    if not output.requires_grad:
        return [np.zeros(tensor.shape) for tensor in inputs]
    found = grad(output, inputs, Tensor(cotangent), retain_graph=True, allow_unused=True)
    return [
        np.zeros(tensor.shape) if g is None else np.array(g.data, np.float64)
        for g, tensor in zip(found, inputs, strict=True)
    ]


class _Differences:
    """The same gradients by central differences."""

    def __init__(
        self,
        func: Callable[..., Outputs],
        arguments: Sequence[Any],
        cotangents: Sequence[Array],
        eps: float,
    ) -> None:
        self._func = func
        self._arguments = arguments
        self._cotangents = cotangents
        self._eps = eps

    def of_input(self, tensor: Tensor) -> list[Array]:
        """One array of the tensor's shape for each output."""
        gradients = [np.empty(tensor.shape) for _ in self._cotangents]
        for entry in np.ndindex(tensor.shape):
            for gradient, value in zip(
                gradients, self.of_entry(tensor, entry, self._eps), strict=True
            ):
                gradient[entry] = value
        return gradients

    def of_entry(self, tensor: Tensor, entry: Index, eps: float) -> list[float]:
        """One number for each output."""
        array, before = tensor.data, tensor.data[entry]
        try:
            array[entry] = above = before + eps
            upper = self._outputs()
            array[entry] = below = before - eps
            lower = self._outputs()
        finally:
            array[entry] = before
        # Divided by the step that was really taken, as `before + eps` and `before - eps` round.
        return [
            float((v * (u - w)).sum() / (above - below))
            for v, u, w in zip(self._cotangents, upper, lower, strict=True)
        ]

    def _outputs(self) -> list[Array]:
        # Copies, as an output may be a view of an input, which is perturbed again.
        outputs = _float_outputs(self._func(*self._arguments))
        return [np.array(out.data, np.float64) for out in outputs]


# --- the comparison --------------------------------------------------------------


class _Mismatch(NamedTuple):
    entry: Index
    analytical: float
    numerical: float
    off: int
    size: int


def _close(analytical: Array, numerical: Array, atol: float, rtol: float) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        # NaN, and so inf - inf, compares as False: it counts as off.
        return np.asarray(np.abs(analytical - numerical) <= atol + rtol * np.abs(numerical))


def _worst(analytical: Array, numerical: Array, atol: float, rtol: float) -> _Mismatch | None:
    """The entry with the largest difference of those that are off, if any is."""
    off = ~_close(analytical, numerical, atol, rtol)
    if not off.any():
        return None
    with np.errstate(invalid="ignore"):
        distance = np.nan_to_num(np.abs(analytical - numerical), nan=np.inf)
    flat = int(np.where(off, distance, -1.0).argmax())
    entry = tuple(int(i) for i in np.unravel_index(flat, off.shape))
    return _Mismatch(
        entry, float(analytical[entry]), float(numerical[entry]), int(off.sum()), off.size
    )


def _message(place: str, found: _Mismatch, half_step: float, atol: float, rtol: float) -> str:
    steady = _close(np.array(half_step), np.array(found.numerical), atol, rtol)
    verdict = (
        "half the step gives the same numerical value, so the analytical one is off"
        if steady
        else f"half the step gives {half_step:.8g} as the numerical value, so that one may be off: "
        "func is not smooth here, not deterministic, or too rough for this eps"
    )
    return (
        f"gradient of {place} is off at entry {found.entry}: analytical "
        f"{found.analytical:.8g}, numerical {found.numerical:.8g}; {verdict} "
        f"({found.off} of {found.size} entries are off, this one the most)"
    )
