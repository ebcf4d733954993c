"""Instance normalization of Tensors, by the array functions, and its second derivatives."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from instnorm import arrays, autograd
from instnorm._layouts import Array
from instnorm._primitives import Linear
from instnorm.arrays import ArgumentError
from instnorm.autograd import Function
from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor


def instance_norm(
    input: Input,
    running_mean: Input | None = None,
    running_var: Input | None = None,
    weight: Input | None = None,
    bias: Input | None = None,
    use_input_stats: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    mask: Input | None = None,
    residual: Input | None = None,
    activation: str | None = None,
    negative_slope: float | Input = 0.01,
    inplace: bool = False,
) -> Tensor:
    r"""Normalize each channel of each sample by its own mean and variance.

    .. math:: y = \mathrm{act}\left(\frac{x - \mathrm{mean}}{\sqrt{\mathrm{var} + \epsilon}}
        \cdot weight + bias + residual\right)

    Parameters
    ----------
    input : Tensor or ndarray of shape (N, C, spatial...)
        At least three axes, float dtype.
    running_mean, running_var : Tensor or ndarray of shape (C,), optional
        With `use_input_stats`, they are updated in place: ``new = (1 - momentum) *
        old + momentum * x``, x being the mean over N of the samples' means and
        unbiased variances. Without, they are what is used.
    weight, bias : Tensor or ndarray of shape (C,) or (N, C), optional
        Scale and shift of each channel, or of each channel of each sample. Either may
        be given without the other.
    use_input_stats : bool, default True
        Whether to normalize by the input's statistics or by the running ones.
    momentum : float or None, default 0.1
        Share of the new value in the running statistics; None leaves them alone.
    eps : float, default 1e-5
        Added to the variance; finite and not negative.
    mask : Tensor or ndarray of bool, of shape (N, spatial...), optional
        True where an element counts. Statistics are taken of those; output and gradient
        are 0 elsewhere, whatever the input holds there.
    residual : Tensor or ndarray, optional
        Added before the activation: the shape of `input`.
    activation : {None, "relu", "leaky_relu"}, default None
        Applied last, in the same pass.
    negative_slope : float, or Tensor or ndarray of shape (1,) or (C,), default 0.01
        What the leaky ReLU multiplies negative numbers by. An array makes it a PReLU,
        whose slope may require gradients.
    inplace : bool, default False
        Whether the output takes the input's memory. Backward finds the input from the
        output; so the activation may be a leaky ReLU by a positive number, or none, and
        the weight must not be too small: at least 1e-12, and 4 times the bias times
        the machine epsilon of the input's dtype.

    Returns
    -------
    Tensor
        Of the shape, dtype and memory layout of `input`.

    Raises
    ------
    TypeError
        If the input is not of a float dtype, or the mask not of bool.
    ValueError
        If the input has fewer than three axes, there is just one spatial element to take
        statistics of, `eps` is negative or not finite, one running statistic is
        given without the other, there is no such activation, or what `inplace` asks for
        is not to be had.
    ArgumentError
        A ValueError and RuntimeError: if a parameter or running statistic is not of
        shape (C,), or the running statistics are missing where they are used.
    RuntimeError
        If `inplace` would overwrite a leaf that requires gradients.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing
    Ingredient for Fast Stylization", 2016, https://arxiv.org/abs/1607.08022;
    S. Rota Bulò, L. Porzi, P. Kontschieder, "In-Place Activated BatchNorm for
    Memory-Optimized Training of DNNs", 2018, https://arxiv.org/abs/1712.02616

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([[[1.0, 3.0], [10.0, 30.0]]])
    >>> instnorm.functional.instance_norm(x, eps=0, activation="relu")
    tensor([[[0., 1.],
             [0., 1.]]])
    """
    # Not by `as_tensor` alone: calling it for Tensors would take a tenth of a small input's time.
    if not isinstance(input, Tensor):
        input = as_tensor(input, "input")
    if weight is not None and not isinstance(weight, Tensor):
        weight = as_tensor(weight, "weight")
    if bias is not None and not isinstance(bias, Tensor):
        bias = as_tensor(bias, "bias")
    given = running = None
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ArgumentError(
                "running_mean and running_var must both be given where use_input_stats is False, "
                f"got running_mean={running_mean!r} and running_var={running_var!r}"
            )
        given = (
            _statistic(running_mean, "running_mean", input),
            _statistic(running_var, "running_var", input),
        )
    elif running_mean is not None and running_var is not None:
        _check_writable(running_mean, "running_mean", input)
        _check_writable(running_var, "running_var", input)
        if momentum is not None and input.data.size:
            running = running_mean, running_var, momentum
    elif running_mean is not running_var:
        raise ValueError(
            "running_mean and running_var must be given both or neither, got "
            f"running_mean={running_mean!r} and running_var={running_var!r}"
        )
    after = PLAIN
    slope = None
    if mask is not None or residual is not None or activation is not None or inplace:
        residual = None if residual is None else as_tensor(residual, "residual")
        if activation is not None and isinstance(negative_slope, Tensor | np.ndarray):
            slope = as_tensor(negative_slope, "negative_slope")
        after = Epilogue(
            None if mask is None else _array(mask), activation, negative_slope, inplace
        )
        if inplace:
            _check_inplace(input, weight, bias, after)
    settings = (given, eps, running, after)
    if autograd.is_recorded(input, weight, bias, residual, slope):
        return InstanceNorm.apply(input, weight, bias, residual, slope, settings)
    return _as_output(_run(input, weight, bias, residual, slope, settings)[0], input, after)


class Epilogue(NamedTuple):
    """What follows the affine map, but for what may require gradients: residual and slope."""

    mask: Array | None
    activation: str | None
    negative_slope: float | Input
    inplace: bool


PLAIN = Epilogue(None, None, 0.01, False)

# What there is besides Tensors: mean and var, where these are given; eps; the running statistics
# that take in those of the input, with momentum; and what follows.
_Settings: TypeAlias = (
    "tuple[tuple[Array, Array] | None, float, tuple[Input, Input, float] | None, Epilogue]"
)


def normalize_by(
    input: Tensor,
    mean: Array,
    var: Array,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    mask: Array | None,
) -> Tensor:
    """As `instance_norm`, by constants of shape (N, C)."""
    after = PLAIN if mask is None else Epilogue(mask, None, 0.01, False)
    arguments = (input, weight, bias, None, None, ((mean, var), eps, None, after))
    if autograd.is_recorded(input, weight, bias):
        return InstanceNorm.apply(*arguments)
    return _as_output(_run(*arguments)[0], input, after)


def adaptive_instance_norm(content: Input, style: Input, eps: float = 1e-5) -> Tensor:
    r"""Give each channel of the content the mean and standard deviation of the style's.

    .. math:: y = \sigma(style) \frac{content - \mu(content)}{\sqrt{\sigma^2(content) +
        \epsilon}} + \mu(style), \quad \sigma(style) = \sqrt{\sigma^2(style) + \epsilon}

    Parameters
    ----------
    content : Tensor or ndarray of shape (N, C, spatial...)
        What is normalized.
    style : Tensor or ndarray of shape (N, C, spatial...), or (1, C, spatial...)
        Whose statistics are taken on: of any spatial size.
    eps : float, default 1e-5
        Added to both variances; finite and not negative.

    Returns
    -------
    Tensor
        Of the shape, dtype and memory layout of `content`.

    Raises
    ------
    ValueError
        If the numbers of samples or channels do not fit, or one of the two has fewer than
        two spatial elements.

    References
    ----------
    X. Huang, S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance
    Normalization", 2017, https://arxiv.org/abs/1703.06868

    Examples
    --------
    >>> import instnorm
    >>> content = instnorm.tensor([[[1.0, 3.0]]])
    >>> style = instnorm.tensor([[[10.0, 30.0, 50.0]]])
    >>> instnorm.functional.adaptive_instance_norm(content, style, eps=0)
    tensor([[[13.670069, 46.329933]]])
    """
    content, style = as_tensor(content, "content"), as_tensor(style, "style")
    shapes = f"got content of shape {content.shape} and style of shape {style.shape}"
    if content.ndim < 3 or style.ndim < 3:
        raise ValueError(f"expected at least 3 axes, (N, C, spatial...); {shapes}")
    if style.shape[1] != content.shape[1] or style.shape[0] not in (1, content.shape[0]):
        raise ValueError(f"the style has to have the content's samples and channels; {shapes}")
    arrays.check_spatial_size(style.shape)
    arrays.checked_eps(eps)
    working = style.to(np.promote_types(style.dtype, np.float32))
    axes = tuple(range(2, style.ndim))
    mean = working.mean(axes, keepdim=True)
    centred = working - mean
    scale = ((centred * centred).mean(axes) + eps).sqrt()
    shape = content.shape[:2]
    mean = mean.reshape(scale.shape)
    if style.shape[0] != shape[0]:
        ones = np.ones((shape[0], 1), working.dtype)
        mean, scale = mean * ones, scale * ones
    return instance_norm(content, weight=scale, bias=mean, eps=eps)


def _array(value: Any) -> Array:
    return value.data if isinstance(value, Tensor) else np.asarray(value)


def _statistic(value: Any, name: str, input: Tensor) -> Array:
    array = _array(value)
    if input.ndim > 1 and array.shape != input.shape[1:2]:
        raise ArgumentError(
            f"{name} has shape {array.shape}, expected {input.shape[1:2]}: one for each channel"
        )
    return array


def _check_writable(running: Any, name: str, input: Tensor) -> None:
    if not isinstance(running, Tensor | np.ndarray):
        raise TypeError(
            f"{name} is updated in place and must be a Tensor or ndarray, "
            f"got {type(running).__name__}"
        )
    array = _statistic(running, name, input)
    if not arrays.is_float_dtype(array.dtype):
        raise TypeError(f"{name} has dtype {array.dtype}, expected a float dtype")
    if not array.flags.writeable:
        raise ValueError(f"{name} is updated in place and is read-only")


def _check_inplace(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, after: Epilogue
) -> None:
    """Refuse to overwrite an input that is needed, or could not be found from the output."""
    arrays.check_inplace(after.activation, after.negative_slope)
    if not input.data.flags.writeable:
        raise ValueError("inplace=True overwrites the input, which is read-only")
    if autograd.is_recorded(input) and _is_view_of_leaf(input):
        raise RuntimeError(
            "inplace=True would overwrite a leaf Tensor that requires gradients, or a view of one; "
            "expected the result of another operation"
        )
    if weight is not None and weight.data.size:
        arrays.check_invertible(weight.data, None if bias is None else bias.data, input.dtype)


def _is_view_of_leaf(tensor: Tensor) -> bool:
    """Whether a leaf that requires gradients lies in the same memory."""
    target: Any = tensor if tensor.grad_fn is None else tensor.grad_fn
    while isinstance(target, Linear):  # views are made by no other Function
        target = next(edge[0] for edge in target._edges if edge is not None)
    return isinstance(target, Tensor) and target._counter is tensor._counter


def _update_running(
    running: tuple[Input, Input, float],
    mean: Array,
    rstd: Array,
    eps: float,
    input: Tensor,
    mask: Array | None,
) -> None:
    """Take the statistics of a batch, each of shape (N, C), into the running ones."""
    running_mean, running_var, momentum = running
    length = math.prod(input.shape[2:])
    targets = _array(running_mean), _array(running_var)
    arrays.update_running(*targets, mean, rstd, momentum, eps, length, mask)
    for changed in (running_mean, running_var):
        if isinstance(changed, Tensor):
            changed.mark_changed()


def _run(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: Tensor | None,
    settings: _Settings,
    return_stats: bool = False,
) -> tuple[Array, Any, Any]:
    """y, mean and rstd; these two are None where nobody asks for them."""
    given, eps, running, after = settings
    kept: Any = return_stats or running is not None
    weight_data = None if weight is None else weight.data
    bias_data = None if bias is None else bias.data
    found: Any
    if given is None and after is PLAIN:
        # At once, as small inputs wait for this.
        found = arrays.instance_norm(input.data, weight_data, bias_data, eps=eps, return_stats=kept)
    else:
        mean, var = given or (None, None)
        found = arrays.instance_norm(
            input.data,
            weight_data,
            bias_data,
            mean=mean,
            var=var,
            eps=eps,
            return_stats=kept,
            mask=after.mask,
            residual=None if residual is None else residual.data,
            activation=after.activation,
            negative_slope=after.negative_slope if slope is None else slope.data,
            out=input.data if after.inplace else None,
        )
    results: tuple[Array, Any, Any] = found if kept else (found, None, None)
    if running is not None:
        _update_running(running, *results[1:], eps, input, after.mask)
    if after.inplace:
        input.mark_changed()
    return results


def _as_output(y: Array, input: Tensor, after: Epilogue) -> Tensor:
    return input.view_of_memory(y) if after.inplace else Tensor._of(y)


class InstanceNorm(Function):
    """Instance normalization by the compiled kernels."""

    # Whether weight and bias differ in dtype.
    mixed = False

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        slope: Tensor | None,
        settings: _Settings,
    ) -> Any:
        """Normalize, by the input's own statistics where none are given."""
        array, mean, rstd = _run(input, weight, bias, residual, slope, settings, True)
        ctx.settings = settings
        after = settings[3]
        if bias is not None:
            other = (input if weight is None else weight).data
            ctx.mixed = bias.data.dtype != other.dtype
        # The bias has a part in the gradient only by what the activation passes, and by its shape.
        if after is PLAIN and (bias is None or bias.data.ndim == 1):
            ctx.save_for_backward(input, weight, mean, rstd)
            return array
        y = _as_output(array, input, after)
        kept = y if after.inplace else input
        ctx.save_for_backward(kept, weight, mean, rstd, bias, residual, slope)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Run the backward kernel; where the result is to be differentiated, Tensor operations."""
        input, weight, mean, rstd, *others = ctx.saved_tensors
        bias, residual, slope = others or (None, None, None)
        of_input, eps, _, after = ctx.settings
        use_input_stats = of_input is None
        grads: Any
        if autograd.is_grad_enabled():
            given = None if use_input_stats else (mean, rstd)
            if after.inplace:
                input = _input_of_output(ctx, input, weight, mean, rstd, bias, residual)
            grads = _differentiable_backward(
                grad_output, input, weight, bias, residual, slope, given, eps, after
            )
        elif after is PLAIN and bias is None:
            # The array function narrows the parameters' gradients to one dtype. Where weight and
            # bias differ in theirs, they stay float64 here, and the graph narrows each to its own.
            run = arrays.gradients if ctx.mixed else arrays.instance_norm_backward
            grads = run(
                grad_output.data,
                input.data,
                None if weight is None else weight.data,
                mean=mean,
                rstd=rstd,
                use_input_stats=use_input_stats,
            )
            # At once, as small inputs wait for this; the graph drops what nobody wants.
            return (*map(Tensor._of, grads[:3]), None, None, None)
        else:
            grads = arrays.gradients(
                grad_output.data,
                input.data,
                None if weight is None else weight.data,
                mean=mean,
                rstd=rstd,
                bias=None if bias is None else bias.data,
                mask=after.mask,
                residual=None if residual is None else residual.data,
                activation=after.activation,
                negative_slope=after.negative_slope if slope is None else slope.data,
                use_input_stats=use_input_stats,
                from_output=after.inplace,
            )
        # Only arguments that are there need a gradient, and get one.
        wanted = zip(ctx.needs_input_grad, grads, strict=False)
        found = [
            (g if isinstance(g, Tensor) else Tensor._of(g)) if need else None for need, g in wanted
        ]
        return (*found, *(None for _ in range(6 - len(found))))


def _input_of_output(
    ctx: Any,
    output: Tensor,
    weight: Tensor | None,
    mean: Array,
    rstd: Array,
    bias: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """The input that was overwritten, with its place in the graph, for second derivatives."""
    after = ctx.settings[3]
    v = output.data.astype(np.promote_types(output.dtype, np.float32))
    if after.activation is not None:
        v = np.where(v > 0, v, v / after.negative_slope)
    if residual is not None:
        v = v - residual.data
    axes = (1,) * (output.ndim - 2)

    def spread(parameter: Array) -> Array:
        return parameter.reshape(*((1,) * (2 - parameter.ndim)), *parameter.shape, *axes)

    if bias is not None:
        v = v - spread(bias.data)
    if weight is not None:
        v = v / spread(weight.data)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(spread(rstd) == 0, 0, v / spread(rstd)) + spread(mean)
    found = Tensor._of(x.astype(output.dtype))
    edge = ctx._edges[0]
    if edge is not None:
        found._set_history(*edge)
    return found


def _differentiable_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: Tensor | None,
    given: tuple[Array, Array] | None,
    eps: float,
    after: Epilogue,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients of instance normalization as a graph, for second derivatives.

    `given` holds mean and rstd, or is None where they are functions of the input.
    """
    axes = tuple(range(2, input.ndim))
    working = np.promote_types(input.dtype, np.float32)
    x, g = input.to(working), grad_output.to(working)
    counts: Any = np.prod(input.shape[2:])
    kept = None
    if after.mask is not None:
        kept = np.broadcast_to(np.expand_dims(after.mask, 1), input.shape)
        counts = arrays.counted(after.mask).reshape(-1, 1, *(1 for _ in axes)).astype(working)
        x, g = x.where(kept, 0.0), g.where(kept, 0.0)

    def spread(parameter: Tensor) -> Tensor:
        """With the axes of the input."""
        front = (1,) * (2 - parameter.ndim)
        return parameter.to(working).reshape(*front, *parameter.shape, *(1 for _ in axes))

    def counted(t: Tensor) -> Tensor:
        return t if kept is None else t.where(kept, 0.0)

    def mean_of(t: Tensor) -> Any:
        return t.sum(axes, keepdim=True) / counts

    def to_parameter(t: Tensor, parameter: Tensor | None) -> Tensor:
        """Sum what belongs to the same number of a parameter."""
        if parameter is not None and parameter.ndim == 2:
            return t.sum(axes)
        return t.sum((0, *axes))

    scale = 1.0 if weight is None else spread(weight)
    if given is None:
        centred = counted(x - mean_of(x))
        shifted_var = mean_of(centred * centred) + eps
        constant = shifted_var.data == 0
        root = shifted_var.where(~constant, 1.0).sqrt()
        x_hat = (centred / root).where(~np.broadcast_to(constant, x.shape), 0.0)
        inverse = (1 / root).where(~constant, 0.0)
    else:
        mean, rstd = (s.reshape(*s.shape, *(1 for _ in axes)).astype(working) for s in given)
        x_hat = counted((x - mean) * rstd)
        inverse = Tensor._of(rstd)
    grad_slope = None
    if after.activation is not None:
        v = x_hat * scale
        if bias is not None:
            v = v + spread(bias)
        if residual is not None:
            v = v + residual.to(working)
        positive = v.data > 0
        if after.activation == "relu":
            g = g.where(v.data > 0, 0.0)
        elif slope is None:
            g = g.where(positive, g * float(after.negative_slope))
        else:
            spread_slope = slope.to(working).reshape(1, -1, *(1 for _ in axes))
            grad_slope = (g * v).where(~positive, 0.0)
            over = (0, *axes) if slope.numel() > 1 else tuple(range(input.ndim))
            grad_slope = grad_slope.sum(over).reshape(slope.shape)
            g = g.where(positive, g * spread_slope)
    if given is None:
        grad_input = counted(inverse * scale * (g - mean_of(g) - x_hat * mean_of(g * x_hat)))
    else:
        grad_input = g * scale * inverse
    grad_weight, grad_bias = to_parameter(g * x_hat, weight), to_parameter(g, bias)
    grad_residual = None if residual is None else g.to(residual.dtype)
    return grad_input.to(input.dtype), grad_weight, grad_bias, grad_residual, grad_slope
