"""Array functions: instance normalization of ndarrays, forward and backward.

Here the arguments are checked, brought to what the kernels of `_core` take, and
the outputs allocated in the input's memory layout. Everything above calls these.
"""

from __future__ import annotations

import math
import operator
import warnings
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt
from numpy.exceptions import AxisError

from instnorm import _layouts as layouts
from instnorm._layouts import Array, Walk
from instnorm._runtime import memory
from instnorm._runtime.simd import kernels

__all__ = ["InstanceNormGradients", "instance_norm", "instance_norm_backward"]


_DEFAULT_AXIS = 1
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_FLOATS = ("float16", "bfloat16", "float32", "float64")


# As the kernels number them.
_ACTIVATIONS: dict[object, int] = {None: 0, "relu": 1, "leaky_relu": 2}


class ArgumentError(ValueError, RuntimeError):
    """A parameter or statistic is missing, or does not fit the input.

    It is a RuntimeError because PyTorch's is.
    """


class InstanceNormGradients(NamedTuple):
    """What `instance_norm_backward` returns where there is a residual, or a slope for each channel.

    `grad_residual` and `grad_slope` are None where there is no residual, or the slope is a number.
    """

    grad_input: Array
    grad_weight: Array
    grad_bias: Array
    grad_residual: Array | None
    grad_slope: Array | None


@overload
def instance_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike | None = None,
    var: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    channel_axis: int = _DEFAULT_AXIS,
    mask: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    activation: str | None = None,
    negative_slope: npt.ArrayLike = 0.01,
    out: Array | None = None,
    return_stats: Literal[False] = False,
) -> Array: ...


@overload
def instance_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike | None = None,
    var: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    channel_axis: int = _DEFAULT_AXIS,
    mask: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    activation: str | None = None,
    negative_slope: npt.ArrayLike = 0.01,
    out: Array | None = None,
    return_stats: Literal[True],
) -> tuple[Array, Array, Array]: ...


def instance_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike | None = None,
    var: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    channel_axis: int = _DEFAULT_AXIS,
    mask: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    activation: str | None = None,
    negative_slope: npt.ArrayLike = 0.01,
    out: Array | None = None,
    return_stats: bool = False,
) -> Array | tuple[Array, Array, Array]:
    r"""Normalize each channel of each sample by its own mean and variance.

    .. math:: y = \mathrm{act}\left(\frac{x - \mathrm{mean}}{\sqrt{\mathrm{var} + \epsilon}}
        \cdot weight + bias + residual\right)

    The mean and the biased variance are taken over all axes after (N, C), for each
    (n, c) by itself; they are float64, whatever the dtype of `x`. Residual and activation
    are part of the same pass over memory.

    Parameters
    ----------
    x : array_like of shape (N, C, spatial...)
        At least three axes; float16, bfloat16 (ml_dtypes), float32 or float64. It
        is never written, unless it is `out`.
    weight, bias : array_like of shape (C,) or (N, C), optional
        Scale and shift of each channel, or of each channel of each sample, of any float
        dtype; by default 1 and 0.
    mean, var : array_like of shape (C,) or (N, C), optional
        Statistics to use in place of the input's own. One may be given without
        the other.
    eps : float, default 1e-5
        Added to the variance; finite and not negative.
    channel_axis : int, default 1
        Which axis of `x` is C; -1 for images of shape (N, H, W, C). With -1, three axes
        that look like one image, which has no N, bring a UserWarning.
    mask : array_like of bool, of shape (N, spatial...), optional
        True where an element counts. Statistics are taken of those, at least two of
        each sample; the output is 0 elsewhere, whatever `x` holds there.
    residual : array_like, optional
        Added before the activation: the shape of `x`, any float dtype.
    activation : {None, "relu", "leaky_relu"}, default None
        Applied last.
    negative_slope : float or array_like of shape (1,) or (C,), default 0.01
        What the leaky ReLU multiplies negative numbers by; an array is a PReLU's.
    out : ndarray, optional
        Where to write the result: the shape and dtype of `x`. It may be `x` itself,
        which is then normalized in place.
    return_stats : bool, default False
        Whether to return the statistics as well.

    Returns
    -------
    y : ndarray
        `out` where given; else new, of the shape, dtype and memory layout of `x`.
    mean, rstd : ndarray of shape (N, C), float64
        Only if `return_stats`: the mean and 1 / sqrt(var + eps) that were used.
        `rstd` is 0 where var + eps is 0. Both are NaN, and read-only, where `x` is empty.

    Raises
    ------
    TypeError
        If an array is masked or not of a float dtype, or `mask` is not of bool.
    ValueError
        If a shape or axis does not fit, a statistic is needed and there is just one
        spatial element or one that counts, `eps` is negative or not finite, `var` is
        negative, or there is no such activation.

    See Also
    --------
    instance_norm_backward : the gradients.

    Notes
    -----
    Every memory layout works. Arrays whose memory is C-contiguous as (N, C, spatial...) or
    as (N, spatial..., C), with the spatial axes in any order, are read where they are;
    others are copied first.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing
    Ingredient for Fast Stylization", 2016, https://arxiv.org/abs/1607.08022

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> x = np.array([[[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]]])
    >>> instnorm.instance_norm(x, eps=0).round(4)
    array([[[-1.2247,  0.    ,  1.2247],
            [-0.7071, -0.7071,  1.4142]]])
    """
    if return_stats is not False and return_stats is not True:
        return_stats = _checked_flag(return_stats, "return_stats")
    if (
        mean is None
        and var is None
        and out is None
        and channel_axis is _DEFAULT_AXIS
        and mask is residual is activation is None
    ):
        small: Array | tuple[Array, Array, Array] | None
        small = kernels.forward_small(x, weight, bias, eps, return_stats)
        if small is not None:
            return small
    given, axis = _checked_input(x, channel_axis, out)
    x = _channels_second(given, axis)
    weight, bias = _affine(weight, bias, x.shape)
    eps = checked_eps(eps)
    given_mean = _statistic(mean, "mean", x.shape)
    given_rstd = None if var is None else rstd_of(_statistic(var, "var", x.shape), eps)
    epilogue = _checked_epilogue(mask, residual, activation, negative_slope, given, axis)
    if given_mean is None or given_rstd is None:
        check_spatial_size(x.shape, given.shape)
        epilogue.check_count()

    result = memory.empty_like(given) if out is None else out
    if x.size == 0:
        # There may be any number of rows without elements: one NaN stands for all statistics.
        nothing = np.broadcast_to(np.nan, x.shape[:2])
        return (result, nothing, nothing) if return_stats else result
    dtype = x.dtype.newbyteorder("=")
    view, walk = _to_read(x, dtype)
    destination = _channels_second(result, axis)
    y, written = _to_write(destination, dtype, walk)
    view = _in_step(view, written)
    weight, bias = _apart(weight, written), _apart(bias, written)
    after = epilogue.arguments(dtype, walk, written)
    used_mean = memory.empty(x.shape[:2], _FLOAT64)
    used_rstd = memory.empty(x.shape[:2], _FLOAT64)
    last = walk.channels_last
    if given_mean is None and given_rstd is None:
        kernels.forward(view, written, weight, bias, used_mean, used_rstd, eps, last, **after)
    else:
        if given_mean is None or given_rstd is None:
            kernels.statistics(view, used_mean, used_rstd, eps, last, after["mask"])
        if given_mean is not None:
            used_mean[...] = given_mean
        if given_rstd is not None:
            used_rstd[...] = given_rstd
        kernels.forward_given(view, written, weight, bias, used_mean, used_rstd, last, **after)
    _deliver(y, destination)
    return (result, used_mean, used_rstd) if return_stats else result


def instance_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    activation: str | None = None,
    negative_slope: npt.ArrayLike = 0.01,
    use_input_stats: bool = True,
    channel_axis: int = _DEFAULT_AXIS,
    out: Array | None = None,
) -> tuple[Array, Array, Array] | InstanceNormGradients:
    r"""Gradients of `instance_norm` for its input, weight and bias.

    With :math:`\hat x = (x - mean) \cdot rstd`, the gradient g of the loss by what the
    activation was applied to, and means over the spatial axes,

    .. math::
        \mathrm{grad\_input} &= weight \cdot rstd \cdot
            (g - \overline{g} - \hat x \, \overline{g \hat x}) \\
        \mathrm{grad\_weight} &= \sum_{n, spatial} g \hat x \\
        \mathrm{grad\_bias} &= \sum_{n, spatial} g \\
        \mathrm{grad\_residual} &= g

    Which elements the activation passed is computed once more: nothing needs to be kept of
    the forward pass but its arguments and statistics.

    Parameters
    ----------
    grad_output : array_like of shape (N, C, spatial...)
        Gradient of the loss by the output.
    x : array_like of shape (N, C, spatial...)
        The input of the forward pass; float16, bfloat16, float32 or float64.
    weight : array_like of shape (C,) or (N, C), optional
        The weight of the forward pass.
    mean, rstd : array_like of shape (N, C) or (C,)
        The statistics that ``instance_norm(..., return_stats=True)`` returned.
    bias, mask, residual, activation, negative_slope : optional
        As in the forward pass. `bias` makes a difference only where there is an activation.
    use_input_stats : bool, default True
        Whether `mean` and `rstd` are functions of `x`, which the gradient then goes
        through. False where they were given: then grad_input is g * weight * rstd.
    channel_axis : int, default 1
        Which axis of `x` and `grad_output` is C.
    out : ndarray, optional
        Where to write grad_input: the shape and dtype of `x`. It may be
        `grad_output` or `x` itself.

    Returns
    -------
    grad_input : ndarray
        `out` where given; else of the shape, dtype and memory layout of `x`.
    grad_weight, grad_bias : ndarray of the shape of `weight`, or `bias`; else (C,)
        Of the weight's dtype, or that of `x` where no weight is given.
    grad_residual, grad_slope : ndarray or None
        Only where there is a residual, or `negative_slope` is an array: the five are an
        `InstanceNormGradients` then. Of the shape and dtype of `residual` and
        `negative_slope`.

    Raises
    ------
    TypeError
        If an array is masked or not of a float dtype.
    ValueError
        If a shape does not fit.

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> x = np.array([[[1.0, 2.0, 4.0]]])
    >>> y, mean, rstd = instnorm.instance_norm(x, return_stats=True)
    >>> g = np.array([[[1.0, 0.0, 0.0]]])
    >>> grad_input, grad_weight, grad_bias = instnorm.instance_norm_backward(
    ...     g, x, mean=mean, rstd=rstd)
    >>> grad_input.round(4), grad_weight.round(4), grad_bias
    (array([[[ 0.2291, -0.3436,  0.1145]]]), array([-1.069]), array([1.]))
    """
    if use_input_stats is not True and use_input_stats is not False:
        use_input_stats = _checked_flag(use_input_stats, "use_input_stats")
    if (
        out is None
        and channel_axis is _DEFAULT_AXIS
        and bias is mask is residual is activation is None
    ):
        small: tuple[Array, Array, Array] | None = kernels.backward_small(
            grad_output, x, weight, mean, rstd, use_input_stats
        )
        if small is not None:
            return small
    parameter_dtype = layouts.array_of(x if weight is None else weight).dtype
    found = gradients(
        grad_output,
        x,
        weight,
        mean=mean,
        rstd=rstd,
        bias=bias,
        mask=mask,
        residual=residual,
        activation=activation,
        negative_slope=negative_slope,
        use_input_stats=use_input_stats,
        channel_axis=channel_axis,
        out=out,
    )
    # What is beyond the parameters' range is infinite, without a warning.
    with np.errstate(over="ignore"):
        found = found._replace(
            grad_weight=found.grad_weight.astype(parameter_dtype, copy=False),
            grad_bias=found.grad_bias.astype(parameter_dtype, copy=False),
        )
    return found[:3] if found.grad_residual is found.grad_slope is None else found


def gradients(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None,
    *,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    activation: str | None = None,
    negative_slope: npt.ArrayLike = 0.01,
    use_input_stats: bool = True,
    channel_axis: int = _DEFAULT_AXIS,
    out: Array | None = None,
    from_output: bool = False,
) -> InstanceNormGradients:
    """As `instance_norm_backward`, but that grad_weight and grad_bias are float64.

    For callers whose weight and bias differ in dtype: each gradient is then narrowed to its own.
    With `from_output`, `x` is the output of a pass that overwrote its input: the input is found
    from it through the inverse of the activation and of the affine map.
    """
    given, axis = _checked_input(x, channel_axis, out)
    grad_output = _float_array(grad_output, "grad_output")
    if grad_output.shape != given.shape:
        raise ValueError(
            f"grad_output has shape {grad_output.shape}, expected that of x, {given.shape}"
        )
    x = _channels_second(given, axis)
    shapes = [x.shape[1:2] if p is None else layouts.array_of(p).shape for p in (weight, bias)]
    weight, bias = _affine(weight, bias, x.shape)
    mean, rstd = _statistic(mean, "mean", x.shape), _statistic(rstd, "rstd", x.shape)
    epilogue = _checked_epilogue(mask, residual, activation, negative_slope, given, axis)
    result = memory.empty_like(given) if out is None else out
    grad_slope = epilogue.empty_grad_slope()
    of_rows = from_output or any(p is not None and p.ndim == 2 for p in (weight, bias))
    parameters = x.shape[:2] if of_rows else x.shape[1:2]
    if x.size == 0:
        none = None if residual is None else np.zeros_like(layouts.array_of(residual))
        slopes = epilogue.given_grad_slope(grad_slope)
        return InstanceNormGradients(result, np.zeros(shapes[0]), np.zeros(shapes[1]), none, slopes)

    mean, rstd = _for_every_row(mean, x.shape), _for_every_row(rstd, x.shape)
    # Where the dtypes differ, both are read as that of x, or as float32 where that is half.
    same = grad_output.dtype == x.dtype
    dtype = x.dtype.newbyteorder("=") if same else _wide_dtype(x.dtype)
    view, walk = _to_read(x, dtype)
    grad_view, _ = _to_read(_channels_second(grad_output, axis), dtype, walk)
    destination = _channels_second(result, axis)
    grad_input, written = _to_write(destination, dtype, walk)
    view, grad_view = _in_step(view, written), _in_step(grad_view, written)
    weight, bias = _apart(weight, written), _apart(bias, written)
    mean, rstd = _apart(mean, written), _apart(rstd, written)
    grad_weight, grad_bias = np.empty(parameters), np.empty(parameters)
    if from_output:
        weight, bias, mean, rstd = _as_statistics_of_output(weight, bias, rstd)
    grad_residual, of_residual = epilogue.empty_grad_residual(dtype, walk)
    kernels.backward(
        grad_view,
        view,
        written,
        weight,
        mean,
        rstd,
        grad_weight,
        grad_bias,
        use_input_stats,
        walk.channels_last,
        bias,
        grad_residual=of_residual,
        grad_slope=grad_slope,
        from_output=from_output,
        **epilogue.arguments(dtype, walk, written),
    )
    _deliver(grad_input, destination)
    return InstanceNormGradients(
        result,
        _summed_to(grad_weight, shapes[0]),
        _summed_to(grad_bias, shapes[1]),
        epilogue.given_grad_residual(grad_residual),
        epilogue.given_grad_slope(grad_slope),
    )


def moments(
    x: npt.ArrayLike, mask: npt.ArrayLike | None, channel_axis: int
) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Return the counts (N, 1) of an array's elements, and mean and biased variance (N, C)."""
    given, axis = _checked_input(x, channel_axis, None)
    x = _channels_second(given, axis)
    mask = _checked_mask(mask, (x.shape[0], *x.shape[2:]))
    length = math.prod(x.shape[2:])
    counts = np.full(x.shape[0], length, np.int64) if mask is None else counted(mask)
    mean, rstd = np.zeros(x.shape[:2]), np.zeros(x.shape[:2])
    if x.size:
        view, walk = _to_read(x, x.dtype.newbyteorder("="))
        last = walk.channels_last
        kernels.statistics(view, mean, rstd, 0.0, last, _in_walk(mask, walk), True)
    none = (counts == 0)[:, None]
    mean = np.where(none, 0, mean)
    with np.errstate(divide="ignore", over="ignore"):
        var = np.where(none | (rstd == 0), 0, (1 / rstd) ** 2)
    return counts[:, None], mean, var


def _summed_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of a parameter of shape (C,), of one for each row."""
    return gradient if len(shape) == gradient.ndim else gradient.sum(axis=0)


def update_running(
    running_mean: Array,
    running_var: Array,
    mean: Array,
    rstd: Array,
    momentum: float,
    eps: float,
    length: int,
    mask: Array | None = None,
) -> None:
    """Take the statistics of a batch, of shape (N, C) and float64, into the running ones, in place.

    ``new = (1 - momentum) * old + momentum * x``, x being the mean over N of the samples'
    means and unbiased variances; each was taken of `length` elements, or of those that `mask`
    counts. The running ones are writeable arrays of shape (C,), of any float dtype and strides.
    """
    counts = None if mask is None else counted(mask)
    batch = mean, rstd, momentum, eps, length, counts
    if kernels.update_running(running_mean, running_var, *batch):
        return
    # The kernel takes contiguous float32 and float64.
    wide_mean, wide_var = np.array(running_mean, np.float64), np.array(running_var, np.float64)
    kernels.update_running(wide_mean, wide_var, *batch)
    running_mean[...], running_var[...] = wide_mean, wide_var


# --- checks of single arguments ---------------------------------------------


def checked_eps(eps: float) -> float:
    """Return `eps` as a float, once it is known to be finite and not negative."""
    if isinstance(eps, str | bytes | bool | np.bool_) or not hasattr(eps, "__float__"):
        raise TypeError(f"eps must be a number, got {type(eps).__name__}")
    try:
        value = float(eps)
    except OverflowError:  # an integer or fraction beyond the floats
        value = math.inf if eps > 0 else -math.inf
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"eps must be finite and at least 0, got {value}")
    return value


def check_spatial_size(shape: tuple[int, ...], given: tuple[int, ...] | None = None) -> None:
    """Refuse rows of one element, which have no variance to divide by.

    `shape` is (N, C, spatial...), and `given` the shape as the caller knows it.
    """
    if math.prod(shape[2:]) == 1:
        raise ValueError(
            "expected more than 1 spatial element to take statistics of, "
            f"got an input of shape {given or shape}"
        )


def _checked_flag(flag: object, name: str) -> bool:
    if not isinstance(flag, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {type(flag).__name__}")
    return bool(flag)


def is_float_dtype(dtype: np.dtype[Any]) -> bool:
    """Tell whether `dtype` is one of the float types that can be normalized."""
    # float16, float32 and float64 by their one-letter codes, as dtype.name takes microseconds.
    return dtype.char in "efd" or dtype.name == "bfloat16"


def _float_array(value: npt.ArrayLike, name: str) -> Array:
    _check_unmasked(value, name)
    array = layouts.array_of(value)
    if not is_float_dtype(array.dtype):
        raise TypeError(f"{name} has dtype {array.dtype}, expected one of {', '.join(_FLOATS)}")
    return array


def _check_unmasked(value: object, name: str) -> None:
    # Only subclasses are asked, since the first mention of numpy.ma imports it.
    is_subclass = type(value) is not np.ndarray and isinstance(value, np.ndarray)
    if is_subclass and isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be ignored; "
            f"expected a plain one, such as {name}.filled(0) or {name}.data"
        )


def _checked_channel_axis(axis: int, ndim: int) -> int:
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"channel_axis must be an integer, got {type(axis).__name__}")
    index = operator.index(axis)
    if not -ndim <= index < ndim:
        raise AxisError(index, ndim, "channel_axis")
    if index % ndim == 0:
        raise ValueError(f"channel_axis must not be 0, the axis of the samples; got {axis}")
    return index % ndim


def _checked_input(x: Any, channel_axis: int, out: Array | None) -> tuple[Array, int]:
    """Return x as an array, and which axis is C, once the three are found fit."""
    array = _float_array(x, "x")
    if array.ndim < 3:
        raise ValueError(f"x has shape {array.shape}, expected at least 3 axes: (N, C, spatial...)")
    axis = _checked_channel_axis(channel_axis, array.ndim)
    if array.ndim == 3 and channel_axis == -1:
        _warn_of_one_image(array.shape)
    if out is not None:
        _check_out(out, array)
    return array, axis


def _warn_of_one_image(shape: tuple[int, ...]) -> None:
    if min(shape[:2]) < 8 or shape[2] not in (1, 3, 4):  # hardly grey, RGB or RGBA
        return
    warnings.warn(
        f"x of shape {shape} is read as {shape[0]} sequences of length {shape[1]}, not as one "
        "image: for an image (H, W, C) pass x[None], for sequences (N, L, C) pass channel_axis=2",
        UserWarning,
        stacklevel=4,
    )


def _parameter(value: npt.ArrayLike | None, name: str, shape: tuple[int, ...]) -> Array | None:
    """Return a weight or bias as float32 or float64, contiguous."""
    if value is None:
        return None
    array = _float_array(value, name)
    if array.shape != shape[1:2] and array.shape != shape[:2]:
        raise ArgumentError(
            f"{name} has shape {array.shape}, expected {shape[1:2]} or {shape[:2]}: "
            "one for each channel, or for each channel of each sample"
        )
    return _plain(array)


def _affine(
    weight: npt.ArrayLike | None, bias: npt.ArrayLike | None, shape: tuple[int, ...]
) -> tuple[Array | None, Array | None]:
    """Return weight and bias, both of shape (C,), or both of (N, C) where one of them is."""
    arrays = _parameter(weight, "weight", shape), _parameter(bias, "bias", shape)
    if all(a is None or a.ndim == 1 for a in arrays):
        return arrays
    first, second = (None if a is None else _for_every_row(a, shape) for a in arrays)
    return first, second


@overload
def _statistic(value: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> Array: ...
@overload
def _statistic(value: npt.ArrayLike | None, name: str, shape: tuple[int, ...]) -> Array | None: ...
def _statistic(value: npt.ArrayLike | None, name: str, shape: tuple[int, ...]) -> Array | None:
    if value is None:
        return None
    array = _float_array(value, name)
    if array.shape != shape[:2] and array.shape != shape[1:2]:
        raise ArgumentError(
            f"{name} has shape {array.shape}, expected {shape[1:2]} or {shape[:2]}: "
            "one for each channel, or for each channel of each sample"
        )
    return array.astype(np.float64, copy=False)


def rstd_of(var: Array, eps: float) -> Array:
    """Return 1 / sqrt(var + eps), and 0 where var + eps is 0."""
    if (var < 0).any():
        raise ValueError(f"var must be at least 0, got {var.min()}")
    total = var + eps
    with np.errstate(divide="ignore"):
        return np.where(total == 0, 0.0, 1 / np.sqrt(total))


def _for_every_row(statistic: Array, shape: tuple[int, ...]) -> Array:
    return _plain(np.broadcast_to(statistic, shape[:2]))


def _check_out(out: object, x: Array) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an ndarray, got {type(out).__name__}")
    _check_unmasked(out, "out")
    if out.shape != x.shape:
        raise ValueError(f"out has shape {out.shape}, expected that of x, {x.shape}")
    if out.dtype != x.dtype:
        raise TypeError(f"out has dtype {out.dtype}, expected that of x, {x.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if _overlaps_itself(out):
        raise ValueError(
            f"out overlaps itself: it has shape {out.shape} and strides {out.strides}, "
            "expected memory of its own for each element"
        )


def _overlaps_itself(array: Array) -> bool:
    """Tell whether two elements have bytes in common."""
    if array.flags.forc:
        return False
    axes = sorted((abs(step), n) for step, n in zip(array.strides, array.shape, strict=True))
    end, nested = array.itemsize, True
    for step, n in axes:
        nested = nested and (n == 1 or step >= end)
        end += (n - 1) * step
    if nested or array.nbytes > end:
        return not nested  # each axis steps over what the axes inside it reach; or too little room
    places = np.zeros(1, np.intp)
    for step, n in axes:
        places = np.add.outer(places, step * np.arange(n)).ravel()
    places.sort()
    return bool((np.diff(places) < array.itemsize).any())


# --- the epilogue --------------------------------------------------------------


class _Epilogue(NamedTuple):
    """Checked arguments of what follows the affine map; `x` is given as (N, C, spatial...)."""

    mask: Array | None  # (N, spatial...)
    residual: Array | None  # as x
    activation: int
    slope: Array  # (1,) or (C,), float64
    given_residual: Array | None  # as the caller gave it
    axis: int
    given_slope: Array | None  # None: a number

    def check_count(self) -> None:
        """Refuse a sample of which less than two elements count."""
        if self.mask is None:
            return
        counts = counted(self.mask)
        if counts.size and counts.min() < 2:
            sample = int(counts.argmin())
            raise ValueError(
                "expected more than 1 spatial element to take statistics of, "
                f"but mask counts {counts[sample]} in sample {sample}"
            )

    def arguments(self, dtype: np.dtype[Any], walk: Walk, written: Array) -> dict[str, Any]:
        """Return the kernels' keyword arguments, for arrays in a walk."""
        residual = None
        if self.residual is not None:
            residual = _in_step(_to_read(self.residual, dtype, walk)[0], written)
        mask = _apart(_in_walk(self.mask, walk), written)
        slope = None
        if self.activation == _ACTIVATIONS["leaky_relu"]:
            slope = _apart(self.slope, written)
        return {
            "residual": residual,
            "mask": mask,
            "activation": self.activation,
            "slope": slope,
        }

    def empty_grad_residual(
        self, dtype: np.dtype[Any], walk: Walk
    ) -> tuple[Array | None, Array | None]:
        """Return where to write the residual's gradient, if any, and as the kernels take it."""
        if self.residual is None:
            return None, None
        return layouts.empty(self.residual.shape, dtype, walk)

    def given_grad_residual(self, gradient: Array | None) -> Array | None:
        """Return the residual's gradient with the axes and the dtype of the residual."""
        if gradient is None or self.given_residual is None:
            return None
        with np.errstate(over="ignore"):
            gradient = gradient.astype(self.given_residual.dtype, copy=False)
        return gradient if self.axis == 1 else np.moveaxis(gradient, 1, self.axis)

    def empty_grad_slope(self) -> Array | None:
        wanted = self.given_slope is not None and self.activation == _ACTIVATIONS["leaky_relu"]
        return np.zeros_like(self.slope) if wanted else None

    def given_grad_slope(self, gradient: Array | None) -> Array | None:
        """Return the slope's gradient in the dtype of the slope; zeros where it had no part."""
        if self.given_slope is None:
            return None
        if gradient is None:
            return np.zeros_like(self.given_slope)
        with np.errstate(over="ignore"):
            return gradient.astype(self.given_slope.dtype, copy=False)


_NOTHING = _Epilogue(None, None, 0, np.zeros(1), None, _DEFAULT_AXIS, None)


def _checked_epilogue(
    mask: npt.ArrayLike | None,
    residual: npt.ArrayLike | None,
    activation: str | None,
    negative_slope: npt.ArrayLike,
    x: Array,
    axis: int,
) -> _Epilogue:
    """Check what follows the affine map; the arrays have the axes of `x` as it was given."""
    if mask is residual is activation is None and type(negative_slope) is float:
        return _NOTHING
    shape = (x.shape[0], x.shape[axis], *(n for i, n in enumerate(x.shape) if i not in (0, axis)))
    given_residual = None if residual is None else _float_array(residual, "residual")
    if given_residual is not None and given_residual.shape != x.shape:
        raise ValueError(
            f"residual has shape {given_residual.shape}, expected that of x, {x.shape}"
        )
    slope, given_slope = checked_slope(activation, negative_slope, shape[1])
    return _Epilogue(
        _checked_mask(mask, (shape[0], *shape[2:])),
        None if given_residual is None else _channels_second(given_residual, axis),
        _ACTIVATIONS[activation],
        slope,
        given_residual,
        axis,
        given_slope,
    )


def _in_walk(mask: Array | None, walk: Walk) -> Array | None:
    """Return a mask with its spatial axes in the order of a walk's memory."""
    if mask is None:
        return None
    order = [axis - (axis > 1) for axis in walk.order or () if axis != 1]
    return np.ascontiguousarray(mask.transpose(order) if order else mask)


def _checked_mask(mask: npt.ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """Return the mask; None where all elements count."""
    if mask is None:
        return None
    _check_unmasked(mask, "mask")
    array = layouts.array_of(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"mask has dtype {array.dtype}, expected bool: True where elements count")
    if array.shape != shape:
        raise ValueError(
            f"mask has shape {array.shape}, expected {shape}: the input's without its channels"
        )
    return None if array.all() else array


def counted(mask: Array) -> npt.NDArray[np.int64]:
    """How many elements of each sample count, by a mask of shape (N, spatial...)."""
    counts: npt.NDArray[np.int64] = mask.reshape(len(mask), -1).sum(axis=1, dtype=np.int64)
    return counts


def checked_slope(
    activation: str | None, negative_slope: npt.ArrayLike, channels: int
) -> tuple[Array, Array | None]:
    """Return the slope as (1,) or (C,) float64, and as it was given, or None if by a number."""
    if activation is not None and (
        not isinstance(activation, str) or activation not in _ACTIVATIONS
    ):
        raise ValueError(f"activation is {activation!r}, expected None, 'relu' or 'leaky_relu'")
    if isinstance(negative_slope, str | bytes | bool | np.bool_):
        raise TypeError(f"negative_slope must be a number or array, got {negative_slope!r}")
    if isinstance(negative_slope, float | int | np.floating | np.integer):
        return np.array([negative_slope], np.float64), None
    given = _float_array(negative_slope, "negative_slope")
    if given.shape not in ((1,), (channels,)):
        raise ArgumentError(
            f"negative_slope has shape {given.shape}, expected (1,) or ({channels},): "
            "one for all channels, or for each"
        )
    return np.array(given, np.float64), given


def check_inplace(activation: str | None, negative_slope: Any) -> None:
    """Refuse an activation that the output does not tell the input of."""
    if activation == "relu":
        raise ValueError(
            "inplace=True needs the input back from the output, which a ReLU's does not tell; "
            "expected activation=None or 'leaky_relu'"
        )
    if activation is not None and not (
        isinstance(negative_slope, float | int | np.floating | np.integer) and negative_slope > 0
    ):
        raise ValueError(
            "inplace=True needs a negative_slope that is a number above 0 to invert "
            f"the activation, got {negative_slope!r}"
        )


def check_invertible(weight: Array, bias: Array | None, dtype: np.dtype[Any]) -> None:
    """Refuse weights by which too little of x is left in an output of this dtype."""
    size = np.abs(weight.astype(np.float64))
    # What rounding the output loses of (x - mean) * rstd is at most a quarter then.
    least = np.full_like(size, 1e-12)
    if bias is not None:
        eps = 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)
        shift = np.abs(bias.astype(np.float64))
        size, shift = np.broadcast_arrays(size, shift)
        least = np.maximum(1e-12, 4 * eps * shift)
    if not (size >= least).all():
        place = np.unravel_index(int(np.argmin(size - least)), size.shape)
        raise ValueError(
            f"inplace=True cannot invert the affine map: weight[{', '.join(map(str, place))}] is "
            f"{size[place]:.3g} in size, expected at least {least[place]:.3g}"
        )


def _as_statistics_of_output(
    weight: Array | None, bias: Array | None, rstd: Array
) -> tuple[Array, Array | None, Array, Array]:
    """Return weight, bias, mean and rstd that make the kernels differentiate by the output.

    What the activation was applied to, v = x_hat weight + bias, stands in the place of x. Its
    normalized form is x_hat = (v - bias) / weight, and d x_hat / d x is rstd.
    """
    scale, shift = np.ones_like(rstd), np.zeros_like(rstd)
    if weight is not None:
        scale[...] = weight
    if bias is not None:
        shift[...] = bias
    return scale * scale * rstd, None, shift, 1 / scale


# --- between the caller's arrays and the kernels' -----------------------------


def _wide_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Statistics are never computed in half precision."""
    return _FLOAT64 if dtype.char == "d" else _FLOAT32


def _plain(array: Array) -> Array:
    """A parameter as float32 or float64, C-contiguous: itself or a copy."""
    dtype, flags = _wide_dtype(array.dtype), array.flags
    if array.dtype == dtype and array.dtype.isnative and flags.c_contiguous and flags.aligned:
        return array
    return np.array(array, dtype=dtype, order="C")


def _channels_second(array: Array, axis: int) -> Array:
    return array if axis == 1 else np.moveaxis(array, axis, 1)


def _to_read(array: Array, dtype: np.dtype[Any], walk: Walk | None = None) -> tuple[Array, Walk]:
    """Return what a kernel can read, in the given walk if any: of the array itself or a copy."""
    found = layouts.walked(array, walk) if array.dtype == dtype else None
    return layouts.dense(array, dtype, walk) if found is None else found


def _to_write(destination: Array, dtype: np.dtype[Any], walk: Walk) -> tuple[Array, Array]:
    """Return `destination`, or a new array if a kernel cannot write there, and what it writes."""
    if destination.dtype == dtype and (found := layouts.walked(destination, walk)) is not None:
        return destination, found[0]
    return layouts.empty(destination.shape, dtype, walk)


_A = TypeVar("_A", Array, Array | None)


def _apart(array: _A, written: Array) -> _A:
    """Return `array`, or a copy if it may lie in the memory of `written`."""
    if array is None or not np.may_share_memory(array, written):
        return array
    return array.copy()


def _in_step(array: Array, written: Array) -> Array:
    """Return `array`, or a copy if writing `written` element by element would spoil it.

    Both are views for one walk. What a kernel reads of x and grad_output last is the element
    in whose place it writes next: element for element, they may be the same memory.
    """
    same = array.ctypes.data == written.ctypes.data and array.dtype == written.dtype
    return array if same else _apart(array, written)


def _deliver(y: Array, destination: Array) -> None:
    """Bring what a kernel wrote to where, or to the layout in which, the caller wants it."""
    if y is not destination:
        # A value beyond half precision's range becomes infinite there; no warning is due.
        with np.errstate(over="ignore"):
            destination[...] = y
