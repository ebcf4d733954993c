"""The layers of either framework's models beside PyTorch's: errors, warnings, ages of state dicts.

What they compute is in test_instancenorm.py; here are the dtypes and the corners that it leaves.
Each test goes through all the cases of one layer, and names the first that differs.
"""

import itertools
import warnings

import ml_dtypes
import numpy as np
import pytest
from helpers.beside_torch import assert_close, torch, torch_leaf
from helpers.tensors import leaf, normal

import instnorm
from instnorm import Tensor, nn
from instnorm import functional as F

pytestmark = pytest.mark.torch

C = 3
SPATIAL = {1: (7,), 2: (3, 4), 3: (2, 3, 2)}
LIBRARIES = (instnorm, torch)

in_every_rank = pytest.mark.parametrize("rank", [1, 2, 3])


def layer(library, rank, *arguments, lazy=False, dtype=None, **options):
    kind = getattr(library.nn, f"{'Lazy' if lazy else ''}InstanceNorm{rank}d")
    if dtype is not None and library is torch:
        dtype = getattr(torch, np.dtype(dtype).name)
    return kind(*arguments, dtype=dtype, **options)


def array(library, values):
    """An array for either library, in memory of its own."""
    return torch.tensor(values) if library is torch else Tensor(values.copy())


def outcome(call):
    """The type of the error, and the categories of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
            error = None
        except Exception as e:
            error = type(e)
    return error, [warning.category for warning in caught]


# --- numbers --------------------------------------------------------------------


@in_every_rank
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@pytest.mark.parametrize("momentum", [0, 0.0, 0.1, 0.9, 1, 1.0, None, 1.5, -0.5])
def test_running_statistics_at_every_momentum(momentum, rank, batched):
    ours, theirs = (
        layer(lib, rank, C, momentum=momentum, track_running_stats=True, dtype=np.float64)
        for lib in LIBRARIES
    )
    # Beyond [0, 1], the second variance may be negative, and has no square root.
    steps = [True, True, False, True, False] if 0 <= (momentum or 0) <= 1 else [True]
    for seed, training in enumerate(steps):
        x = 3 + 2 * normal(*((4,) if batched else ()), C, *SPATIAL[rank], seed=seed)
        a, t = leaf(x), torch_leaf(x)
        y, expected = ours.train(training)(a), theirs.train(training)(t)
        assert_close(y, expected, 40)
        for name in ("running_mean", "running_var"):
            assert_close(getattr(ours, name), getattr(theirs, name), 40)


HALF = {"float16": (np.float16, 2**-10), "bfloat16": (ml_dtypes.bfloat16, 2**-7)}


@in_every_rank
@pytest.mark.parametrize("of_parameters", ["same", "float32"])
@pytest.mark.parametrize("name", HALF)
def test_half_precision(name, of_parameters, rank):
    """Within two units in the last place of torch's, which rounds the statistics too."""
    dtype, eps = HALF[name]
    parameters = np.float32 if of_parameters == "float32" else dtype
    options = {"affine": True, "track_running_stats": True, "dtype": parameters}
    ours, theirs = (layer(lib, rank, C, **options) for lib in LIBRARIES)
    x = (1 + normal(4, C, *SPATIAL[rank])).astype(dtype)
    g = normal(*x.shape, seed=1).astype(dtype)
    theirs_dtype = getattr(torch, name)
    for training in (True, False):
        ours.zero_grad()
        theirs.zero_grad()
        a = leaf(x)
        t = torch.tensor(x.astype(np.float32)).to(theirs_dtype).requires_grad_()
        y, expected = ours.train(training)(a), theirs.train(training)(t)
        y.backward(g)
        expected.backward(torch.tensor(g.astype(np.float32)).to(theirs_dtype))
        assert (y.dtype, a.grad.dtype) == (dtype, dtype)
        assert ours.weight.grad.dtype == ours.running_mean.dtype == parameters
        pairs = [
            (y, expected),
            (a.grad, t.grad),
            (ours.weight.grad, theirs.weight.grad),
            (ours.bias.grad, theirs.bias.grad),
            (ours.running_mean, theirs.running_mean),
            (ours.running_var, theirs.running_var),
        ]
        for one, other in pairs:
            other = other.detach().float().numpy()
            scale = max(1, np.abs(other).max())
            np.testing.assert_allclose(one.data.astype(np.float32), other, atol=2 * eps * scale)


# --- errors and warnings ----------------------------------------------------------

SHAPES = [
    (),
    (3,),
    (0,),
    (3, 1),
    (3, 4),
    (3, 0),
    (0, 3),
    (2, 3, 4),
    (2, 4, 4),
    (0, 3, 4),
    (2, 0, 4),
    (2, 3, 0),
    (2, 3, 1),
    (3, 1, 1),
    (2, 3, 3, 4),
    (2, 4, 3, 4),
    (1, 3, 1, 1),
    (0, 3, 4, 4),
    (2, 3, 0, 4),
    (2, 3, 2, 3, 4),
    (2, 3, 1, 1, 1),
    (3, 2, 2, 2),
    (2, 4, 2, 2, 2),
    (1, 2, 3, 2, 3, 4),
]


@in_every_rank
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("track", [False, True])
def test_errors_and_warnings_are_torchs_for_every_shape(rank, affine, track, training):
    options = {"affine": affine, "track_running_stats": track}
    for shape in SHAPES:
        ours, theirs = (layer(lib, rank, C, **options).train(training) for lib in LIBRARIES)
        x = normal(*shape).astype(np.float32)
        found = outcome(lambda: ours(x))  # noqa: B023
        expected = outcome(lambda: theirs(torch.tensor(x)))  # noqa: B023
        channels = shape[len(shape) - rank - 1] if len(shape) in (rank + 1, rank + 2) else None
        if track and channels not in (None, C):
            expected = (ValueError, [])  # torch's are other errors, after a warning, or none
        elif affine and len(shape) == rank + 2 and shape[0] == 0:
            expected = (None, [])  # torch's is an IndexError
        assert found == expected, shape


CONSTRUCTORS = [
    ((), {}),
    ((C,), {"nonsense": 1}),
    ((C, 1e-5, 0.1, True, True, None, None, True), {}),
    ((C,), {"affine": True, "bias": False}),
    ((C,), {"affine": 1, "track_running_stats": 0}),
    ((0,), {"affine": True}),
    ((np.int64(C),), {"affine": True}),
    (("3",), {"affine": True}),
    ((3.0,), {"affine": True}),
    ((None,), {"track_running_stats": True}),
    ((C,), {"device": "cpu"}),
]


@in_every_rank
def test_constructor_errors_are_torchs(rank):
    for arguments, options in CONSTRUCTORS:
        found, expected = (
            outcome(lambda: layer(lib, rank, *arguments, **options))  # noqa: B023
            for lib in LIBRARIES
        )
        assert found == expected, (arguments, options)


def test_the_warning_points_at_the_call():
    x = normal(2, 4, 7)
    for batched in (x, x[0]):
        with pytest.warns(UserWarning, match="does not match num_features") as caught:
            nn.Sequential(nn.InstanceNorm1d(C))(batched)
        assert len(caught) == 1


# --- state dicts of every age --------------------------------------------------------


def tensors(library, options, lazy, seed):
    """A layer with random values."""
    result = layer(library, 2, *(() if lazy else (C,)), lazy=lazy, **options)
    if not lazy:
        for i, value in enumerate(result.state_dict().values()):
            if value.ndim:
                new = normal(C, seed=seed + i)
                value[...] = torch.tensor(new) if library is torch else new
    return result


STATES = [
    {"affine": affine, "bias": bias, "track_running_stats": track}
    for affine, bias in ((True, True), (True, False), (False, True))
    for track in (True, False)
]


def aged(state, age):
    """The state dict as an older version saved it, or as a plain dict."""
    if age == "plain":
        return dict(state)
    if age == "version 1":
        state.pop("num_batches_tracked", None)
        state._metadata[""]["version"] = 1
    if age == "version 2, incomplete":
        state.pop("num_batches_tracked", None)
    return state


def loading(library, source, target, age, lazy, strict):
    """The outcome of loading, the names that it told, and whether the layer has its values."""
    state = aged(tensors(library, source, lazy[0], 0).state_dict(), age)
    loaded = tensors(library, target, lazy[1], 100)
    result = None

    def load():
        nonlocal result
        result = loaded.load_state_dict(state, strict=strict)

    error = outcome(load)
    if error[0] is not None:
        return error, None, None
    values = {
        name: value.tolist()
        for name, value in loaded.state_dict().items()
        if "Uninitialized" not in type(value).__name__
    }
    return error, tuple(result), values


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("age", ["new", "plain", "version 1", "version 2, incomplete"])
@pytest.mark.parametrize("lazy", list(itertools.product([False, True], repeat=2)))
def test_loading_every_state_dict_into_every_layer(lazy, age, strict):
    for source, target in itertools.product(STATES, repeat=2):
        found = loading(instnorm, source, target, age, lazy, strict)
        expected = loading(torch, source, target, age, lazy, strict)
        dropped = source["track_running_stats"] and not target["track_running_stats"]
        if dropped and age == "plain" and not strict:
            # torch's is an error even so; a new state dict's statistics it does skip.
            expected = loading(torch, source, target, "new", lazy, strict)
        assert found == expected, (source, target)


@pytest.mark.parametrize("version", [1, None])
def test_a_state_dict_without_the_counter(version):
    """As batch norm's in PyTorch: the layer keeps its own."""
    for library in LIBRARIES:
        norm = library.nn.InstanceNorm2d(C, track_running_stats=True)
        state = norm.state_dict()
        del state["num_batches_tracked"]
        with pytest.raises(RuntimeError, match=r'Missing key.*"num_batches_tracked"'):
            norm.load_state_dict(state)
        if version is None:
            del state._metadata[""]["version"]
        else:
            state._metadata[""]["version"] = version
        result = norm.load_state_dict(state)
        assert repr(result) == "<All keys matched successfully>"
        assert norm.num_batches_tracked.item() == 0


def test_the_age_of_torchs_state_dicts_is_read():
    state = torch.nn.InstanceNorm2d(C, track_running_stats=True).state_dict()
    del state["num_batches_tracked"]
    norm = nn.InstanceNorm2d(C, track_running_stats=True)
    with pytest.raises(RuntimeError, match=r'Missing key.*"num_batches_tracked"'):
        norm.load_state_dict(state)
    state._metadata[""]["version"] = 1
    assert norm.load_state_dict(state) == ([], [])


def test_the_versions_in_a_network_are_torchs():
    found, expected = (
        library.nn.Sequential(
            library.nn.Sequential(library.nn.InstanceNorm1d(C), library.nn.ReLU()),
            library.nn.LazyInstanceNorm2d(),
        ).state_dict()
        for library in LIBRARIES
    )
    assert found._metadata == expected._metadata


def test_an_old_state_dict_of_a_network():
    nets = []
    for library in LIBRARIES:
        norm = library.nn.InstanceNorm1d(C, track_running_stats=True)
        nets.append(library.nn.Sequential(norm, library.nn.ReLU(), norm))
    for net in nets:
        state = net.state_dict()
        for prefix in ("0", "2"):
            del state[f"{prefix}.num_batches_tracked"]
        with pytest.raises(RuntimeError, match=r'Missing key.*"0\.num_batches_tracked"'):
            net.load_state_dict(state)
        state._metadata["0"]["version"] = 1
        with pytest.raises(RuntimeError, match=r'Missing key.*"2\.num_batches_tracked"'):
            net.load_state_dict(state)
        state._metadata["2"]["version"] = 1
        assert net.load_state_dict(state) == ([], [])


def test_what_load_state_dict_returns_prints_as_torchs():
    for missing, extra in itertools.product([[], ["weight"]], [[], ["gamma"]]):
        results = []
        for library in LIBRARIES:
            norm = layer(library, 2, C, affine=True)
            state = {k: v for k, v in norm.state_dict().items() if k not in missing}
            state |= {name: array(library, np.ones(C)) for name in extra}
            results.append(repr(norm.load_state_dict(state, strict=False)))
        assert (
            results[0].replace("IncompatibleKeys", "_IncompatibleKeys") == results[1]
            or results[0] == results[1]
        )


# --- casts ------------------------------------------------------------------------


CASTS = {
    "half": lambda net, library: net.half(),
    "double": lambda net, library: net.double(),
    "double, float": lambda net, library: net.double().float(),
    "to dtype": lambda net, library: net.to(dtype_of(library)),
    "to device": lambda net, library: net.to("cpu"),
    "to device, dtype": lambda net, library: net.to("cpu", dtype_of(library)),
    "to names": lambda net, library: net.to(device="cpu", dtype=dtype_of(library)),
    "to Tensor": lambda net, library: net.to(array(library, np.ones(2))),
    "to device None": lambda net, library: net.to(device=None),
    "cpu": lambda net, library: net.cpu(),
}


def dtype_of(library):
    return torch.float64 if library is torch else np.float64


@pytest.mark.parametrize("name", CASTS)
def test_casts_are_torchs(name):
    dtypes = []
    for library in LIBRARIES:
        net = library.nn.Sequential(
            library.nn.InstanceNorm2d(C, affine=True, track_running_stats=True),
            library.nn.LazyInstanceNorm2d(),
        )
        assert CASTS[name](net, library) is net
        of = [*net.parameters(), *net.buffers()]
        dtypes.append([str(tensor.dtype).removeprefix("torch.") for tensor in of])
    assert dtypes[0] == dtypes[1]


def test_casts_elsewhere_are_an_error():
    for arguments in (("cuda",), ("cuda", np.float64), (3.5,)):
        with pytest.raises(ValueError, match="device must be None or 'cpu', got"):
            nn.InstanceNorm2d(C).to(*arguments)


# --- functional -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 2, 3), (2, 3, 1, 2, 2), (2, 3, 1, 2, 1, 2)])
@pytest.mark.parametrize("use_input_stats", [True, False])
def test_functional_instance_norm_in_every_combination(shape, use_input_stats):
    for stats, scaled, shifted, momentum, eps in itertools.product(
        (True, False), (True, False), (True, False), (0, 0.1, 1.0), (1e-5, 1e-1, 1)
    ):
        if not (stats or use_input_stats):
            continue
        results = []
        for library in LIBRARIES:
            x = array(library, normal(*shape)).requires_grad_()
            given = [array(library, np.exp(normal(C, seed=seed))) for seed in range(4)]
            used = [stats, stats, scaled, shifted]
            given = [v if use else None for v, use in zip(given, used, strict=True)]
            for parameter in given[2:]:
                if parameter is not None:
                    parameter.requires_grad_()
            function = F if library is instnorm else torch.nn.functional
            y = function.instance_norm(x, *given, use_input_stats, momentum, eps)
            y.backward(array(library, normal(*shape, seed=9)))
            gradients = [p.grad for p in (x, *given[2:]) if p is not None]
            results.append([y, *gradients, *(v for v in given[:2] if v is not None)])
        for one, other in zip(*results, strict=True):
            assert_close(one, other, 40)


def in_both(*arguments, **options):
    """The same call of functional.instance_norm in either library, arrays being its own."""
    for library, function in ((instnorm, F), (torch, torch.nn.functional)):
        given = [array(library, v) if isinstance(v, np.ndarray) else v for v in arguments]
        named = {
            name: array(library, v) if isinstance(v, np.ndarray) else v
            for name, v in options.items()
        }
        yield lambda given=given, named=named, f=function: f.instance_norm(*given, **named)


X = normal(2, C, 5)
FUNCTIONAL_ERRORS = {
    "weight": ((X,), {"weight": np.ones(C + 1)}),
    "bias": ((X,), {"bias": np.ones(C + 1), "weight": np.ones(C)}),
    "weight, empty": ((X,), {"weight": np.ones(0)}),
    "running_mean": ((X, np.ones(C + 1), np.ones(C)), {}),
    "running_var": ((X, np.ones(C), np.ones(1)), {}),
    "running_mean, eval": ((X, np.ones(C + 1), np.ones(C), None, None, False), {}),
    "running_var, eval": ((X, np.ones(C), np.ones(C + 2), None, None, False), {}),
    "no statistics, eval": ((X,), {"use_input_stats": False}),
    "no mean, eval": ((X, None, np.ones(C)), {"use_input_stats": False}),
    "no variance, eval": ((X, np.ones(C)), {"use_input_stats": False}),
    "no variance": ((X, np.ones(C)), {}),
    "no mean": ((X, None, np.ones(C)), {}),
    "one element": ((X[:, :, :1],), {}),
    "rank": ((X[0],), {}),
    "momentum": ((X, np.ones(C), np.ones(C)), {"momentum": "much"}),
    "eps": ((X,), {"eps": "small"}),
    "unknown": ((X,), {"epsilon": 1e-5}),
}


@pytest.mark.parametrize("name", FUNCTIONAL_ERRORS)
def test_functional_instance_norm_errors_are_torchs(name):
    arguments, options = FUNCTIONAL_ERRORS[name]
    ours, theirs = in_both(*arguments, **options)
    (found, _), (expected, _) = outcome(ours), outcome(theirs)
    assert found is not None
    assert issubclass(found, expected), (found, expected)


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("use_input_stats", [True, False])
def test_a_wrong_shape_is_told_by_name(name, use_input_stats):
    arguments = {n: np.ones(C) for n in ("weight", "bias", "running_mean", "running_var")}
    arguments[name] = np.ones((C, 1))
    with pytest.raises(ValueError, match=rf"^{name} has shape \(3, 1\), expected \(3,\)"):
        F.instance_norm(X, **arguments, use_input_stats=use_input_stats)
    for other in set(arguments) - {name}:
        np.testing.assert_array_equal(arguments[other], 1)
