"""The checks behind the table: each tells whether a framework does what a cell says.

They run on the flavours of this package and on the real frameworks alike, on a CPU.
MindSpore's layers have no kernel there, so what they compute is taken from their
documentation, and checked to stand there.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from instnorm.migrate.layers import layer as converted_layer

Check: TypeAlias = Callable[[Any], bool]


def all_of(*checks: Check) -> Check:
    """Make a check of several."""
    return lambda framework: all(check(framework) for check in checks)


def raises(error: type[Exception], run: Callable[..., object], *args: Any, **kwargs: Any) -> bool:
    """Tell whether this call raises the error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(*args, **kwargs)
    except error:
        return True
    return False


def normal(*shape: int, mean: float = 0.0) -> npt.NDArray[np.float32]:
    """Return the same random numbers every time."""
    return np.random.default_rng(0).normal(mean, 1, shape).astype(np.float32)


def channels_last(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the same values in channels-last memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


# --- the constructor --------------------------------------------------------------


def default(name: str, value: object) -> Check:
    """Whether the parameter's default is this; types are not compared."""
    return lambda f: name in f.parameters() and str(f.parameters()[name].default) == str(value)


def lacks(*names: str) -> Check:
    """Whether there are no parameters of these names."""
    return lambda f: not set(names) & f.parameters().keys()


def takes(**options: Any) -> Check:
    """Whether a layer can be made so."""
    return lambda f: f.layer(**options) is not None


def refuses(error: type[Exception], **options: Any) -> Check:
    """Whether making a layer so raises the error."""
    return lambda f: raises(error, f.layer, **options)


def input_is(name: str) -> Check:
    """Whether the input goes by this name."""
    return lambda f: bool(f.input_name() == name)


def starts_at(**values: float) -> Check:
    """Whether the entries of a new affine layer's state have these values."""
    return lambda f: all(
        bool((f.state(f.layer(affine=True))[name] == value).all()) for name, value in values.items()
    )


def first_values(value: Any, expected: float) -> Check:
    """Whether gamma_init and beta_init take this."""

    def check(f: Any) -> bool:
        state = f.state(f.layer(gamma_init=value, beta_init=value))
        return bool((state["gamma"] == expected).all() and (state["beta"] == expected).all())

    return check


def documents(text: str) -> Check:
    """Whether this stands in the class's documentation."""
    return lambda f: " ".join(text.split()) in f.documentation()


def has_no(name: str) -> Check:
    """Whether there is no class of this name."""
    return lambda f: not hasattr(f.namespace, name)


def starts_in_training(expected: bool) -> Check:
    """Whether a new layer is in training mode."""
    return lambda f: f.layer().training is expected


# --- the state ----------------------------------------------------------------------


def state_names(*names: str, **options: Any) -> Check:
    """Whether the state of such a layer has these names, in any order."""
    return lambda f: sorted(f.state(f.layer(**options))) == sorted(names)


def nested_state_names(*names: str, **options: Any) -> Check:
    """Whether that is so inside a network."""
    return lambda f: sorted(f.nested_names(f.layer(**options))) == sorted(names)


def not_learned(f: Any) -> bool:
    """Whether gamma and beta are there with affine=False, and require no gradients."""
    layer = f.layer(affine=False, gamma_init=2.0)
    return not (layer.gamma.requires_grad or layer.beta.requires_grad)


def applied_anyway(f: Any) -> bool:
    """Whether gamma is applied with affine=False."""
    x = normal(2, 3, 4, 4)
    scaled = f.call(f.layer(affine=False, gamma_init=2.0), x)
    return bool(np.array_equal(scaled, 2 * f.call(f.layer(), x)))


def counts_no_batches(f: Any) -> bool:
    """Whether num_batches_tracked stays 0."""
    layer = f.layer(track_running_stats=True)
    f.call(layer, normal(2, 3, 4, 4))
    return bool(f.state(layer)["num_batches_tracked"] == 0)


def missing_entries_raise(f: Any) -> bool:
    """Whether a state that lacks an entry of the layer is refused."""
    layer = f.layer(affine=True)
    names = list(f.state(layer))
    return raises(RuntimeError, f.load, layer, {names[0]: f.state(layer)[names[0]] + 1})


def missing_entries_are_kept(f: Any) -> bool:
    """Whether loading one entry succeeds, and leaves the others as they were."""
    layer = f.layer(affine=True)
    before = {name: value.copy() for name, value in f.state(layer).items()}
    first, *rest = before
    if raises(RuntimeError, f.load, layer, {first: before[first] + 1}):
        return False
    after = f.state(layer)
    return bool((after[first] == before[first] + 1).all()) and all(
        bool((after[name] == before[name]).all()) for name in rest
    )


def has_function(name: str, expected: bool = True) -> Check:
    """Whether there is a function of tensors of this name."""
    return lambda f: any(hasattr(module, name) for module in f.functions) is expected


def default_of(layer: str, name: str, value: object) -> Check:
    """Whether this is the default of another layer's parameter."""

    def check(f: Any) -> bool:
        parameters = inspect.signature(getattr(f.namespace, layer).__init__).parameters
        return name in parameters and str(parameters[name].default) == str(value)

    return check


def if_there(layer: str, check: Check) -> Check:
    """Whether the check holds in a namespace that has the layer."""
    return lambda f: not hasattr(f.namespace, layer) or check(f)


def view_works(f: Any) -> bool:
    """Whether the output of a channels-last input can be viewed in another shape."""
    x = channels_last(normal(2, 3, 4, 5))
    return tuple(f.layer()(f.tensor(x)).view(2, -1).shape) == (2, 60)


# --- the input ------------------------------------------------------------------------


def _inputs(rank: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    x = normal(2, 3, *(4,) * rank)
    return x, x[0]


def _works_batched(f: Any) -> bool:
    return all(f.call(f.layer(rank=r), _inputs(r)[0]).ndim == r + 2 for r in (1, 2, 3))


def one_rank_each(f: Any) -> bool:
    """Whether inputs of any other number of axes are refused."""
    return all(
        raises(ValueError, f.call, f.layer(rank=r), normal(*(3,) * n))
        for r in (1, 2, 3)
        for n in range(2, 7)
        if n not in (r + 1, r + 2)
    )


def takes_unbatched(f: Any) -> bool:
    """Whether (C, spatial...) is one sample."""
    return _works_batched(f) and all(
        np.array_equal(f.call(f.layer(rank=r), one), f.call(f.layer(rank=r), one[None])[0])
        for r in (1, 2, 3)
        for _, one in [_inputs(r)]
    )


def refuses_unbatched(f: Any) -> bool:
    """Whether (C, spatial...) is refused."""
    return all(raises(ValueError, f.call, f.layer(rank=r), _inputs(r)[1]) for r in (1, 2, 3))


def wrong_channels_warn(tracking: type[Exception]) -> Check:
    """Whether a wrong number of channels is an error with a state, and else a warning."""

    def check(f: Any) -> bool:
        x = normal(2, 3, 4, 4)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            f.call(f.layer(4), x)
        return (
            [w.category for w in caught] == [UserWarning]
            and raises(ValueError, f.call, f.layer(4, affine=True), x)
            and raises(tracking, f.call, f.layer(4, track_running_stats=True), x)
        )

    return check


def wrong_channels_raise(f: Any) -> bool:
    """Whether a wrong number of channels is always an error."""
    return all(
        raises(ValueError, f.call, f.layer(4, affine=a), normal(2, 3, 4, 4)) for a in (True, False)
    )


def one_element_raises(f: Any) -> bool:
    """Whether one spatial element is refused where its own statistics would be used."""
    return raises(ValueError, f.call, f.layer(), normal(2, 3, 1, 1))


def one_element_is_evaluated(f: Any) -> bool:
    """Whether one spatial element is normalized by running statistics."""
    x = normal(2, 3, 1, 1)
    return bool(np.allclose(f.call(f.layer(track_running_stats=True).eval(), x), x, atol=1e-4))


def has_no_kernel(f: Any) -> bool:
    """Whether a good input fails, on a CPU, for want of a kernel."""
    try:
        f.call(f.layer(), f.sample())
    except RuntimeError as error:
        return "Unsupported op [InstanceNorm]" in str(error)
    return False


def one_element_gets_to_the_kernel(f: Any) -> bool:
    """Whether one spatial element passes all checks, and only a kernel is wanting."""
    return raises(RuntimeError, f.call, f.layer(), normal(2, 3, 1, 1))


def takes_dtypes(*dtypes: str) -> Check:
    """Whether these are taken, and the output has them."""
    return lambda f: all(f.output_dtype(f.layer(), d) == d for d in dtypes)


def refuses_dtypes(error: type[Exception], *dtypes: str) -> Check:
    """Whether these raise the error."""
    return lambda f: all(raises(error, f.output_dtype, f.layer(), d) for d in dtypes)


def takes_parameters_of_any_dtype(f: Any) -> bool:
    """Whether input and parameters may have any two dtypes."""
    dtypes = ("float16", "bfloat16", "float32", "float64")
    return all(f.output_dtype(_layer_of(f, p), d) == d for p in dtypes for d in dtypes)


def takes_half_with_float32(f: Any) -> bool:
    """Whether of mixed dtypes only half-precision input with float32 parameters works."""
    return all(
        f.output_dtype(_layer_of(f, "float32"), d) == d for d in ("float16", "bfloat16")
    ) and all(
        raises(RuntimeError, f.output_dtype, _layer_of(f, p), d)
        for p, d in (("float32", "float64"), ("float64", "float32"), ("float16", "float32"))
    )


def takes_float32_parameters_alone(f: Any) -> bool:
    """Whether a layer of another dtype can be made, and raises TypeError when it is called."""
    return all(
        raises(TypeError, f.output_dtype, _layer_of(f, p), d)
        for p in ("float16", "float64")
        for d in ("float16", "float32")
    )


def _layer_of(f: Any, dtype: str) -> Any:
    return f.layer(affine=True, dtype=f.dtype(dtype))


# --- what is computed -----------------------------------------------------------------


def uses_own_statistics_in_evaluation(f: Any) -> bool:
    """Whether training and evaluation give the same."""
    x = normal(2, 3, 4, 4, mean=5)
    return bool(np.array_equal(f.call(f.layer().eval(), x), f.call(f.layer().train(), x)))


def uses_tracked_statistics_in_evaluation(f: Any) -> bool:
    """Whether a new layer that tracks statistics leaves its input alone in evaluation."""
    x = normal(2, 3, 4, 4, mean=5)
    layer = f.layer(track_running_stats=True, eps=0.0).eval()
    return bool(np.allclose(f.call(layer, x), x, rtol=1e-6, atol=0))


def leaves_moving_statistics(f: Any) -> bool:
    """Whether training changes no entry of the state, whatever the momentum."""
    layers = [f.layer(momentum=momentum).train() for momentum in (0.1, 0.9)]
    before = {name: value.copy() for name, value in f.state(layers[0]).items()}
    for layer in layers:
        f.call(layer, normal(2, 3, 4, 4, mean=5))
    return all(
        bool((f.state(layer)[name] == before[name]).all()) for layer in layers for name in before
    )


def momentum_is_the_share_of_the_new(f: Any) -> bool:
    """Whether momentum is that, and None keeps the old statistic."""
    x = normal(2, 3, 4, 4, mean=5)
    means = []
    for momentum in (0.25, None):
        layer = f.layer(track_running_stats=True, momentum=momentum)
        f.call(layer, x)
        means.append(f.state(layer)["running_mean"])
    return bool(np.allclose(means[0], 0.25 * x.mean((0, 2, 3)))) and not means[1].any()


def conversion_turns_momentum(f: Any) -> bool:
    """Whether moving a layer to the other flavour makes 0.75 of a momentum of 0.25."""
    layer = f.layer(momentum=0.25)
    others = [converted_layer(layer, to=to) for to in ("mindspore", "pytorch")]
    return sorted(float(other.momentum) for other in others) == [0.25, 0.75]


def contiguous_output(f: Any) -> bool:
    """Whether the output of a channels-last input is contiguous."""
    return bool(f.call(f.layer(), channels_last(normal(2, 3, 4, 5))).flags.c_contiguous)


def keeps_layout(f: Any) -> bool:
    """Whether the output of a channels-last input is channels-last."""
    y = f.call(f.layer(), channels_last(normal(2, 3, 4, 5)))
    return bool(np.moveaxis(y, 1, -1).flags.c_contiguous)


def _largest_error_of_gradients(f: Any, batch: int) -> float:
    x, g = normal(batch, 3, 4, 5), normal(batch, 3, 5, 4).swapaxes(2, 3).copy()
    options = {"affine": True}
    expected = f.gradients(f.layer(**options), x, g)
    found = f.gradients(f.layer(**options), x, channels_last(g))
    return max(float(np.abs(found[name] - expected[name]).max()) for name in expected)


def right_gradients(f: Any) -> bool:
    """Whether the layout of grad_output makes no difference."""
    return all(_largest_error_of_gradients(f, batch) < 1e-5 for batch in (1, 2))


def wrong_gradients_at_batch_one(f: Any) -> bool:
    """Whether it does at a batch of one, and only there."""
    return _largest_error_of_gradients(f, 1) > 0.5 and _largest_error_of_gradients(f, 2) < 1e-5


def empty_batch_works(f: Any) -> bool:
    """Whether gradients of an empty batch are zero and statistics stay."""
    x = np.zeros((0, 3, 4, 4), np.float32)
    layer = f.layer(affine=True, track_running_stats=True)
    gradients = f.gradients(layer, x, x)
    return not any(g.any() for g in gradients.values()) and not f.state(layer)["running_mean"].any()


def empty_batch_spoils(f: Any) -> bool:
    """Whether gradients of an empty batch raise IndexError and statistics turn NaN."""
    x = np.zeros((0, 3, 4, 4), np.float32)
    tracking = f.layer(track_running_stats=True)
    f.call(tracking, x)
    return bool(np.isnan(f.state(tracking)["running_mean"]).all()) and raises(
        IndexError, lambda: f.gradients(f.layer(affine=True), x, x)
    )


def constants_give(fits: Callable[[float], bool]) -> Check:
    """Whether the largest output of constant channels fits."""

    def check(f: Any) -> bool:
        values = (0.1, 1 / 3, 100 / 3, 1000.1, 12345.678, 1e5 / 3)
        x = np.concatenate([np.full((1, 1, 64, 64), value, np.float32) for value in values])
        return fits(float(np.abs(f.call(f.layer(1), x)).max()))

    return check


def error_at_a_large_mean(fits: Callable[[float], bool]) -> Check:
    """Whether the largest error of float32 at a mean of 1e5 standard deviations fits."""

    def check(f: Any) -> bool:
        x = normal(1, 1, 64, 64, mean=1e5)
        exact = x.astype(np.float64)
        exact = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
        return fits(float(np.abs(f.call(f.layer(1), x) - exact).max()))

    return check


def negative_eps_gives_nan(f: Any) -> bool:
    """Whether a negative eps is taken, and gives NaN."""
    return bool(np.isnan(f.call(f.layer(eps=-100.0), normal(2, 3, 4, 4))).all())


# --- other norms --------------------------------------------------------------------------


def runs(f: Any) -> bool:
    """Whether the layer computes on a CPU: the output is centred."""
    y = f.call(f.layer(), f.sample())
    return y.shape == f.sample().shape and abs(float(y.mean())) < 1e-4


def _trained(layer: Any) -> Any:
    """Put a layer in training mode, by the method that the framework has for it."""
    return layer.set_train() if hasattr(layer, "set_train") else layer.train()


def moves_by(share: float, **options: Any) -> Check:
    """Whether one training step moves the mean by this share of the batch's."""

    def check(f: Any) -> bool:
        layer = _trained(f.layer(**options))
        x = f.sample()
        f.call(layer, x)
        state = f.state(f.network_of(layer))
        means = [v for name, v in state.items() if name.endswith(("moving_mean", "running_mean"))]
        axes = (0, *range(2, x.ndim))
        return len(means) == 1 and bool(np.allclose(means[0], share * x.mean(axes), rtol=1e-4))

    return check


def variance_is_unbiased(f: Any) -> bool:
    """Whether the running variance takes the unbiased variance in."""
    layer = _trained(f.layer(momentum=0.5))
    x = f.sample()
    f.call(layer, x)
    state = f.state(f.network_of(layer))
    found = next(v for name, v in state.items() if "var" in name.rpartition(".")[2])
    axes = (0, *range(2, x.ndim))
    return bool(np.allclose(found, 0.5 + 0.5 * x.var(axes, ddof=1), rtol=1e-4))


def evaluates_by_tracked_statistics(f: Any) -> bool:
    """Whether a new layer in evaluation leaves its input alone."""
    layer = f.layer(eps=1e-12)
    layer = layer.set_train(False) if hasattr(layer, "set_train") else layer.eval()
    return bool(np.allclose(f.call(layer, f.sample()), f.sample(), rtol=1e-5))


def new_layer_changes_its_input(expected: bool) -> Check:
    """Whether a layer as it is made normalizes by the batch."""

    def check(f: Any) -> bool:
        y = f.call(f.layer(eps=1e-12), f.sample())
        return bool(np.allclose(y, f.sample(), rtol=1e-5)) is not expected

    return check


def takes_axes(*numbers: int) -> Check:
    """Whether input of these numbers of axes is taken, and all others up to 6 raise ValueError."""

    def check(f: Any) -> bool:
        layer = f.layer()
        inputs = {n: normal(2, 3, *(4,) * (n - 2)) if n > 1 else normal(3) for n in range(1, 7)}
        taken = all(f.call(layer, inputs.pop(n)).shape for n in numbers)
        return taken and all(raises(ValueError, f.call, layer, x) for x in inputs.values())

    return check


def one_value_in_training(error: type[Exception] | None) -> Check:
    """Whether one value for each channel raises in training, or is normalized to 0."""

    def check(f: Any) -> bool:
        layer = _trained(f.layer())
        x = normal(1, 3, *(1,) * (f.sample().ndim - 2))
        if error is not None:
            return raises(error, f.call, layer, x)
        return not f.call(layer, x).any()

    return check


def is_learned(f: Any, **options: Any) -> list[bool]:
    """Tell of the scale and the shift of a layer whether they are learned."""
    layer = f.layer(**options)
    return [getattr(layer, name).requires_grad for name in ("gamma", "beta")]


def not_learned_with(**options: Any) -> Check:
    """Whether gamma and beta are there all the same, and require no gradients."""
    return lambda f: is_learned(f, **options) == [False, False]


def learned_with(**options: Any) -> Check:
    """Whether gamma and beta are there and require gradients."""
    return lambda f: is_learned(f, **options) == [True, True]


def normalizes_last_axis_alone(f: Any) -> bool:
    """Whether a shape of two axes is refused, being the last axis's alone."""
    x = normal(2, 4, 5)
    return raises(ValueError, f.call, f.layer((4, 5)), x)


def normalizes_all_of_the_shape(f: Any) -> bool:
    """Whether the axes that the shape has are normalized together."""
    y = f.call(f.layer((4, 5)), normal(2, 4, 5, mean=3))
    return bool(np.allclose(y.mean((1, 2)), 0, atol=1e-5))


def refuses_negative_axes(f: Any) -> bool:
    """Whether axes counted from the end, but for the last, are refused."""
    layer = f.layer((4, 5), begin_norm_axis=-2, begin_params_axis=-2)
    return raises(RuntimeError, f.call, layer, normal(2, 4, 5))


def keeps_size(expected: bool) -> Check:
    """Whether a convolution of kernel 3 has output of the input's size."""

    def check(f: Any) -> bool:
        x = normal(1, 3, 6, 6)
        return (f.call(f.layer(), x).shape == x.shape) is expected

    return check


def output_padding_adds(zeros: bool) -> Check:
    """Whether output_padding adds rows of the bias, or what the kernel gives there."""

    def check(f: Any) -> bool:
        options: dict[str, Any] = {"stride": 2, "padding": 1, "output_padding": 1}
        if hasattr(f.namespace, "ConvTranspose2d"):
            layer = f.namespace.ConvTranspose2d(3, 3, 3, **options, bias=False)
        else:
            layer = f.namespace.Conv2dTranspose(3, 3, 3, pad_mode="pad", **options)
        y = f.call(layer, normal(1, 3, 4, 4))
        return bool((y[..., -1, :] == 0).all()) is zeros

    return check


def weight_of_conv1d(*shape: int) -> Check:
    """Whether the weight of a one-dimensional convolution has this shape."""
    return lambda f: tuple(f.layer_class(1)(3, 3, 3).weight.shape) == shape
