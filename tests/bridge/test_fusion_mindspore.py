"""Norms of MindSpore networks that apply the activation that follows them.

`make test-mindspore` runs this where MindSpore is installed.
"""

import copy
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, about NumPy and about accelerators
    mindspore = pytest.importorskip("mindspore")
    from helpers.composition import RANKS, SHAPES, C, Composed, composed, exact, losses_of
    from helpers.tensors import normal

    from instnorm.bridge import mindspore as bridge
    from instnorm.bridge.mindspore import operators

nn, mint, ops = mindspore.nn, mindspore.mint, mindspore.ops

in_both_modes = pytest.mark.parametrize("compiled", [False, True], ids=["PyNative", "graph"])
pytestmark = [pytest.mark.mindspore, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Where compiling fails, MindSpore writes files."""
    monkeypatch.chdir(tmp_path)


ACTIVATIONS = {
    "ReLU": nn.ReLU,
    "mint ReLU": mint.nn.ReLU,
    "LeakyReLU": nn.LeakyReLU,
    "LeakyReLU(-0.5)": lambda: nn.LeakyReLU(-0.5),
    "LeakyReLU(2)": lambda: nn.LeakyReLU(2),
    "PReLU": nn.PReLU,
    "PReLU of channels": lambda: nn.PReLU(C, [0.1, 0.0, -0.7]),
    "mint PReLU": mint.nn.PReLU,
}
for_each_activation = pytest.mark.parametrize("make", ACTIVATIONS.values(), ids=ACTIVATIONS)


def fused(net):
    return bridge.convert(net, fuse_activation=True)


def tensor(*shape, seed=0, dtype=mindspore.float32):
    return mindspore.Tensor(normal(*shape, seed=seed), dtype)


def run(net, x, *, compiled):
    return (mindspore.jit(net) if compiled else net)(x)


def differentiate(net, x, g, *, compiled):
    """Return the result and the gradients for input and parameters."""

    def loss(x):
        y = net(x)
        return (y * g).sum(), y

    function = mindspore.value_and_grad(loss, 0, net.trainable_params(), has_aux=True)
    function = mindspore.jit(function) if compiled else function
    (_, y), (dx, gradients) = function(x)
    return y, dx, *gradients


# --- results and gradients ----------------------------------------------------------------


@in_both_modes
@pytest.mark.parametrize("rank", RANKS)
@for_each_activation
def test_results_and_gradients(make, rank, compiled):
    norm = getattr(nn, f"InstanceNorm{rank}d")(C, 1e-3, dtype=mindspore.float64)
    activation = make()
    net = fused(nn.SequentialCell(norm, activation))
    gamma, beta = normal(C, seed=2), normal(C, seed=3)
    norm.gamma.set_data(mindspore.Tensor(gamma))
    norm.beta.set_data(mindspore.Tensor(beta))
    x, g = 2 + 3 * normal(*SHAPES[rank]), normal(*SHAPES[rank], seed=1)
    found = differentiate(net, mindspore.Tensor(x), mindspore.Tensor(g), compiled=compiled)

    slopes = [p.asnumpy().astype(np.float64) for p in activation.trainable_params()]
    slope = slopes[0] if slopes else getattr(activation, "alpha", 0.0)
    expected = exact(x, gamma, beta, 1e-3, g, slope)
    names = ("y", "dx", "dgamma", "dbeta", "dslope")[: 4 + len(slopes)]
    for name, one, value in zip(names, found, expected, strict=False):
        # MindSpore's PReLU has parameters of float32, whatever else is float64.
        atol = 1e-6 if name == "dslope" else 1e-12
        np.testing.assert_allclose(one.asnumpy(), value, rtol=0, atol=atol, err_msg=name)
    assert len(found) == len(names)


@pytest.mark.parametrize("dtype", [mindspore.float16, mindspore.float32], ids=str)
@in_both_modes
@for_each_activation
def test_the_pass_gives_the_bits_of_two(make, compiled, dtype):
    nets = [nn.SequentialCell(nn.InstanceNorm2d(C), make()) for _ in range(2)]
    x, g = tensor(2, C, 8, 8, dtype=dtype), tensor(2, C, 8, 8, seed=1, dtype=dtype)
    one = differentiate(fused(nets[0]), x, g, compiled=compiled)
    other = differentiate(bridge.convert(nets[1]), x, g, compiled=compiled)
    ulp = 2.0 ** (-10 if dtype == mindspore.float16 else -22)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.dtype == theirs.dtype
        theirs = theirs.asnumpy().astype(np.float64)
        atol = ulp * np.abs(theirs).max()
        np.testing.assert_allclose(mine.asnumpy().astype(np.float64), theirs, rtol=0, atol=atol)


@in_both_modes
def test_the_norm_applies_the_activation_and_nobody_else(compiled, monkeypatch):
    calls = []

    def spy(*args, **kwargs):
        calls.append(kwargs.get("activation"))
        return instance_norm(*args, **kwargs)

    instance_norm = operators.instance_norm
    monkeypatch.setattr(operators, "instance_norm", spy)
    net = fused(nn.SequentialCell(nn.InstanceNorm2d(C), nn.LeakyReLU()))
    x = tensor(2, C, 4, 4)
    run(net, x, compiled=compiled).asnumpy()
    assert calls == ["leaky_relu"]
    assert run(net[1], x, compiled=compiled).asnumpy().min() == x.asnumpy().min()


@pytest.mark.parametrize(
    "options",
    [
        operators.Options(1e-3, "relu"),
        operators.Options(1e-3, "leaky_relu", 0.25),
        operators.Options(1e-3, "leaky_relu", None),
    ],
    ids=str,
)
def test_second_derivatives(options):
    operator = operators.InstanceNorm(options)

    def ours(x, gamma, beta, slope):
        return operator(x, gamma, beta, slope)[0]

    def theirs(x, gamma, beta, slope):
        y = composed(x, gamma, beta, 1e-3)
        if options.activation == "relu":
            slope = 0 * slope
        elif options.negative_slope is not None:
            slope = 0 * slope + options.negative_slope
        return ops.where(y > 0, y, y * slope.reshape(1, -1, 1, 1))

    shapes = [(2, C, 4, 3), (C,), (C,), (C,)]
    arguments = [tensor(*s, seed=i, dtype=mindspore.float64) for i, s in enumerate(shapes)]
    cotangents = [tensor(*s, seed=9 + i, dtype=mindspore.float64) for i, s in enumerate(shapes)]
    g = tensor(*shapes[0], seed=5, dtype=mindspore.float64)
    places = (0, 1, 2, 3) if options.negative_slope is None else (0, 1, 2)

    def first_derivatives(norm):
        def total(*arguments):
            def loss(*arguments):
                return (norm(*arguments) ** 2 * g).sum()

            gradients = mindspore.grad(loss, places)(*arguments)
            return sum((d * c).sum() for d, c in zip(gradients, cotangents, strict=False))

        return total

    found, expected = (
        mindspore.grad(first_derivatives(norm), places)(*arguments) for norm in (ours, theirs)
    )
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other.asnumpy()).max() > 0.1
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=0, atol=1e-10)


# --- what is found ------------------------------------------------------------------------


def fused_names(*cells):
    return bridge.converted(fused(nn.SequentialCell(*cells))).fused


def test_found_through_inner_sequences_and_dropouts():
    net = nn.SequentialCell(
        nn.Conv2d(1, C, 3),
        nn.SequentialCell(nn.SequentialCell(nn.InstanceNorm2d(C)), nn.Dropout(p=0.0)),
        nn.Dropout2d(p=0.0),
        nn.SequentialCell(nn.PReLU(C), nn.InstanceNorm2d(C), nn.ReLU()),
        nn.InstanceNorm2d(C),
        nn.Tanh(),
    )
    expected = bridge.convert(net)(tensor(2, 1, 8, 8))
    found = bridge.converted(fused(net))
    assert found == ["1.0.0", "3.1", "4"]
    assert found.fused == {"1.0.0": "prelu", "3.1": "relu"}
    assert bridge.converted(fused(net)).fused == found.fused
    y = net(tensor(2, 1, 8, 8))
    np.testing.assert_allclose(y.asnumpy(), expected.asnumpy(), rtol=0, atol=1e-6)


def test_found_in_sequences_of_other_cells():
    class Block(nn.Cell):
        def __init__(self):
            super().__init__()
            self.body = nn.SequentialCell(nn.InstanceNorm2d(C), nn.LeakyReLU())
            self.norm, self.relu = nn.InstanceNorm2d(C), nn.ReLU()

        def construct(self, x):
            return self.relu(self.norm(self.body(x))) + x

    found = bridge.converted(fused(Block()))
    assert (found, found.fused) == (["body.0", "norm"], {"body.0": "leaky_relu"})


@in_both_modes
def test_what_others_use_is_left_alone(compiled):
    relu = nn.ReLU()
    assert fused_names(nn.InstanceNorm2d(C), relu, nn.InstanceNorm2d(C), relu) == {}
    norm = nn.InstanceNorm2d(C)
    assert fused_names(norm, nn.ReLU(), norm) == {}
    tail = nn.SequentialCell(nn.LeakyReLU(), nn.Conv2d(C, C, 3))
    net = nn.SequentialCell(nn.InstanceNorm2d(C), tail, tail)
    x = tensor(2, C, 4, 4)
    expected = run(bridge.convert(net), x, compiled=compiled).asnumpy()
    assert bridge.converted(fused(net)).fused == {}
    np.testing.assert_array_equal(run(net, x, compiled=compiled).asnumpy(), expected)


def test_what_is_not_of_the_family_is_left_alone():
    class MyReLU(nn.ReLU):
        pass

    class MySequence(nn.SequentialCell):
        def construct(self, x):
            return x

    for cell in (nn.ReLU6(), nn.SiLU(), MyReLU(), nn.PReLU(C + 1), nn.Conv2d(C, C, 1)):
        assert fused_names(nn.InstanceNorm2d(C), cell) == {}
    assert fused_names(MySequence(nn.InstanceNorm2d(C), nn.ReLU())) == {}
    assert fused_names(Composed(C), nn.ReLU(), nn.InstanceNorm2d(C)) == {}


@pytest.mark.parametrize("place", range(4))
def test_cells_with_hooks_are_left_alone(place):
    norm = nn.InstanceNorm2d(C)
    cells = [nn.SequentialCell(norm), norm, nn.Dropout(p=0.0), nn.ReLU()]
    cells[place].register_forward_hook(lambda cell, inputs, output: None)
    assert fused_names(cells[0], cells[2], cells[3]) == {}


def test_a_hook_on_the_norm_sees_what_the_norm_alone_gives():
    net = fused(nn.SequentialCell(nn.InstanceNorm2d(C), nn.PReLU(C)))
    x, seen = tensor(2, C, 4, 4), []
    expected = net(x).asnumpy()
    plain = bridge.InstanceNorm2d(C)(x).asnumpy()
    handle = net[0].register_forward_hook(lambda cell, inputs, output: seen.append(output))
    np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=0, atol=1e-6)
    assert bridge.converted(net).fused == {}
    handle.remove()
    np.testing.assert_array_equal(net(x).asnumpy(), expected)
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0].asnumpy(), plain)


@in_both_modes
@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (mindspore.float16, mindspore.float16, {"0": "leaky_relu"}),
        (mindspore.float16, None, {}),
        (None, mindspore.float16, {}),
        (mindspore.float32, mindspore.float16, {}),
    ],
)
def test_precisions_of_their_own(first, second, names, compiled):
    results = []
    for change in (bridge.convert, fused):
        net = change(nn.SequentialCell(nn.InstanceNorm2d(C), nn.LeakyReLU()))
        for cell, dtype in zip(net, (first, second), strict=True):
            _ = dtype and cell.to_float(dtype)
        results.append(run(net, tensor(2, C, 4, 4), compiled=compiled))
    assert bridge.converted(net).fused == names
    plain, both = results
    assert plain.dtype == both.dtype
    np.testing.assert_allclose(both.asnumpy(), plain.asnumpy(), rtol=0, atol=1e-3 if names else 0)


# --- what stays as it is ------------------------------------------------------------------


def network(make=lambda: nn.PReLU(8), norm=nn.InstanceNorm2d):
    mindspore.set_seed(0)
    return nn.SequentialCell(
        nn.Conv2d(1, 8, 3, weight_init="normal"),
        norm(8),
        make(),
        nn.SequentialCell(nn.Conv2d(8, 8, 3, weight_init="normal"), norm(8)),
        make(),
        nn.Flatten(),
        nn.Dense(8 * 64, 2),
    )


def test_names_checkpoints_and_optimizers_stay_valid(tmp_path):
    net, theirs = network(), network()
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    fused(net)
    assert len(bridge.converted(net).fused) == 2
    assert [p is q for p, q in zip(optimizer.parameters, net.trainable_params(), strict=True)]
    assert [n for n, _ in net.parameters_and_names()] == [
        n for n, _ in theirs.parameters_and_names()
    ]
    assert list(net.parameters_dict()) == list(theirs.parameters_dict())
    for seed, parameter in enumerate(net.get_parameters()):
        parameter.set_data(tensor(*parameter.shape, seed=seed))
    path = str(tmp_path / "net.ckpt")
    mindspore.save_checkpoint(net, path)
    loaded = mindspore.load_checkpoint(path)
    assert list(loaded) == list(theirs.parameters_dict())
    assert mindspore.load_param_into_net(theirs, loaded, strict_load=True) == ([], [])
    x = tensor(2, 1, 8, 8)
    expected = bridge.convert(theirs)(x).asnumpy()
    np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=0, atol=1e-5)


def state(net):
    return {
        id(c): (type(c), sorted(c.__dict__), list(c._primitives)) for _, c in net.cells_and_names()
    }


@pytest.mark.parametrize("make", [nn.ReLU, nn.LeakyReLU, nn.PReLU, mint.nn.PReLU])
def test_revert_gives_the_network_back(make):
    net = network(make)
    before, text = state(net), repr(net)
    assert bridge.revert(fused(net)) is net
    assert (state(net), repr(net)) == (before, text)
    assert bridge.converted(net) == []


@in_both_modes
@pytest.mark.parametrize("part", [0, 1])
def test_revert_of_a_part(part, compiled):
    net = nn.SequentialCell(nn.SequentialCell(nn.InstanceNorm2d(C)), nn.PReLU(C))
    x = tensor(2, C, 4, 4)
    expected = run(fused(net), x, compiled=compiled).asnumpy()
    bridge.revert(net[part])
    assert type(net[1]) is nn.PReLU
    assert bridge.converted(net).fused == {}
    y = run(bridge.convert(net), x, compiled=compiled).asnumpy()
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


@in_both_modes
def test_deep_copies_have_slopes_of_their_own(compiled):
    net = fused(network())
    copied = copy.deepcopy(net)
    assert bridge.converted(copied).fused == bridge.converted(net).fused != {}
    x = tensor(2, 1, 8, 8)
    before = net(x).asnumpy()
    np.testing.assert_array_equal(copied(x).asnumpy(), before)
    copied[2].w.set_data(ops.ones(8, mindspore.float32))
    np.testing.assert_allclose(run(net, x, compiled=compiled).asnumpy(), before, rtol=0, atol=1e-6)
    expected = copied(x).asnumpy()
    assert not np.allclose(expected, before)
    found = run(copied, x, compiled=compiled).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# --- training ---------------------------------------------------------------------------------


@in_both_modes
@pytest.mark.parametrize("make", [nn.ReLU, lambda: nn.PReLU(8)], ids=["ReLU", "PReLU"])
def test_a_network_trains_as_with_composed_operators(make, compiled):
    found = losses_of(fused(network(make)), compiled=compiled)
    expected = losses_of(network(make, Composed), compiled=compiled)
    assert found[-1] < found[0] / 3
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@in_both_modes
@pytest.mark.parametrize("last", [False, True], ids=["recompute, convert", "convert, recompute"])
@pytest.mark.parametrize("whole", [False, True], ids=["cells", "whole"])
def test_recompute(whole, last, compiled):
    net = network()
    if last:
        fused(net)
    for cell in (net,) if whole else net:
        cell.recompute()
    if not last:
        fused(net)
    # A norm that recomputes by itself cannot find the gradient of the PReLU after it.
    assert len(bridge.converted(net).fused) == (2 if whole else 0)
    expected = losses_of(fused(network()), compiled=compiled, steps=5)
    np.testing.assert_allclose(losses_of(net, compiled=compiled, steps=5), expected, rtol=1e-5)


def test_relus_are_applied_where_norms_recompute():
    net = network(nn.ReLU)
    for cell in net:
        cell.recompute()
    assert len(bridge.converted(fused(net)).fused) == 2
    expected = losses_of(fused(network(nn.ReLU)), compiled=False, steps=5)
    np.testing.assert_allclose(losses_of(net, compiled=False, steps=5), expected, rtol=1e-5)


def test_recompute_outlives_revert():
    net = network()
    for cell in net:
        cell.recompute()
    x = tensor(2, 1, 8, 8)
    expected = fused(net)(x).asnumpy()
    # As a layer of operators that run here, in place of MindSpore's own.
    for cell in (bridge.revert(net)[1], net[3][1]):
        cell.__class__ = Composed
        cell.recompute()
    np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=0, atol=1e-5)


def test_recompute_that_keeps_the_code_of_a_cell():
    for place, name in ((1, "InstanceNorm2d"), (2, "AbsorbedPReLU")):
        net = network() if place == 1 else fused(network())
        net[place].recompute(use_reentrant=False)
        before = state(net)
        change = fused if place == 1 else bridge.revert
        with pytest.raises(ValueError, match=f"{name}, recomputes by recompute.use_reentrant=F"):
            change(net)
        assert state(net) == before
    net = network()
    net[2].recompute(use_reentrant=False)
    assert bridge.converted(fused(net)).fused == {"3.1": "prelu"}
