"""Making Tensors, beside torch; random numbers by their moments and their seed."""

import numpy as np
import pytest
from helpers.beside_torch import torch
from helpers.tensors import normal

import instnorm

pytestmark = pytest.mark.torch

# Functions of either library.
MADE = {
    "zeros": lambda t: t.zeros(2, 3),
    "zeros tuple": lambda t: t.zeros((2, 3)),
    "zeros scalar": lambda t: t.zeros(()),
    "zeros dtype": lambda t: t.zeros(2, dtype=t.int64),
    "zeros grad": lambda t: t.zeros(2, device="cpu", requires_grad=True),
    "ones": lambda t: t.ones([2, 3], dtype=t.float64),
    "full": lambda t: t.full((2, 2), 0.5),
    "full of integers": lambda t: t.full((2,), 7),
    "full dtype": lambda t: t.full((2,), 7, dtype=t.float32),
    "arange": lambda t: t.arange(5),
    "arange float": lambda t: t.arange(0.5, 3.0),
    "arange step": lambda t: t.arange(5, 0, -2),
    "arange fractions": lambda t: t.arange(0, 1, 0.25),
    "arange dtype": lambda t: t.arange(3, dtype=t.float64),
    "zeros_like": lambda t: t.zeros_like(t.arange(3)),
    "ones_like": lambda t: t.ones_like(t.arange(3), dtype=t.float32),
    "full_like": lambda t: t.full_like(t.arange(3), 7, dtype=t.float32),
    "empty": lambda t: t.empty(2, 3, dtype=t.int64) * 0,
    "empty_like": lambda t: t.empty_like(t.arange(3)) * 0,
    "randn_like": lambda t: t.randn_like(t.ones(2, 3, dtype=t.float64)) * 0,
    "rand_like": lambda t: t.rand_like(t.ones(2), requires_grad=True) * 0,
    "randint": lambda t: t.randint(5, size=(2, 3)) * 0,
    "randint from": lambda t: t.randint(2, 3, (2,), device="cpu"),
    "eye": lambda t: t.eye(3),
    "eye of integers": lambda t: t.eye(2, 4, dtype=t.int64),
    "linspace": lambda t: t.linspace(-1, 2, 5),
    "linspace dtype": lambda t: t.linspace(0, 1, steps=3, dtype=t.float64),
    "as_tensor": lambda t: t.as_tensor([1.0, 2.0]),
    "as_tensor dtype": lambda t: t.as_tensor(np.arange(3), dtype=t.float32, device="cpu"),
    "constants": lambda t: t.tensor([t.inf, t.nan, t.pi]),
    "concat": lambda t: t.concat([t.ones(2), t.zeros(1)]),
    "from_numpy": lambda t: t.from_numpy(np.arange(3.0)),
    "tensor": lambda t: t.tensor([1.0, 2.0], device="cpu"),
    "tensor of integers": lambda t: t.tensor([[1, 2]]),
    "cat promotes": lambda t: t.cat([t.ones(2, dtype=t.int64), t.zeros(1)]),
    "cat of all dimensions": lambda t: t.cat((t.ones(1, 2), t.zeros(3, 2)), dim=-2),
    "stack": lambda t: t.stack([t.ones(2), t.zeros(2)], dim=-1),
    "stack scalars": lambda t: t.stack([t.tensor(1.0), t.tensor(2.0)]),
    "where": lambda t: t.where(t.arange(3) > 1, t.ones(3), t.zeros(1)),
    "where number": lambda t: t.where(t.arange(3) > 1, t.ones(3, dtype=t.float64), 0.0),
    "where numbers first": lambda t: t.where(t.arange(3) > 1, 2.5, t.ones(3, dtype=t.float16)),
    "device of a script": lambda t: t.ones(
        1, device=t.device("cuda" if t.cuda.is_available() else "cpu")
    ),
    "function": lambda t: t.softmax(t.ones(2, 2), dim=1),
    **{
        f"dtype {name}": lambda t, name=name: t.ones(1, dtype=getattr(t, name))
        for name in (
            *["half", "float", "double", "short", "int", "long", "bool", "uint8", "int8", "int16"],
            *["int32", "int64", "float16", "float32", "float64"],
        )
    },
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_is_torchs(name):
    ours, theirs = MADE[name](instnorm), MADE[name](torch)
    expected = theirs.detach().numpy()
    assert ours.dtype == expected.dtype
    assert ours.requires_grad == theirs.requires_grad
    np.testing.assert_allclose(ours.data, expected, rtol=1e-6)


def test_bfloat16_has_its_name():
    assert instnorm.zeros(1, dtype=instnorm.bfloat16).dtype.name == "bfloat16"


def test_memory():
    array = normal(3, 2)
    assert instnorm.from_numpy(array).data is array
    assert instnorm.zeros_like(instnorm.from_numpy(array.T)).data.strides == array.T.strides


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_random_numbers_have_their_moments(dtype):
    instnorm.manual_seed(0)
    uniform, gaussian = instnorm.rand(100, 200, dtype=dtype), instnorm.randn(100, 200, dtype=dtype)
    assert uniform.dtype == gaussian.dtype == dtype
    assert uniform.double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert uniform.double().var().item() == pytest.approx(1 / 12, rel=0.03)
    assert 0 <= uniform.min().item() < 0.01
    assert gaussian.double().mean().item() == pytest.approx(0, abs=0.03)
    assert gaussian.double().std().item() == pytest.approx(1, rel=0.02)


def test_random_integers():
    instnorm.manual_seed(0)
    drawn = instnorm.randint(2, 5, (1000,))
    assert set(drawn.tolist()) == {2, 3, 4}
    assert drawn.dtype == np.int64
    assert set(instnorm.randint(3, (1000,)).tolist()) == {0, 1, 2}
    order = instnorm.randperm(50).tolist()
    assert sorted(order) == list(range(50)) != order


@pytest.mark.parametrize("seed", [0, -1, 2**63, np.int64(5)])
def test_a_seed_repeats_everything_that_is_drawn(seed):
    def drawn():
        return [
            instnorm.nn.Linear(3, 4).weight.tolist(),
            instnorm.rand(2).tolist(),
            instnorm.randn(2).tolist(),
            instnorm.randperm(9).tolist(),
            instnorm.functional.dropout(instnorm.ones(20)).tolist(),
        ]

    instnorm.manual_seed(seed)
    first = drawn()
    assert drawn() != first
    instnorm.manual_seed(seed)
    assert drawn() == first


ERRORS = {
    "seed": (lambda: instnorm.manual_seed("a"), TypeError, "seed must be an integer, got 'a'"),
    "seed bool": (lambda: instnorm.manual_seed(True), TypeError, "got True"),
    "negative": (lambda: instnorm.zeros(2, -1), ValueError, r"size must not be negative, got \(2"),
    "device": (lambda: instnorm.ones(2, device="cuda"), ValueError, "device must be None or 'cpu'"),
    "rand dtype": (lambda: instnorm.rand(2, dtype=np.int64), TypeError, "rand draws floating"),
    "step": (lambda: instnorm.arange(1, 2, 0), ValueError, "step must not be 0"),
    "from_numpy": (lambda: instnorm.from_numpy([1]), TypeError, "must be an ndarray, got list"),
    "cat of one": (lambda: instnorm.cat(instnorm.ones(2)), TypeError, "sequence of Tensors"),
    "cat of arrays": (
        lambda: instnorm.cat([instnorm.ones(2), np.ones(2)]),
        TypeError,
        r"tensors\[1\] must be a Tensor, got ndarray",
    ),
    "cat of none": (lambda: instnorm.cat([]), ValueError, "tensors is empty"),
    "cat of scalars": (lambda: instnorm.cat([instnorm.ones(())]), ValueError, "has no axes"),
    "cat shapes": (
        lambda: instnorm.cat([instnorm.ones(2, 3), instnorm.ones(2, 2)]),
        ValueError,
        r"tensors\[1\] has shape \(2, 2\), expected .* \(2, 3\), but for axis 0",
    ),
    "cat dim": (lambda: instnorm.cat([instnorm.ones(2)], 1), IndexError, "dim 1 is out of range"),
    "stack shapes": (
        lambda: instnorm.stack([instnorm.ones(2), instnorm.ones(3)]),
        ValueError,
        r"tensors\[1\] has shape \(3,\)",
    ),
    "cuda": (lambda: instnorm.cuda.synchronize, AttributeError, "instnorm.cuda has no attribute"),
    "spelling": (lambda: instnorm.zeroes, AttributeError, "nearest: zeros"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_is_wrong(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


def test_names_at_the_top_are_torchs_where_torch_has_them():
    own = {
        *["get_cache_limit", "set_cache_limit", "empty_cache", "instance_norm_backward"],
        *["draw", "summary", "functional", "grad", "Statistics"],
    }
    for name in instnorm.__all__:
        assert hasattr(instnorm, name)
        assert name in own or hasattr(torch, name), name


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("einsum", "nearest: matmul"),
        ("roll", "write instnorm.cat"),
        ("backends", "instnorm computes on the CPU"),
        ("ones_lik", "nearest: ones_like"),
    ],
)
def test_a_function_that_there_is_not_names_the_nearest(name, nearest):
    with pytest.raises(AttributeError, match=nearest):
        getattr(instnorm, name)


def test_as_tensor_copies_nothing():
    array = np.zeros(2)
    assert instnorm.as_tensor(array).data is array
    tensor = instnorm.zeros(2)
    assert instnorm.as_tensor(tensor) is tensor


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: instnorm.randint(3), TypeError, "size is missing"),
        (lambda: instnorm.where(instnorm.ones(2) > 0, 1.0), TypeError, "where takes a condition"),
    ],
)
def test_arguments_that_are_missing(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_seeds_of_other_devices_change_nothing():
    instnorm.manual_seed(0)
    expected = instnorm.rand(2).tolist()
    instnorm.manual_seed(0)
    instnorm.cuda.manual_seed_all(1)
    assert instnorm.rand(2).tolist() == expected
    assert instnorm.cuda.device_count() == 0
