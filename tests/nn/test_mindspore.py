"""nn.mindspore: the same layer with MindSpore's names, defaults, checks and state."""

import copy
import pickle
import re

import ml_dtypes
import numpy as np
import pytest
from helpers.layouts import read_only
from helpers.tensors import assert_create_graph_changes_nothing, leaf, normal

import instnorm
from instnorm import Tensor, nn
from instnorm.nn import mindspore as ms
from instnorm.testing import gradcheck, gradgradcheck

LAYERS = {1: ms.InstanceNorm1d, 2: ms.InstanceNorm2d, 3: ms.InstanceNorm3d}
TORCHS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
SHAPES = {1: (2, 3, 5), 2: (2, 3, 2, 3), 3: (2, 3, 2, 1, 2)}

in_every_rank = pytest.mark.parametrize("rank", LAYERS)


# --- what it computes ---------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("eps", [1e-5, 0.5, 1.0])
@in_every_rank
def test_it_is_the_affine_layer_under_other_names(rank, eps, dtype):
    ours = LAYERS[rank](3, eps=eps, gamma_init=normal(3), beta_init=normal(3, seed=1), dtype=dtype)
    torchs = TORCHS[rank](3, eps=eps, affine=True, dtype=dtype)
    torchs.load_state_dict({"weight": ours.gamma, "bias": ours.beta})
    x, g = normal(*SHAPES[rank]).astype(dtype), normal(*SHAPES[rank], seed=2).astype(dtype)
    a, t = leaf(x), leaf(x)
    y, expected = ours(a), torchs(t)
    np.testing.assert_array_equal(y.data, expected.data)
    y.backward(g)
    expected.backward(g)
    for gradient, its in ((a, t), (ours.gamma, torchs.weight), (ours.beta, torchs.bias)):
        np.testing.assert_array_equal(gradient.grad.data, its.grad.data)
        assert gradient.grad.dtype == dtype


@pytest.mark.parametrize("affine", [True, False])
@in_every_rank
def test_gradients_are_the_central_differences(rank, affine):
    layer = LAYERS[rank](3, 1e-5, 0.1, affine, normal(3), normal(3, seed=1), np.float64)
    leaves = [leaf(normal(*SHAPES[rank])), *layer.trainable_params()]
    assert gradcheck(lambda x, *_: layer(x), leaves, atol=1e-7, rtol=1e-5)
    assert gradgradcheck(lambda x, *_: layer(x), leaves, atol=1e-6, rtol=1e-5)
    assert_create_graph_changes_nothing(layer(leaves[0]), leaves)


@in_every_rank
def test_the_inputs_statistics_are_used_in_evaluation_too(rank):
    layer = LAYERS[rank](3, momentum=0.9)
    x = read_only(5 + normal(*SHAPES[rank]).astype(np.float32))
    for buffer in layer.buffers():
        buffer.data.flags.writeable = False
    expected = layer.set_train()(x).data
    np.testing.assert_array_equal(layer.eval()(x).data, expected)
    assert layer.moving_mean.tolist() == [0, 0, 0]
    assert layer.moving_variance.tolist() == [1, 1, 1]


@pytest.mark.parametrize("affine", [True, False])
def test_gamma_and_beta_are_applied_whether_they_are_learned_or_not(affine):
    layer = ms.InstanceNorm2d(3, affine=affine, gamma_init=2.0, beta_init=[0.0, 1.0, 2.0][1])
    assert layer.gamma.requires_grad == layer.beta.requires_grad == affine
    x = normal(2, 3, 4, 4)
    np.testing.assert_allclose(
        layer(x).data, 2 * nn.InstanceNorm2d(3)(x).data + 1, rtol=0, atol=1e-14
    )
    assert len(layer.trainable_params()) == (2 if affine else 0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_the_output_has_the_inputs_dtype(dtype):
    layer = ms.InstanceNorm2d(3)
    x = leaf(normal(2, 3, 4, 4).astype(dtype))
    y = layer(x)
    y.backward(normal(*y.shape).astype(dtype))
    assert y.dtype == x.grad.dtype == dtype
    assert layer.gamma.grad.dtype == layer.beta.grad.dtype == np.float32


def test_an_empty_batch():
    layer = ms.InstanceNorm2d(3)
    x = leaf(np.zeros((0, 3, 4, 4), np.float32))
    layer(x).backward(x.data)
    assert x.grad.shape == x.shape
    assert layer.gamma.grad.tolist() == layer.beta.grad.tolist() == [0, 0, 0]


# --- names and state ----------------------------------------------------------


@in_every_rank
def test_names_and_defaults(rank):
    layer = LAYERS[rank](3)
    assert (layer.num_features, layer.eps, layer.momentum, layer.affine) == (3, 1e-5, 0.1, True)
    assert [name for name, _ in layer.named_parameters()] == ["gamma", "beta"]
    assert [name for name, _ in layer.named_buffers()] == ["mean", "variance"]
    state = {name: value.tolist() for name, value in layer.state_dict().items()}
    assert state == {
        "gamma": [1, 1, 1],
        "beta": [0, 0, 0],
        "mean": [0, 0, 0],
        "variance": [1, 1, 1],
    }
    assert list(state) == ["gamma", "beta", "mean", "variance"]
    assert {t.dtype.name for t in (*layer.parameters(), *layer.buffers())} == {"float32"}


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(np.float16, "Float16"), (ml_dtypes.bfloat16, "BFloat16"), (np.float32, "Float32")],
)
@in_every_rank
def test_repr_is_mindspores(rank, dtype, name):
    layer = LAYERS[rank](3, 1e-3, 0.5, affine=False, dtype=dtype)
    end = f"shape=(3,), dtype={name}, requires_grad=False)"
    assert repr(layer) == (
        f"InstanceNorm{rank}d(num_features=3, eps=0.001, momentum=0.5, "
        f"gamma=Parameter (name=gamma, {end}, beta=Parameter (name=beta, {end}, "
        f"moving_mean=Parameter (name=mean, {end}, "
        f"moving_variance=Parameter (name=variance, {end})"
    )
    assert repr(LAYERS[rank](3)).count("requires_grad=True") == 2


def test_state_loads_in_a_network():
    """Where MindSpore's parameters have the names of the attributes."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), ms.InstanceNorm2d(2))
    state = {name: value + 2 for name, value in net.state_dict().items()}
    assert [name for name in state if name.startswith("1.")] == [
        "1.gamma",
        "1.beta",
        "1.moving_mean",
        "1.moving_variance",
    ]
    net.load_state_dict(state)
    assert net[1].moving_mean.tolist() == [2, 2]
    assert net[1].moving_variance.tolist() == [3, 3]
    before = net[1].gamma.tolist()
    state["1.gamma"] += 1
    state["1.moving_variance"] = np.ones(3)
    with pytest.raises(RuntimeError, match=r"size mismatch for 1\.moving_variance"):
        net.load_state_dict(state)
    assert net[1].gamma.tolist() == before


@pytest.mark.parametrize("names", [("mean", "variance"), ("moving_mean", "moving_variance")])
def test_the_statistics_load_under_either_name(names):
    layer, net = ms.InstanceNorm2d(2), nn.Sequential(ms.InstanceNorm2d(2))
    state = {"gamma": [1, 2], "beta": [3, 4], names[0]: [5, 6], names[1]: [7, 8]}
    assert layer.load_state_dict(state) == ([], [])
    assert net.load_state_dict({f"0.{k}": v for k, v in state.items()}) == ([], [])
    for one in (layer, net[0]):
        assert [t.tolist() for t in one.parameters_dict().values()] == [
            [5, 6],
            [7, 8],
            [1, 2],
            [3, 4],
        ]


def test_statistics_under_both_names_are_an_error():
    layer = ms.InstanceNorm2d(2)
    state = {**layer.state_dict(), "moving_mean": np.ones(2)}
    with pytest.raises(RuntimeError, match=r'Unexpected.*"moving_mean"'):
        layer.load_state_dict(state)


def test_set_train_and_trainable_params():
    layer = ms.InstanceNorm2d(3)
    assert layer.set_train(False) is layer
    assert not layer.training
    assert layer.set_train() is layer
    assert layer.training
    assert all(a is b for a, b in zip(layer.trainable_params(), layer.parameters(), strict=True))
    layer.beta.requires_grad = False
    (only,) = layer.trainable_params()
    assert only is layer.gamma


def test_set_train_takes_what_is_true_or_false():
    layer = ms.InstanceNorm2d(3)
    for mode in (0, 1, None, "yes"):
        assert layer.set_train(mode).training is bool(mode)


@pytest.mark.parametrize("affine", [True, False])
def test_the_lists_of_parameters_have_the_moving_statistics_first(affine):
    layer = ms.InstanceNorm2d(3, affine=affine)
    tensors = [layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta]

    def same(found, expected):
        found = list(found)
        return len(found) == len(expected) and all(
            a is b for a, b in zip(found, expected, strict=True)
        )

    assert same(layer.get_parameters(), tensors)
    assert same(layer.parameters_dict().values(), tensors)
    assert list(layer.parameters_dict()) == ["mean", "variance", "gamma", "beta"]
    names, found = zip(*layer.parameters_and_names("net"), strict=True)
    assert names == ("net.moving_mean", "net.moving_variance", "net.gamma", "net.beta")
    assert same(found, tensors)
    assert same(layer.trainable_params(), tensors[2:] if affine else [])
    assert same(layer.untrainable_params(), tensors[:2] if affine else tensors)


def test_copies():
    layer = ms.InstanceNorm2d(3, affine=False, gamma_init=2)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        assert twin.gamma.tolist() == [2, 2, 2]
        assert not twin.gamma.requires_grad
        twin.gamma.data[0] = 7
    assert layer.gamma.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("zeros", [0, 0, 0]),
        ("ones", [1, 1, 1]),
        ("zero", [0, 0, 0]),
        ("One", [1, 1, 1]),
        (2, [2, 2, 2]),
        (0.5, [0.5, 0.5, 0.5]),
        (np.float32(3), [3, 3, 3]),
        (np.array([1.0, 2.0, 3.0]), [1, 2, 3]),
        (np.array([1, 2, 3]), [1, 2, 3]),
        (Tensor([1.0, 2.0, 3.0]), [1, 2, 3]),
        (nn.Parameter([1.0, 2.0, 3.0]), [1, 2, 3]),
        (True, [1, 1, 1]),
        (lambda array: array.fill(7), [7, 7, 7]),
    ],
)
def test_first_values(value, expected):
    layer = ms.InstanceNorm2d(3, gamma_init=value, beta_init=value)
    assert layer.gamma.tolist() == layer.beta.tolist() == expected
    assert layer.gamma.dtype == np.float32
    if isinstance(value, np.ndarray | Tensor):
        data = value.data if isinstance(value, Tensor) else value
        assert not np.shares_memory(layer.gamma.data, data)


@pytest.mark.parametrize(
    ("name", "std", "bound"),
    [
        ("normal", 0.01, 0.06),
        ("TruncatedNormal", 0.01, 0.06),
        ("uniform", 0.07 / np.sqrt(3), 0.07),
    ],
)
def test_random_first_values(name, std, bound):
    n = 20_000

    def values(seed, affine=True):
        instnorm.manual_seed(seed)
        layer = ms.InstanceNorm2d(n, affine=affine, gamma_init=name, beta_init=name.upper())
        return np.array([layer.gamma.data, layer.beta.data], np.float64)

    drawn = values(0)
    # Five standard errors.
    np.testing.assert_allclose(drawn.mean(1), 0, atol=5 * std / np.sqrt(n))
    np.testing.assert_allclose(drawn.std(1), std, rtol=5 / np.sqrt(2 * n))
    assert np.abs(drawn).max() < bound
    assert abs(np.corrcoef(drawn)[0, 1]) < 5 / np.sqrt(n)
    np.testing.assert_array_equal(drawn, values(0, affine=False))
    assert (drawn != values(1)).all(1).any()


# --- bad input ----------------------------------------------------------------


@in_every_rank
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_features": 3.0}, TypeError, "type of 'num_features' must be int, got float"),
        ({"num_features": True}, TypeError, "type of 'num_features' must be int, got bool"),
        ({"num_features": "3"}, TypeError, "type of 'num_features' must be int, got str"),
        ({"num_features": 0}, ValueError, "'num_features' must be at least 1, got 0"),
        ({"num_features": -2}, ValueError, "'num_features' must be at least 1, got -2"),
        ({"eps": 1}, TypeError, "type of 'eps' must be float, got int"),
        ({"eps": None}, TypeError, "type of 'eps' must be float, got NoneType"),
        ({"eps": 0.0}, ValueError, "'eps' must be in (0, 1], got 0.0"),
        ({"eps": -1e-5}, ValueError, "'eps' must be in (0, 1], got -1e-05"),
        ({"eps": 1.5}, ValueError, "'eps' must be in (0, 1], got 1.5"),
        ({"eps": float("nan")}, ValueError, "'eps' must be in (0, 1], got nan"),
        ({"momentum": 1}, TypeError, "type of 'momentum' must be float, got int"),
        ({"momentum": None}, TypeError, "type of 'momentum' must be float, got NoneType"),
        ({"momentum": -0.1}, ValueError, "'momentum' must be in [0, 1], got -0.1"),
        ({"momentum": 1.1}, ValueError, "'momentum' must be in [0, 1], got 1.1"),
        ({"momentum": float("nan")}, ValueError, "'momentum' must be in [0, 1], got nan"),
        ({"affine": 1}, TypeError, "type of 'affine' must be bool, got int"),
        ({"gamma_init": "twos"}, ValueError, "gamma_init must be one of zeros"),
        ({"beta_init": "twos"}, ValueError, "got 'twos'"),
        ({"gamma_init": None}, TypeError, "gamma_init must be an initializer's name"),
        ({"beta_init": [0.0, 0.0, 0.0]}, TypeError, "a Tensor or an initializer, got list"),
        ({"gamma_init": np.bool_(True)}, TypeError, "got bool"),
        ({"gamma_init": 1j}, TypeError, "got complex"),
        ({"gamma_init": list}, TypeError, "got type"),
        ({"gamma_init": np.ones(3, complex)}, TypeError, "dtype complex128"),
        ({"gamma_init": np.array(2.0)}, ValueError, "gamma_init has shape (), expected (3,)"),
        ({"gamma_init": Tensor(np.ones(3))}, TypeError, "must be of dtype float32 where it is a"),
        ({"gamma_init": Tensor([1.0, 2.0])}, ValueError, "gamma_init has shape (2,)"),
        ({"beta_init": "truncated_normal"}, ValueError, "got 'truncated_normal'"),
        ({"beta_init": ""}, ValueError, "got ''"),
        *(
            ({"gamma_init": name}, ValueError, f"gamma_init='{name}' cannot initialize a vector")
            for name in ("HeUniform", "he_normal", "XavierUniform", "xavier_normal", "Identity")
        ),
        ({"num_features": np.int64(3)}, TypeError, "type of 'num_features' must be int, got int64"),
        ({"eps": np.float32(1e-5)}, TypeError, "type of 'eps' must be float, got float32"),
        ({"eps": True}, TypeError, "type of 'eps' must be float, got bool"),
        ({"affine": np.bool_(True)}, TypeError, "type of 'affine' must be bool, got bool"),
        ({"dtype": np.int32}, TypeError, "'dtype' must be a floating point type, got int32"),
        ({"dtype": None}, ValueError, "'dtype' must be a floating point type, got None"),
        # Of two errors, MindSpore's.
        ({"num_features": 0, "eps": 1}, TypeError, "type of 'eps'"),
        ({"num_features": 0, "gamma_init": None}, TypeError, "gamma_init"),
        ({"num_features": 0, "momentum": 2.0}, ValueError, "num_features"),
        ({"eps": 2.0, "momentum": 2.0}, ValueError, "momentum"),
        ({"eps": 2.0, "beta_init": "twos"}, ValueError, "beta_init"),
        ({"beta_init": np.zeros(2)}, ValueError, "beta_init has shape (2,), expected (3,)"),
        ({"gamma_init": np.ones((3, 1))}, ValueError, "gamma_init has shape (3, 1)"),
    ],
)
def test_bad_arguments(rank, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        LAYERS[rank](**{"num_features": 3, **arguments})


@in_every_rank
@pytest.mark.parametrize("ndim", [1, 2, 3, 4, 5, 6])
def test_exactly_one_rank_is_accepted(rank, ndim):
    x = normal(*(3,) * ndim)
    if ndim == rank + 2:
        assert LAYERS[rank](3)(x).shape == x.shape
        return
    message = f"For 'InstanceNorm{rank}d', the input must have {rank + 2} axes, got shape {x.shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        LAYERS[rank](3)(x)


@pytest.mark.parametrize("affine", [True, False])
@in_every_rank
def test_a_wrong_channel_count_is_always_an_error(rank, affine):
    x = normal(*SHAPES[rank])
    message = f"must have num_features (4) channels, got shape {x.shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        LAYERS[rank](4, affine=affine)(x)


@in_every_rank
def test_one_spatial_element_is_an_error(rank):
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        LAYERS[rank](3)(normal(2, 3, *(1,) * rank))


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.complex64, object])
def test_other_dtypes_than_float_are_a_type_error(dtype):
    with pytest.raises(TypeError, match="dtype"):
        ms.InstanceNorm2d(3)(np.ones((2, 3, 4, 4), dtype))
