"""nn.InstanceNorm1d, 2d, 3d: PyTorch's layers, in every combination of constructor arguments."""

import copy
import itertools
import pickle
import re
import warnings
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from helpers.beside_torch import assert_close, assert_same, torch, torch_leaf, torch_tensor
from helpers.layouts import channels_last, memory_order, read_only
from helpers.tensors import assert_create_graph_changes_nothing, leaf, normal

import instnorm
from instnorm import Tensor, nn
from instnorm.testing import gradcheck, gradgradcheck

pytestmark = pytest.mark.torch

OURS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
THEIRS = {1: torch.nn.InstanceNorm1d, 2: torch.nn.InstanceNorm2d, 3: torch.nn.InstanceNorm3d}
SPATIAL = {1: (7,), 2: (3, 4), 3: (2, 3, 2)}
C = 3

CONSTRUCTORS = [
    {
        "affine": affine,
        "bias": bias,
        "track_running_stats": track,
        "momentum": momentum,
        "eps": eps,
    }
    for affine, bias, track, momentum, eps in itertools.product(
        (False, True), (True, False), (False, True), (0.3, None), (1e-5, 1)
    )
]


def described(options):
    return ", ".join(f"{name}={value}" for name, value in options.items())


in_every_combination = pytest.mark.parametrize("options", CONSTRUCTORS, ids=described)
in_every_rank = pytest.mark.parametrize("rank", OURS)


def pair(rank, dtype, **options):
    """Our layer and torch's, with the same random parameters and buffers."""
    ours = OURS[rank](C, dtype=dtype, **options)
    theirs = THEIRS[rank](C, dtype=getattr(torch, np.dtype(dtype).name), **options)
    for seed, (name, t) in enumerate(theirs.state_dict().items()):
        if name != "num_batches_tracked":
            value = normal(C, seed=seed)
            t.copy_(torch.tensor(np.exp(value) if name == "running_var" else value))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def batch(rank, dtype=np.float64, batched=True, seed=0):
    shape = (*((2,) if batched else ()), C, *SPATIAL[rank])
    return (1.5 + 2 * normal(*shape, seed=seed)).astype(dtype)


# --- as torch's ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@in_every_rank
@in_every_combination
def test_outputs_gradients_and_buffers_are_torchs(options, rank, batched, dtype):
    ours, theirs = pair(rank, dtype, **options)
    # Training, evaluation, and training again.
    for step, training in enumerate((True, True, False, True)):
        ours.train(training)
        theirs.train(training)
        ours.zero_grad()
        theirs.zero_grad()
        x = batch(rank, dtype, batched, seed=step)
        a, t = leaf(x), torch_leaf(x)
        leaves = [a, *ours.parameters()], [t, *theirs.parameters()]
        assert_same(ours(a), theirs(t), *leaves, eps=40)
        for (name, buffer), (their_name, expected) in zip(
            ours.named_buffers(), theirs.named_buffers(), strict=True
        ):
            assert name == their_name
            assert_equal_buffers(buffer, expected)


def assert_equal_buffers(ours, theirs):
    if ours.dtype == np.int64:
        assert ours.item() == theirs.item() == 0
    else:
        assert_close(ours, theirs)


@in_every_rank
@in_every_combination
def test_gradients_are_the_central_differences(options, rank):
    layer, _ = pair(rank, np.float64, **options)
    shape = {1: (2, C, 3), 2: (2, C, 2, 2), 3: (2, C, 1, 2, 2)}[rank]
    # The parameters are reached through the layer.
    leaves = [leaf(1.5 + 2 * normal(*shape)), *layer.parameters()]
    for training in (True, False):
        layer.train(training)
        assert gradcheck(lambda x, *_: layer(x), leaves, atol=1e-7, rtol=1e-5)
        assert gradgradcheck(lambda x, *_: layer(x), leaves, atol=1e-6, rtol=1e-5)
        assert_create_graph_changes_nothing(layer(leaves[0]), leaves)


@in_every_rank
@in_every_combination
def test_repr_attributes_and_state_are_torchs(options, rank):
    ours, theirs = OURS[rank](C, **options), THEIRS[rank](C, **options)
    assert repr(ours) == repr(theirs)
    for name in ("num_features", "training", *options):
        if name != "bias":
            assert getattr(ours, name) == getattr(theirs, name)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        assert (getattr(ours, name) is None) == (getattr(theirs, name) is None)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for value, expected in zip(
        ours.state_dict().values(), theirs.state_dict().values(), strict=True
    ):
        np.testing.assert_array_equal(value, expected)
        assert value.dtype == expected.numpy().dtype
        assert value.shape == tuple(expected.shape)
    for kind in ("named_parameters", "named_buffers"):
        names = [name for name, _ in getattr(ours, kind)()]
        assert names == [name for name, _ in getattr(theirs, kind)()]
    assert all(p.requires_grad for p in ours.parameters())
    assert not any(b.requires_grad for b in ours.buffers())


@in_every_rank
def test_the_defaults_are_torchs(rank):
    assert repr(OURS[rank](C)) == repr(THEIRS[rank](C))
    assert list(OURS[rank](C).state_dict()) == []
    x = batch(rank)
    positional = (C, 1e-3, 0.5, True, True, "cpu", np.float64)
    layer = OURS[rank](*positional)
    assert (layer.eps, layer.momentum, layer.affine, layer.track_running_stats) == positional[1:5]
    assert all(p.dtype == np.float64 for p in layer.parameters())
    assert_close(OURS[rank](C)(x), THEIRS[rank](C)(torch_tensor(x)))


def test_arguments_that_can_be_switched_after_construction():
    ours, theirs = pair(2, np.float64, track_running_stats=True)
    for layer in (ours, theirs):
        layer.track_running_stats = False
        layer.eval()
        layer.momentum, layer.eps = 0.5, 0.25
    x = batch(2)
    assert_close(ours(x), theirs(torch_tensor(x)))
    assert_close(ours.running_mean, theirs.running_mean)
    assert_close(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_input_and_parameters_may_differ_in_dtype(dtype):
    layer = nn.InstanceNorm2d(C, affine=True, track_running_stats=True)
    x = leaf(batch(2).astype(dtype))
    for training in (True, False):
        y = layer.train(training)(x)
        assert y.dtype == dtype
        y.backward(normal(*y.shape).astype(dtype))
    assert x.grad.dtype == dtype
    tensors = [*layer.parameters(), layer.running_mean, layer.running_var]
    assert [t.dtype for t in tensors] == [np.float32] * 4
    assert [p.grad.dtype for p in layer.parameters()] == [np.float32] * 2


def test_reset_parameters_and_reset_running_stats():
    layer, _ = pair(2, np.float64, affine=True, track_running_stats=True)
    layer(batch(2))
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0, 0, 0]
    assert layer.running_var.tolist() == [1, 1, 1]
    assert layer.weight.tolist() != [1, 1, 1]
    layer(batch(2))
    layer.reset_parameters()
    assert layer.weight.tolist() == layer.running_var.tolist() == [1, 1, 1]
    assert layer.bias.tolist() == layer.running_mean.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_parameters_are_attributes_like_others(name):
    layer = nn.InstanceNorm2d(3, affine=True)
    assert getattr(layer, name) is dict(layer.named_parameters())[name]
    assert dir(layer).count(name) >= 1
    other = nn.Parameter(np.ones(3, np.float32))
    setattr(layer, name, other)
    assert getattr(layer, name) is dict(layer.named_parameters())[name] is other
    delattr(layer, name)
    with pytest.raises(AttributeError, match=f"'InstanceNorm2d' object has no attribute '{name}'"):
        getattr(layer, name)
    layer.register_parameter(name, None)
    assert getattr(layer, name) is None


def test_copies_are_apart():
    layer, theirs = pair(2, np.float64, affine=True, track_running_stats=True)
    layer.eps = 0.125
    theirs.eps = 0.125
    layer(leaf(batch(2))).backward(normal(2, C, 3, 4))
    for duplicate in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(duplicate) == repr(layer)
        np.testing.assert_array_equal(duplicate.weight.grad.data, layer.weight.grad.data)
        expected = layer.eval()(batch(2)).data
        np.testing.assert_array_equal(duplicate.eval()(batch(2)).data, expected)
        before = layer.running_mean.tolist()
        duplicate.train()(batch(2))
        duplicate.weight.data[...] = 9
        assert layer.running_mean.tolist() == before
        assert layer.weight.tolist() != [9, 9, 9]


# --- where we promise more than torch -----------------------------------------


@in_every_rank
def test_evaluation_writes_nothing(rank):
    layer, _ = pair(rank, np.float64, affine=True, track_running_stats=True)
    for buffer in layer.buffers():
        buffer.data.flags.writeable = False
    layer.eval()(read_only(batch(rank)))


@in_every_rank
@in_every_combination
def test_an_empty_batch_has_zero_gradients_and_leaves_the_statistics(options, rank):
    layer, _ = pair(rank, np.float64, **options)
    before = [buffer.tolist() for buffer in layer.buffers()]
    for training in (True, False):
        x = leaf(np.zeros((0, C, *SPATIAL[rank])))
        y = layer.train(training)(x)
        assert y.shape == x.shape
        y.backward(np.zeros(x.shape))
        assert x.grad.shape == x.shape
        assert all(p.grad.tolist() == [0] * C for p in layer.parameters())
    assert [buffer.tolist() for buffer in layer.buffers()] == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_channel_gives_exactly_the_bias(dtype):
    x = np.full((2, C, 40, 50), 1234.567, dtype)
    layer, _ = pair(2, dtype, affine=True)
    bias = np.broadcast_to(layer.bias.data[:, None, None], x.shape)
    np.testing.assert_array_equal(layer(x).data, bias)
    for eps in (1e-5, 0):
        assert not nn.InstanceNorm2d(C, eps=eps)(x).data.any()


def test_nan_and_inf_spoil_only_their_own_channel():
    x = batch(2)
    clean = nn.InstanceNorm2d(C)(x).data
    x[0, 1, 2, 2], x[1, 0, 0, 0] = np.nan, np.inf
    y = nn.InstanceNorm2d(C)(x).data
    spoiled = np.zeros((2, C), bool)
    spoiled[0, 1] = spoiled[1, 0] = True
    np.testing.assert_array_equal(y[~spoiled], clean[~spoiled])
    assert np.isnan(y[0, 1]).all()
    assert not np.isfinite(y[1, 0]).any()


@pytest.mark.parametrize("track", [False, True])
@pytest.mark.parametrize("size", [1, 2])
def test_channels_last_stays_channels_last_and_gradients_are_right_in_every_mix(size, track):
    """PyTorch's are wrong where the batch is 1 and grad_output channels-last."""
    layer = nn.InstanceNorm2d(C, affine=True, track_running_stats=track, dtype=np.float64)
    x, g = normal(size, C, 4, 5), normal(size, C, 4, 5, seed=1)
    results = []
    for lay_x, lay_g in itertools.product((np.ascontiguousarray, channels_last), repeat=2):
        layer.zero_grad()
        a = Tensor(lay_x(x), requires_grad=True)
        y = layer(a)
        (gradient,) = instnorm.grad(y, a, Tensor(lay_g(g)), retain_graph=True)
        y.backward(lay_g(g))
        for array in (y.data, gradient.data):
            assert memory_order(array) == memory_order(a.data)
        results.append([y.data, gradient.data, layer.weight.grad.data, layer.bias.grad.data])
    for result in results[1:]:
        for array, expected in zip(result, results[0], strict=True):
            np.testing.assert_allclose(array, expected, rtol=0, atol=1e-14)


# --- bad input ----------------------------------------------------------------


def error_of(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except Exception as error:
            return type(error)
    return None


BAD_SHAPES = [
    (),
    (3,),
    (C, 1),
    (C, 4),
    (2, C, 4),
    (2, C, 3, 4),
    (2, C, 2, 3, 4),
    (1, 2, C, 2, 3, 4),
]


@in_every_rank
@pytest.mark.parametrize("shape", BAD_SHAPES, ids=str)
def test_a_wrong_rank_is_an_error_as_in_torch(shape, rank):
    x = normal(*shape)
    expected = error_of(lambda: THEIRS[rank](C)(torch_tensor(x)))
    assert error_of(lambda: OURS[rank](C)(x)) is expected
    if expected is not None and len(shape) not in (rank + 1, rank + 2):
        message = f"expected {rank + 1}D or {rank + 2}D input (got {len(shape)}D input)"
        with pytest.raises(ValueError, match=re.escape(message)):
            THEIRS[rank](C)(torch.tensor(x))
        with pytest.raises(ValueError, match=re.escape(f"{message}: its shape is {shape}")):
            OURS[rank](C)(x)


@in_every_rank
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
def test_a_wrong_channel_count_is_an_error_where_channels_matter(rank, batched):
    x = normal(*((2,) if batched else ()), C + 1, *SPATIAL[rank])
    affine = {"affine": True}
    assert error_of(lambda: THEIRS[rank](C, **affine)(torch_tensor(x))) is ValueError
    message = f"size at dim={int(batched)} to match num_features (3), but got: 4"
    for options in (affine, {"track_running_stats": True}, {**affine, "bias": False}):
        layer = OURS[rank](C, **options)
        for training in (True, False):
            with pytest.raises(ValueError, match=re.escape(message)):
                layer.train(training)(x)
        assert all(not b.data.any() for n, b in layer.named_buffers() if n == "running_mean")


@in_every_rank
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
def test_a_wrong_channel_count_is_a_warning_where_they_do_not(rank, batched):
    x = normal(*((2,) if batched else ()), C + 1, *SPATIAL[rank])
    dim = int(batched)
    # Both begin alike, so that one filter silences either.
    begin = f"input's size at dim={dim} does not match num_features"
    with pytest.warns(UserWarning, match=begin):
        expected = THEIRS[rank](C)(torch_tensor(x))
    with pytest.warns(UserWarning, match=f"^{begin}: got 4, expected 3") as caught:
        y = OURS[rank](C)(x)
    assert [warning.filename for warning in caught] == [__file__]
    assert_close(y, expected)


@in_every_rank
def test_one_spatial_element_is_an_error_where_its_statistics_are_used(rank):
    x = normal(2, C, *(1,) * rank)
    for options in ({}, {"affine": True}, {"track_running_stats": True}):
        ours, theirs = pair(rank, np.float64, **options)
        assert error_of(lambda t=theirs: t(torch_tensor(x))) is ValueError
        with pytest.raises(ValueError, match="more than 1 spatial element"):
            ours(x)
    assert_close(ours.eval()(x), theirs.eval()(torch_tensor(x)))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex64, object])
def test_other_dtypes_than_float_are_a_type_error(dtype):
    with pytest.raises(TypeError, match="dtype"):
        nn.InstanceNorm2d(C)(np.ones((2, C, 4, 4), dtype))


@pytest.mark.parametrize("x", [None, "image", [["a"]]], ids=repr)
def test_what_is_no_array_is_a_type_error(x):
    with pytest.raises(TypeError, match=r"input must be a Tensor|dtype"):
        nn.InstanceNorm2d(C)(x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_features": -1}, ValueError, "num_features must not be negative, got -1"),
        ({"num_features": 3.0}, TypeError, "num_features must be an integer, got float"),
        ({"num_features": True}, TypeError, "num_features must be an integer, got bool"),
        ({"eps": -1e-5}, ValueError, "eps must be finite and at least 0, got -1e-05"),
        ({"eps": float("nan")}, ValueError, "eps must be finite and at least 0, got nan"),
        ({"eps": float("inf")}, ValueError, "eps must be finite and at least 0, got inf"),
        ({"eps": "small"}, TypeError, "eps must be a number, got str"),
        ({"device": "cuda"}, ValueError, "device must be None or 'cpu', got 'cuda'"),
        ({"dtype": np.int32}, TypeError, "dtype must be a floating point type, got int32"),
        ({"dtype": complex}, TypeError, "dtype must be a floating point type, got complex128"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        nn.InstanceNorm2d(**{"num_features": C, **arguments})


def test_gradients_do_not_flow_into_the_running_statistics():
    layer = nn.InstanceNorm1d(C, track_running_stats=True)
    x = leaf(batch(1))
    layer(x)
    assert not layer.running_mean.requires_grad
    assert layer.running_mean.grad_fn is None


# --- state dicts --------------------------------------------------------------


def everything(**options):
    return pair(2, np.float32, affine=True, track_running_stats=True, **options)


@pytest.mark.parametrize(
    "form",
    [
        lambda state: state,
        dict,
        lambda state: {k: v.numpy() for k, v in state.items()},
        lambda state: {k: Tensor(v.numpy()) for k, v in state.items()},
        lambda state: {k: v.double() for k, v in state.items()},
        lambda state: {k: v.tolist() for k, v in state.items()},
        lambda state: OrderedDict(reversed(state.items())),
    ],
    ids=["torch's", "dict", "ndarrays", "Tensors", "float64", "lists", "reversed"],
)
def test_torchs_state_dict_loads_as_it_is(form):
    _, theirs = everything()
    ours = nn.InstanceNorm2d(C, affine=True, track_running_stats=True)
    parameters = list(ours.parameters())
    result = ours.load_state_dict(form(theirs.state_dict()))
    assert result == ([], [])
    assert result.missing_keys == result.unexpected_keys == []
    assert all(a is b for a, b in zip(ours.parameters(), parameters, strict=True))
    for name, value in ours.state_dict().items():
        np.testing.assert_array_equal(value, theirs.state_dict()[name])
        assert value.dtype == theirs.state_dict()[name].numpy().dtype


def test_our_state_dict_loads_into_torch():
    ours, _ = everything()
    theirs = torch.nn.InstanceNorm2d(C, affine=True, track_running_stats=True)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    x = batch(2, np.float32)
    assert_close(ours.eval()(x), theirs.eval()(torch_tensor(x)))


class OnlyDLPack:
    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def test_whatever_speaks_dlpack_loads():
    ours, theirs = everything()
    state = {k: OnlyDLPack(v + 1) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    np.testing.assert_array_equal(ours.weight.data, theirs.weight.detach().numpy() + 1)


def test_the_state_dict_shares_memory_and_loading_copies():
    ours, _ = everything()
    state = ours.state_dict()
    weight = state["weight"]
    ours.weight.data[0] = 7
    assert weight[0] == 7
    other, _ = everything()
    other.load_state_dict(state)
    other.weight.data[0] = 8
    assert weight[0] == 7


def changed(**changes):
    """A state dict with values replaced, added, or, by None, removed."""
    state = dict(everything()[1].state_dict())
    for name, value in changes.items():
        state[name] = value
    return {k: v for k, v in state.items() if v is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(weight=None), 'Missing key(s) in state_dict: "weight".'),
        (changed(weight=None, bias=None), 'Missing key(s) in state_dict: "weight", "bias".'),
        (changed(gamma=np.ones(C)), 'Unexpected key(s) in state_dict: "gamma".'),
        (
            changed(running_var=np.ones(C + 1)),
            "size mismatch for running_var: copying a param with shape (4,) from checkpoint, "
            "the shape in current model is (3,)",
        ),
        (changed(bias=np.ones((C, 1))), "size mismatch for bias"),
        (changed(running_var=["a", "b", "c"]), "running_var: expected an array of numbers"),
        (changed(running_var=object()), "running_var: expected an array of numbers"),
    ],
)
def test_strict_errors_leave_everything_as_it_was(state, message):
    layer = nn.InstanceNorm2d(C, affine=True, track_running_stats=True)
    before = {k: v.tolist() for k, v in layer.state_dict().items()}
    with pytest.raises(RuntimeError, match=re.escape(message)) as caught:
        layer.load_state_dict(state)
    assert str(caught.value).startswith("Error(s) in loading state_dict for InstanceNorm2d:\n\t")
    assert {k: v.tolist() for k, v in layer.state_dict().items()} == before


def test_all_errors_are_told_at_once():
    layer = nn.InstanceNorm2d(C, affine=True, track_running_stats=True)
    state = changed(weight=None, gamma=np.ones(C), bias=np.ones(2), running_mean=np.ones(5))
    with pytest.raises(RuntimeError) as caught:
        layer.load_state_dict(state)
    lines = str(caught.value).split("\n\t")
    assert [line.split(":")[0] for line in lines[1:]] == [
        "Unexpected key(s) in state_dict",
        "Missing key(s) in state_dict",
        "size mismatch for bias",
        "size mismatch for running_mean",
    ]


def test_loading_what_fits_without_strict():
    layer = nn.InstanceNorm2d(C, affine=True, track_running_stats=True)
    state = changed(weight=None, gamma=np.ones(C), bias=np.full(C, 5.0))
    result = layer.load_state_dict(state, strict=False)
    assert result.missing_keys == ["weight"]
    assert result.unexpected_keys == ["gamma"]
    assert layer.weight.tolist() == [1, 1, 1]
    assert layer.bias.tolist() == [5, 5, 5]
    with pytest.raises(RuntimeError, match="size mismatch for bias"):
        layer.load_state_dict(changed(bias=np.ones(2)), strict=False)


@pytest.mark.parametrize("state", [None, 3, [("weight", np.ones(C))]], ids=repr)
def test_what_is_no_mapping_is_a_type_error(state):
    with pytest.raises(TypeError, match="state_dict must be a mapping"):
        nn.InstanceNorm2d(C).load_state_dict(state)


@pytest.mark.parametrize("affine", [False, True])
def test_running_statistics_that_the_layer_does_not_track(affine):
    """Checkpoints of before PyTorch 0.4 have them; the error says what to do."""
    state = OrderedDict(running_mean=np.zeros(C), running_var=np.ones(C))
    if affine:
        state.update(weight=np.full(C, 2.0), bias=np.full(C, 3.0))
    theirs, ours = torch.nn.InstanceNorm2d(C, affine=affine), nn.InstanceNorm2d(C, affine=affine)
    message = r"Unexpected running stats buffer\(s\).*track_running_stats=True"
    with pytest.raises(RuntimeError, match=message):
        theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    with pytest.raises(RuntimeError) as caught:
        ours.load_state_dict(state)
    for part in (
        'Unexpected key(s) in state_dict: "running_mean", "running_var".',
        'Unexpected running stats buffer(s) "running_mean" and "running_var" for InstanceNorm2d '
        "with track_running_stats=False",
        "track_running_stats=True",
        "delete them",
        "strict=False",
    ):
        assert part in str(caught.value)
    if affine:
        assert ours.weight.tolist() == [1, 1, 1]
    result = ours.load_state_dict(state, strict=False)
    assert result.unexpected_keys == ["running_mean", "running_var"]
    if affine:
        assert ours.weight.tolist() == [2, 2, 2]
        assert ours.bias.tolist() == [3, 3, 3]


def test_the_advice_names_the_layer_inside_a_network():
    net = nn.Sequential(nn.Conv2d(1, C, 3), nn.InstanceNorm2d(C), nn.InstanceNorm2d(C))
    state = {**net.state_dict(), "1.running_var": np.ones(C), "3.weight": np.ones(C)}
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    message = '\n\tUnexpected running stats buffer(s) "1.running_var" for InstanceNorm2d'
    assert message in str(caught.value)
    assert str(caught.value).count("running stats") == 1
