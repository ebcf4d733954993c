"""nn.mindspore beside the real MindSpore: `make test-mindspore` runs this where it is installed.

MindSpore's constructors run on a CPU, its instance norm does not ("Unsupported op"): results
are compared with a composition of operators that do.
"""

import contextlib
import inspect
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, about NumPy and about accelerators
    mindspore = pytest.importorskip("mindspore")

from helpers.composition import RANKS, SHAPES, C, composed_results
from helpers.tensors import normal

import instnorm
from instnorm import Tensor, nn
from instnorm.nn import mindspore as ours

NUMPY = {
    mindspore.float16: np.float16,
    mindspore.float32: np.float32,
    mindspore.float64: np.float64,
}

in_every_rank = pytest.mark.parametrize("rank", RANKS)
pytestmark = [pytest.mark.mindspore, pytest.mark.filterwarnings("ignore")]

# MindSpore 2.10 was compiled with NumPy 1: its first operator fails under NumPy 2, the rest run.
with contextlib.suppress(SystemError):
    mindspore.ops.mean(mindspore.Tensor([1.0]), (0,), True)


def classes(rank):
    return getattr(ours, f"InstanceNorm{rank}d"), getattr(mindspore.nn, f"InstanceNorm{rank}d")


def for_us(value):
    """The same argument for our layers."""
    if isinstance(value, mindspore.Tensor):
        return Tensor(value.asnumpy())
    if isinstance(value, mindspore.dtype.Type | type(mindspore.float32)):
        return np.dtype(str(value).lower())
    return value


def outcome(kind, arguments):
    """The type of the error, or the values of gamma and beta."""
    try:
        layer = kind(**arguments)
    except Exception as error:
        return type(error)
    asnumpy = getattr(type(layer.gamma), "asnumpy", lambda tensor: tensor.data)
    return [asnumpy(tensor).tolist() for tensor in (layer.gamma, layer.beta)]


# --- constructors ---------------------------------------------------------------


@in_every_rank
def test_signatures_and_defaults_are_mindspores(rank):
    one, other = (inspect.signature(kind.__init__).parameters for kind in classes(rank))
    assert list(one) == list(other)
    for name in one:
        assert one[name].kind == other[name].kind
        if name != "dtype":
            assert one[name].default == other[name].default
    assert one["dtype"].default is NUMPY[other["dtype"].default]


CONSTRUCTORS = [
    *({"num_features": v} for v in (3.0, True, "3", None, 0, -2, np.int64(3), (3,), [3], 1, 5)),
    *({"eps": v} for v in (1, None, 0.0, -1e-5, 1.5, 1.0, float("inf"), True, "x", 1e-30)),
    *({"eps": v} for v in (np.float64(1e-5), np.float32(1e-5))),
    *({"momentum": v} for v in (1, 0, None, -0.1, 1.1, 0.0, 1.0, True, "x", np.float32(0.5))),
    *({"affine": v} for v in (True, False, 1, 0, None, "True", np.bool_(True))),
    *(
        {argument: v}
        for argument in ("gamma_init", "beta_init")
        for v in (
            "zeros",
            "ones",
            "zero",
            "one",
            "Zeros",
            "ONES",
            "truncated_normal",
            "HeUniform",
            "he_uniform",
            "HeNormal",
            "he_normal",
            "XavierUniform",
            "xavier_uniform",
            "XavierNormal",
            "xavier_normal",
            "identity",
            "Orthogonal",
            "dirac",
            "VarianceScaling",
            "variance_scaling",
            "constant",
            "twos",
            "",
            None,
            2,
            0.5,
            True,
            1j,
            np.float32(3),
            np.int64(3),
            np.bool_(True),
            [1.0, 2.0, 3.0],
            (1.0, 2.0, 3.0),
            list,
            mindspore.Tensor([1.0, 2.0, 3.0]),
            mindspore.Tensor([1.0, 2.0, 3.0], mindspore.float64),
            mindspore.Tensor([1.0, 2.0, 3.0], mindspore.float16),
            mindspore.Tensor([1, 2, 3]),
            mindspore.Tensor([1.0, 2.0]),
            mindspore.Tensor([[1.0, 2.0, 3.0]]),
            mindspore.Tensor(2.0),
            mindspore.common.initializer.Constant(4),
            mindspore.common.initializer.One(),
            mindspore.common.initializer.One,
        )
    ),
    *({"dtype": dtype} for dtype in (*NUMPY, None)),
    # Of two errors, the first.
    {"num_features": 0, "eps": 1},
    {"num_features": 0.5, "eps": 2.0},
    {"num_features": 0, "gamma_init": None},
    {"num_features": 0, "momentum": 1},
    {"momentum": 2.0, "gamma_init": []},
    {"eps": 2.0, "beta_init": 1j},
    {"num_features": "3", "gamma_init": "twos"},
    {"nonsense": 1},
]


@in_every_rank
@pytest.mark.parametrize("arguments", CONSTRUCTORS, ids=repr)
def test_constructors_end_as_mindspores(rank, arguments):
    our_kind, their_kind = classes(rank)
    arguments = {"num_features": C, **arguments}
    found = outcome(our_kind, {name: for_us(value) for name, value in arguments.items()})
    assert found == outcome(their_kind, arguments)


def test_positional_arguments_and_missing_ones():
    for rank in RANKS:
        our_kind, their_kind = classes(rank)
        one = our_kind(3, 1e-3, 0.5, False, "zeros", "ones", np.float16)
        other = their_kind(3, 1e-3, 0.5, False, "zeros", "ones", mindspore.float16)
        assert repr(one) == repr(other)
        for arguments in ((), (3, 1e-3, 0.5, False, "zeros", "ones", None, 1)):
            for kind in (our_kind, their_kind):
                with pytest.raises(TypeError):
                    kind(*arguments)


@pytest.mark.parametrize(
    ("arguments", "ours_ends", "theirs_ends"),
    [
        # Nothing good comes of them.
        ({"eps": float("nan")}, ValueError, None),
        ({"momentum": float("nan")}, ValueError, None),
        ({"dtype": mindspore.int32}, TypeError, None),
        # An argument is missing: MindSpore's own words.
        ({"gamma_init": "sparse"}, ValueError, TypeError),
        # NumPy's arrays are welcome here.
        ({"gamma_init": np.ones(3, np.float32)}, None, TypeError),
        ({"gamma_init": np.ones(3)}, None, TypeError),
        ({"dtype": np.float32}, None, TypeError),
    ],
    ids=repr,
)
def test_where_constructors_differ(arguments, ours_ends, theirs_ends):
    arguments = {"num_features": C, **arguments}
    our_kind, their_kind = classes(2)
    ends = (
        outcome(our_kind, {name: for_us(value) for name, value in arguments.items()}),
        outcome(their_kind, arguments),
    )
    assert [None if isinstance(end, list) else end for end in ends] == [ours_ends, theirs_ends]


@pytest.mark.parametrize("name", ["normal", "Uniform", "truncatedNormal"])
def test_random_first_values_are_distributed_as_mindspores(name):
    n = 50_000
    drawn = [kind(n, gamma_init=name) for kind in classes(2)]
    one, other = np.sort(drawn[0].gamma.data), np.sort(drawn[1].gamma.asnumpy())
    # Kolmogorov and Smirnov's distance; beyond this once in a million.
    grid = np.concatenate([one, other])
    distance = np.abs(np.searchsorted(one, grid, "right") - np.searchsorted(other, grid, "right"))
    assert distance.max() / n < 2.7 * np.sqrt(2 / n)
    assert np.isclose(one.std(), other.std(), rtol=0.03)


# --- what is inside ---------------------------------------------------------------


@in_every_rank
@pytest.mark.parametrize("affine", [True, False])
def test_repr_and_lists_are_mindspores(rank, affine):
    one, other = (kind(C, affine=affine) for kind in classes(rank))
    assert repr(one) == repr(other)
    for name in ("num_features", "eps", "momentum"):
        assert getattr(one, name) == getattr(other, name)
    for options in ({}, {"name_prefix": "net"}):
        found, expected = (layer.parameters_and_names(**options) for layer in (one, other))
        assert [name for name, _ in found] == [name for name, _ in expected]
    assert list(one.parameters_dict()) == list(other.parameters_dict())
    for method in ("get_parameters", "trainable_params", "untrainable_params"):
        found, expected = (list(getattr(layer, method)()) for layer in (one, other))
        attributes = dict(one.parameters_and_names()), dict(other.parameters_and_names())
        names = [
            [name for tensor in tensors for name, t in attribute.items() if t is tensor]
            for tensors, attribute in zip((found, expected), attributes, strict=True)
        ]
        assert names[0] == names[1]
    for name, tensor in other.parameters_dict().items():
        assert one.parameters_dict()[name].requires_grad == tensor.requires_grad
        np.testing.assert_array_equal(one.parameters_dict()[name].data, tensor.asnumpy())


def test_set_train_is_mindspores():
    for kind in classes(2):
        layer = kind(C)
        for arguments in ((), (False,), (True,), (0,), (1,)):
            assert layer.set_train(*arguments) is layer
            assert bool(layer.training) is bool((*arguments, True)[0])


def networks():
    class Cell(mindspore.nn.Cell):
        def __init__(self):
            super().__init__()
            self.norm = mindspore.nn.InstanceNorm2d(C)
            self.body = mindspore.nn.SequentialCell(mindspore.nn.InstanceNorm2d(C, affine=False))

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = ours.InstanceNorm2d(C)
            self.body = nn.Sequential(ours.InstanceNorm2d(C, affine=False))

    return Module(), Cell()


def test_names_in_a_network_are_mindspores():
    one, other = networks()
    assert set(one.state_dict()) == set(other.parameters_dict())


def test_a_checkpoint_loads(tmp_path):
    one, other = networks()
    path = str(tmp_path / "net.ckpt")
    for seed, tensor in enumerate(other.get_parameters()):
        tensor.set_data(mindspore.Tensor(normal(C, seed=seed).astype(np.float32)))
    mindspore.save_checkpoint(other, path)
    for state in (other.parameters_dict(), mindspore.load_checkpoint(path)):
        assert one.load_state_dict(state) == ([], [])
        for name, tensor in other.parameters_dict().items():
            np.testing.assert_array_equal(one.state_dict()[name], tensor.asnumpy())
        one, _ = networks()


def test_a_single_layer_loads():
    layer = mindspore.nn.InstanceNorm1d(C, gamma_init=2.0, beta_init=3.0)
    one = ours.InstanceNorm1d(C)
    assert one.load_state_dict(layer.parameters_dict()) == ([], [])
    assert one.gamma.tolist() == [2, 2, 2]
    assert one.beta.tolist() == [3, 3, 3]


# --- results ----------------------------------------------------------------------


@in_every_rank
@pytest.mark.parametrize("ndim", [1, 2, 3, 4, 5, 6])
def test_wrong_ranks_are_mindspores_error(rank, ndim):
    one, other = (kind(C) for kind in classes(rank))
    x = np.ones((C,) * ndim, np.float32)
    if ndim == rank + 2:
        assert one(x).shape == x.shape
        with pytest.raises(RuntimeError, match=r"Unsupported op \[InstanceNorm\]"):
            other(mindspore.Tensor(x))
        return
    for call in (lambda: one(x), lambda: other(mindspore.Tensor(x))):
        with pytest.raises(ValueError, match=f"For 'InstanceNorm{rank}d'"):
            call()


def test_a_wrong_channel_count_is_mindspores_error():
    x = np.ones((2, C + 1, 4, 4), np.float32)
    for affine in (True, False):
        one, other = (kind(C, affine=affine) for kind in classes(2))
        for call in (lambda: one(x), lambda: other(mindspore.Tensor(x))):  # noqa: B023
            with pytest.raises(ValueError, match=f"{C}"):
                call()


@in_every_rank
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 0.1, 1.0])
def test_results_and_gradients_are_those_of_mindspores_operators(rank, eps, affine, training):
    kind, _ = classes(rank)
    gamma, beta = normal(C, seed=1), normal(C, seed=2)
    layer = kind(C, eps, 0.1, affine, gamma, beta, np.float64).set_train(training)
    x, g = 2 + 3 * normal(*SHAPES[rank]), normal(*SHAPES[rank], seed=3)

    a = Tensor(x.copy(), requires_grad=True)
    y = layer(a)
    y.backward(g)

    expected, *gradients = composed_results(x, gamma, beta, eps, g)
    np.testing.assert_allclose(y.data, expected.asnumpy(), rtol=0, atol=1e-13)
    for tensor, gradient in zip((a, layer.gamma, layer.beta), gradients, strict=True):
        if tensor.requires_grad:
            np.testing.assert_allclose(tensor.grad.data, gradient.asnumpy(), rtol=0, atol=1e-12)
        else:
            assert tensor.grad is None


def test_results_are_those_of_group_norm_with_a_group_for_each_channel():
    x = normal(2, C, 4, 5).astype(np.float32)
    group = mindspore.nn.GroupNorm(C, C, gamma_init=2.0, beta_init=0.5)
    layer = ours.InstanceNorm2d(C, gamma_init=2.0, beta_init=0.5)
    expected = group(mindspore.Tensor(x)).asnumpy()
    np.testing.assert_allclose(layer(x).data, expected, rtol=0, atol=4e-6)


def test_the_seed_of_first_values_is_ours():
    for _ in range(2):
        instnorm.manual_seed(3)
        first = ours.InstanceNorm2d(C, gamma_init="normal").gamma.tolist()
        instnorm.manual_seed(3)
        assert ours.InstanceNorm2d(C, gamma_init="normal").gamma.tolist() == first
