"""LazyInstanceNorm1d, 2d, 3d, and what they are made of: as torch's, and where torch's fail."""

import copy
import itertools
import pickle
import re
import warnings

import ml_dtypes
import numpy as np
import pytest
from helpers.beside_torch import assert_close, assert_same, torch, torch_leaf, torch_tensor
from helpers.tensors import leaf, normal

import instnorm
from instnorm import Tensor, nn
from instnorm import functional as F
from instnorm.nn.lazy import LazyModuleMixin
from instnorm.testing import gradcheck

pytestmark = pytest.mark.torch

FULL = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
LAZY = {1: nn.LazyInstanceNorm1d, 2: nn.LazyInstanceNorm2d, 3: nn.LazyInstanceNorm3d}
THEIRS = {
    1: torch.nn.LazyInstanceNorm1d,
    2: torch.nn.LazyInstanceNorm2d,
    3: torch.nn.LazyInstanceNorm3d,
}
SPATIAL = {1: (7,), 2: (3, 4), 3: (2, 3, 2)}
TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

OPTIONS = [
    {"affine": affine, "bias": bias, "track_running_stats": track, "momentum": 0.3, "eps": 0.01}
    for affine, bias, track in [
        (True, True, True),
        (True, False, True),
        (True, True, False),
        (False, True, True),
        (False, True, False),
    ]
]

in_every_rank = pytest.mark.parametrize("rank", LAZY)
with_all_options = pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda o: ", ".join(f"{k}={v}" for k, v in o.items())
)


def batch(rank, channels=3, seed=0):
    return normal(2, channels, *SPATIAL[rank], seed=seed)


def kinds(layer):
    return [type(getattr(layer, name)).__name__ for name in TENSORS]


# --- as torch's ---------------------------------------------------------------


@in_every_rank
def test_the_constructor_is_torchs(rank):
    assert repr(LAZY[rank]()) == repr(THEIRS[rank]())
    ours = LAZY[rank](1e-3, 0.5, False, False, "cpu", np.float64)
    assert repr(ours) == repr(THEIRS[rank](1e-3, 0.5, False, False, "cpu", torch.float64))
    for arguments in ((1e-3, 0.5, False, False, None, None, True), (3, 1e-5, 0.1, True, True, 1)):
        for kind in (LAZY, THEIRS):
            with pytest.raises((TypeError, ValueError)):
                kind[rank](*arguments)
    with pytest.raises(TypeError, match="num_features"):
        LAZY[rank](num_features=3)


@in_every_rank
@with_all_options
def test_before_the_first_call_all_is_torchs(options, rank):
    ours, theirs = LAZY[rank](**options), THEIRS[rank](**options)
    assert repr(ours) == repr(theirs)
    assert ours.num_features == theirs.num_features == 0
    assert ours.has_uninitialized_params() is theirs.has_uninitialized_params()
    assert kinds(ours) == kinds(theirs)
    for listing in ("named_parameters", "named_buffers"):
        found = list(getattr(ours, listing)())
        assert [n for n, _ in found] == [n for n, _ in getattr(theirs, listing)()]
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    for name in state:
        if name != "num_batches_tracked":
            assert type(state[name]).__name__ == type(expected[name]).__name__
            assert repr(state[name]) == repr(expected[name])


@in_every_rank
@with_all_options
@pytest.mark.parametrize("training", [True, False])
def test_the_first_call_makes_it_a_full_layer(options, rank, training):
    ours = LAZY[rank](**options, dtype=np.float64).train(training)
    theirs = THEIRS[rank](**options, dtype=torch.float64).train(training)
    held = [getattr(ours, name) for name in TENSORS]
    for seed in (0, 1):
        x = batch(rank, seed=seed)
        a, t = leaf(x), torch_leaf(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, where nothing depends on num_features
            y, expected = ours(a), theirs(t)
        ours.zero_grad()
        theirs.zero_grad()
        assert_same(y, expected, [a, *ours.parameters()], [t, *theirs.parameters()], eps=40)
    assert type(ours) is FULL[rank]
    assert not isinstance(ours, LAZY[rank])
    assert ours.num_features == 3
    assert all(getattr(ours, n) is tensor for n, tensor in zip(TENSORS, held, strict=True))
    assert kinds(ours) == kinds(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in ours.state_dict().items():
        if name != "num_batches_tracked":
            assert_close(value, theirs.state_dict()[name], 40)


@in_every_rank
def test_an_optimizer_made_before_trains_it(rank):
    ours, theirs = LAZY[rank](), THEIRS[rank]()
    optimizers = [
        instnorm.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9),
    ]
    for seed in range(3):
        x, g = (batch(rank, seed=s).astype(np.float32) for s in (seed, 10 + seed))
        for optimizer in optimizers:
            optimizer.zero_grad()
        ours(x).backward(g)
        theirs(torch_tensor(x)).backward(torch_tensor(g))
        for optimizer in optimizers:
            optimizer.step()
    for name in ("weight", "bias"):
        assert_close(getattr(ours, name), getattr(theirs, name), 40)


def test_gradients_are_the_central_differences():
    layer = LAZY[2](dtype=np.float64)
    x = leaf(batch(2))
    assert gradcheck(lambda x: layer(x), [x], atol=1e-7, rtol=1e-5)
    assert type(layer) is FULL[2]


# --- state dicts --------------------------------------------------------------


@in_every_rank
@with_all_options
def test_a_full_state_dict_initializes(options, rank):
    full = FULL[rank](10, **options)
    for seed, p in enumerate(full.parameters()):
        p.data[...] = normal(10, seed=seed)
    for layer in (LAZY[rank](**options), THEIRS[rank](**options)):
        state = full.state_dict()
        if isinstance(layer, torch.nn.Module):
            state = {name: torch.tensor(value) for name, value in state.items()}
        layer.load_state_dict(state)
        # Only the next call changes the class.
        assert type(layer) in (LAZY[rank], THEIRS[rank])
        assert not layer.has_uninitialized_params()
        for name, value in state.items():
            np.testing.assert_array_equal(layer.state_dict()[name], value)


@in_every_rank
@with_all_options
def test_what_a_state_dict_initialized_runs(options, rank):
    """torch's takes num_features from the first input only, and fails."""
    full = FULL[rank](3, **options, dtype=np.float64)
    for seed, p in enumerate(full.parameters()):
        p.data[...] = normal(3, seed=seed)
    layer = LAZY[rank](**options, dtype=np.float64)
    layer.load_state_dict(full.state_dict())
    x = batch(rank)
    np.testing.assert_array_equal(layer(x).data, full(x).data)
    assert repr(layer) == repr(full)


def test_a_state_dict_for_other_inputs_is_an_error_of_the_input():
    layer = LAZY[1]()
    layer.load_state_dict(FULL[1](4, affine=True, track_running_stats=True).state_dict())
    with pytest.raises(ValueError, match=r"num_features \(4\), but got: 3"):
        layer(batch(1))
    assert layer(batch(1, 4)).shape == (2, 4, 7)


def test_a_partial_state_dict_initializes_a_part():
    """torch fails at the next call."""
    layer = LAZY[1]()
    assert layer.load_state_dict({"weight": [2, 3, 4]}, strict=False).missing_keys == [
        "bias",
        "running_mean",
        "running_var",
    ]
    assert layer.has_uninitialized_params()
    assert kinds(layer)[:2] == ["Parameter", "UninitializedParameter"]
    layer(batch(1))
    assert layer.weight.tolist() == [2, 3, 4]
    assert layer.bias.tolist() == [0, 0, 0]
    other = LAZY[1]()
    other.load_state_dict({"bias": [2, 3, 4]}, strict=False)
    with pytest.raises(ValueError, match=r"num_features \(3\), but got: 5"):
        other(batch(1, 5))


def test_a_lazy_state_dict_fits_only_lazy_layers():
    state = LAZY[2]().state_dict()
    assert LAZY[2]().load_state_dict(state) == ([], [])
    full = FULL[2](3, affine=True, track_running_stats=True)
    with pytest.raises(RuntimeError, match="shape of an uninitialized parameter or buffer"):
        full.load_state_dict(state)
    assert full.weight.tolist() == [1, 1, 1]


def test_an_error_in_loading_leaves_it_lazy():
    layer = LAZY[2]()
    with pytest.raises(RuntimeError, match=r'Missing key.*"bias"'):
        layer.load_state_dict({"weight": [1, 2, 3]})
    assert kinds(layer) == kinds(LAZY[2]())


def test_loading_keeps_the_dtype_and_the_parameter():
    layer = LAZY[2](dtype=np.float64)
    weight = layer.weight
    layer.load_state_dict({"weight": np.ones(3, np.float32)}, strict=False)
    assert layer.weight is weight
    assert weight.dtype == np.float64


# --- copies -------------------------------------------------------------------


@pytest.mark.parametrize(
    "twin",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["deepcopy", "pickle"],
)
@in_every_rank
@with_all_options
def test_copies_before_and_after(options, rank, twin):
    """torch's deep copies fail with buffers, and its pickles forget the dtype."""
    layer = LAZY[rank](**options, dtype=np.float64)
    lazy = twin(layer)
    assert type(lazy) is LAZY[rank]
    assert repr(lazy) == repr(layer)
    before = kinds(layer)
    x = batch(rank)
    expected = layer(x).data
    assert kinds(lazy) == before
    full = twin(layer)
    assert type(full) is FULL[rank]
    assert repr(full) == repr(layer)
    np.testing.assert_array_equal(lazy(x).data, expected)
    for twin_state in (full.state_dict(), lazy.state_dict()):
        assert list(twin_state) == list(layer.state_dict())
        for name, value in layer.state_dict().items():
            np.testing.assert_array_equal(twin_state[name], value)
            assert twin_state[name].dtype == value.dtype


def test_tied_parameters_stay_tied():
    net = nn.Sequential(LAZY[2](), LAZY[2]())
    net[1].weight = net[0].weight
    twin = copy.deepcopy(net)
    assert twin[1].weight is twin[0].weight
    twin(batch(2))
    assert twin[1].weight is twin[0].weight
    assert type(twin[1].weight) is nn.Parameter
    assert net[0].has_uninitialized_params()


# --- where torch is not followed ----------------------------------------------


@in_every_rank
@with_all_options
def test_an_unbatched_input_has_its_channels_first(options, rank):
    """torch takes the axis after them."""
    x = normal(3, *SPATIAL[rank])
    layer = LAZY[rank](**options)
    expected = FULL[rank](3, **options)(x).data
    np.testing.assert_array_equal(layer(x).data, expected)
    assert layer.num_features == 3


@in_every_rank
def test_nothing_warns_where_nothing_is_learned(rank):
    """torch's num_features stays 0, which every input differs from."""
    layer = LAZY[rank](affine=False, track_running_stats=False)
    for _ in range(2):
        layer(batch(rank))
    with pytest.warns(UserWarning, match="got 4, expected 3"):
        layer(batch(rank, 4))


@in_every_rank
@pytest.mark.parametrize("ndim", [0, 1, 2, 3, 4, 5, 6])
def test_a_wrong_rank_leaves_it_lazy(rank, ndim):
    layer = LAZY[rank]()
    x = normal(*(3,) * ndim)
    if ndim in (rank + 1, rank + 2):
        assert layer(x).shape == x.shape
        return
    message = f"expected {rank + 1}D or {rank + 2}D input (got {ndim}D input)"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(x)
    assert kinds(layer) == kinds(LAZY[rank]())
    assert type(layer) is LAZY[rank]


@pytest.mark.parametrize("x", [None, "image"], ids=repr)
def test_what_is_no_array_leaves_it_lazy(x):
    layer = LAZY[2]()
    with pytest.raises(TypeError, match=r"input must be a Tensor|dtype"):
        layer(x)
    assert layer.has_uninitialized_params()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eps": -1.0}, ValueError, "eps must be finite"),
        ({"device": "cuda"}, ValueError, "device must be None or 'cpu', got 'cuda'"),
        ({"dtype": np.int32}, TypeError, "dtype must be a floating point type, got int32"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        LAZY[2](**arguments)


# --- modes and changes before the first call --------------------------------------


def test_what_a_lazy_layer_can_be_told():
    layer = LAZY[2]()
    layer.reset_parameters()
    layer.zero_grad()
    layer.requires_grad_(False)
    assert layer.eval().double() is layer
    assert {p.dtype.name for p in (*layer.parameters(), layer.running_mean)} == {"float64"}
    y = layer(input=batch(2))
    assert not y.requires_grad
    assert layer.running_mean.tolist() == [0, 0, 0]
    assert layer.weight.dtype == layer.running_var.dtype == np.float64
    with pytest.raises(ValueError, match="uninitialized parameter or buffer"):
        LAZY[2]().reset_running_stats()


def test_initialize_parameters_does_not_change_the_class():
    layer, theirs = LAZY[2](), THEIRS[2]()
    layer.initialize_parameters(batch(2))
    theirs.initialize_parameters(torch_tensor(batch(2)))
    assert type(layer) is LAZY[2]
    assert repr(layer) == repr(theirs)
    layer.reset_parameters()
    assert layer.weight.tolist() == theirs.weight.tolist() == [1, 1, 1]


def test_a_chain_of_lazy_layers():
    net = nn.Sequential(LAZY[2](), nn.Conv2d(3, 5, 1), nn.Sequential(LAZY[2](), nn.ReLU()))
    assert str(net).count("LazyInstanceNorm2d(0") == 2
    net(batch(2).astype(np.float32))
    assert [net[0].num_features, net[2][0].num_features] == [3, 5]
    assert "Lazy" not in str(net)


# --- uninitialized parameters and buffers ----------------------------------------

KINDS = [nn.UninitializedParameter, nn.UninitializedBuffer]
of_both_kinds = pytest.mark.parametrize("kind", KINDS)


@of_both_kinds
def test_uninitialized_attributes_are_torchs(kind):
    theirs = getattr(torch.nn, kind.__name__)
    for options in ({}, {"requires_grad": False}):
        ours, expected = kind(**options), theirs(**options)
        assert repr(ours) == repr(expected)
        assert ours.requires_grad == expected.requires_grad
        assert ours.is_leaf
        assert ours.grad is expected.grad is None
        assert ours.dtype == np.float32
        assert isinstance(ours, Tensor)
        assert isinstance(ours, nn.Parameter) is isinstance(expected, torch.nn.Parameter)
    for t in (ours, expected):
        with pytest.raises(RuntimeError, match="shape of an uninitialized parameter or buffer"):
            _ = t.shape


USES = {
    "add": lambda t: t + t,
    "add number": lambda t: t + 1,
    "radd": lambda t: 1 + t,
    "multiply": lambda t: 2.0 * t,
    "negative": lambda t: -t,
    "matmul": lambda t: t @ t,
    "in place": lambda t: t.zero_(),
    "equal": lambda t: t == t,
    "bool": bool,
    "len": len,
    "iter": list,
    "sum": lambda t: t.sum(),
    "exp": lambda t: t.exp(),
    "clone": lambda t: t.clone(),
    "detach": lambda t: t.detach(),
    "item": lambda t: t.item(),
    "tolist": lambda t: t.tolist(),
    "numel": lambda t: t.numel(),
}


@pytest.mark.parametrize("name", USES)
@of_both_kinds
def test_using_one_is_torchs_error(kind, name):
    for library in (instnorm, torch):
        t = getattr(library.nn, kind.__name__)(requires_grad=False)
        with pytest.raises(ValueError, match="uninitialized parameter"):
            USES[name](t)


@of_both_kinds
def test_using_one_in_functions_is_an_error(kind):
    t = kind(requires_grad=False)
    for use in (
        lambda: F.instance_norm(batch(1), weight=t),
        lambda: F.instance_norm(t),
        lambda: F.relu(t),
        lambda: nn.init.ones_(t),
        lambda: np.asarray(t),
        lambda: Tensor(t),
        lambda: np.ones(3) + t,
        lambda: t[0],
        lambda: t.reshape(1),
    ):
        with pytest.raises((ValueError, RuntimeError), match="uninitialized parameter or buffer"):
            use()


@of_both_kinds
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_materialize(kind, dtype):
    t = kind(dtype=dtype)
    name, requires_grad = t, t.requires_grad
    for twin in (copy.deepcopy(t), copy.copy(t), pickle.loads(pickle.dumps(t))):
        assert type(twin) is kind
        assert twin.dtype == dtype
        assert twin.requires_grad == requires_grad
    t.materialize((2, 3))
    assert t is name
    assert type(t) is (nn.Parameter if kind is nn.UninitializedParameter else Tensor)
    assert (t.shape, t.dtype, t.requires_grad) == ((2, 3), dtype, requires_grad)
    other = kind(dtype=dtype)
    other.materialize(4, dtype=np.float64)
    assert (other.shape, other.dtype) == ((4,), np.float64)
    with pytest.raises(AttributeError):
        t.materialize(3)


@of_both_kinds
def test_bad_arguments_of_materialize_change_nothing(kind):
    t = kind()
    for arguments, error in (
        (((3,), "cuda"), ValueError),
        (((3,), None, np.int64), TypeError),
        ((("three",),), TypeError),
        (((-1,),), ValueError),
    ):
        with pytest.raises(error):
            t.materialize(*arguments)
        assert type(t) is kind
    for arguments in ({"dtype": np.int64}, {"dtype": complex}):
        with pytest.raises(TypeError, match="dtype must be a floating point type"):
            kind(**arguments)
    with pytest.raises(ValueError, match="device must be None or 'cpu'"):
        kind(device="cuda")


# --- lazy modules of one's own ----------------------------------------------------


class LazyModule(LazyModuleMixin, nn.Module):
    pass


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_a_lazy_module_with_a_tensor_of_ones_own(kind):
    def module(tensor):
        result = LazyModule()
        getattr(result, f"register_{kind}")("test", tensor)
        return result

    uninitialized = {"parameter": KINDS[0], "buffer": KINDS[1]}[kind]
    full = {"parameter": nn.Parameter, "buffer": Tensor}[kind](np.ones((5, 5)))
    lazy = module(uninitialized())
    assert lazy.has_uninitialized_params()
    assert isinstance(lazy.state_dict()["test"], uninitialized)
    with pytest.raises(RuntimeError, match="shape of an uninitialized"):
        module(full).load_state_dict(lazy.state_dict())
    module(uninitialized()).load_state_dict(lazy.state_dict())
    assert lazy.has_uninitialized_params()
    lazy.load_state_dict(module(full).state_dict())
    assert lazy.test.tolist() == np.ones((5, 5)).tolist()
    assert not lazy.has_uninitialized_params()
    half = module(uninitialized()).half()
    half.test.materialize(10)
    assert half.test.dtype == np.float16


def test_a_lazy_module_must_initialize_all():
    with pytest.raises(NotImplementedError, match=r"must define initialize_parameters\(\)"):
        LazyModule()(1)

    class Forgetful(LazyModule):
        def __init__(self):
            super().__init__()
            self.weight = nn.UninitializedParameter()

        def initialize_parameters(self, x):
            pass

    with pytest.raises(RuntimeError, match=r"Forgetful\.initialize_parameters\(\) left"):
        Forgetful()(1)


def test_a_lazy_module_without_a_class_to_become_stays_one():
    class Scale(LazyModule):
        def __init__(self):
            super().__init__()
            self.factor = nn.UninitializedParameter()

        def initialize_parameters(self, x):
            if self.has_uninitialized_params():
                self.factor.materialize(x.shape[-1:])
                nn.init.ones_(self.factor)

        def forward(self, x):
            return self.factor * x

    scale = Scale()
    for _, x in itertools.product(range(2), [normal(2, 3)]):
        np.testing.assert_array_equal(scale(Tensor(x)).data, x)
    assert type(scale) is Scale
