"""First and second derivatives of every layer: by central differences, and those of no data.

Batched inputs in every combination of PyTorch's arguments are in test_instancenorm.py,
MindSpore's in test_mindspore.py; here are unbatched inputs, lazy layers, and empty batches.
"""

import itertools

import numpy as np
import pytest
from helpers.tensors import assert_create_graph_changes_nothing, leaf, normal

import instnorm
from instnorm import Tensor, nn
from instnorm.testing import GradcheckError, gradcheck, gradgradcheck

C = 2
SPATIAL = {1: (4,), 2: (2, 3), 3: (2, 1, 2)}

OPTIONS = [
    {"affine": affine, "bias": bias, "track_running_stats": track, "momentum": momentum, "eps": eps}
    for (affine, bias), (track, momentum), eps in itertools.product(
        [(False, True), (True, False), (True, True)],
        [(False, 0.1), (True, 0.3), (True, None)],
        [1e-5, 0.5],
    )
]

in_every_rank = pytest.mark.parametrize("rank", SPATIAL)
with_all_options = pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda o: ", ".join(f"{k}={v}" for k, v in o.items())
)


def flavours(rank):
    """The layers that accept (2, C, ...), as functions of no argument."""
    yield from (
        lambda options=options: randomized(layer(nn, rank, C, **options)) for options in OPTIONS
    )
    yield from (
        lambda affine=affine: randomized(layer(nn.mindspore, rank, C, affine=affine))
        for affine in (True, False)
    )


def layer(namespace, rank, *arguments, **options):
    kind = getattr(namespace, f"InstanceNorm{rank}d")
    return kind(*arguments, **options, dtype=np.float64)


def randomized(module):
    """The module with random parameters and statistics, the variances positive."""
    for seed, (name, value) in enumerate(module.state_dict().items()):
        if value.ndim:
            new = normal(*value.shape, seed=seed)
            value[...] = np.exp(new) if "var" in name else new
    return module


def check(module, x):
    leaves = [x, *(p for p in module.parameters() if p.requires_grad)]
    # The parameters are reached through the module.
    assert gradcheck(lambda x, *_: module(x), leaves, atol=1e-7, rtol=1e-5)
    assert gradgradcheck(lambda x, *_: module(x), leaves, atol=1e-6, rtol=1e-5)
    assert_create_graph_changes_nothing(module(x), leaves)


@in_every_rank
@with_all_options
def test_of_unbatched_inputs(options, rank):
    module = randomized(layer(nn, rank, C, **options))
    x = leaf(1.5 + 2 * normal(C, *SPATIAL[rank]))
    for training in (True, False):
        check(module.train(training), x)


@in_every_rank
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
def test_of_lazy_layers(rank, batched):
    """The first call, which initializes, is the first of the check."""
    kind = getattr(nn, f"LazyInstanceNorm{rank}d")
    for affine, track in itertools.product((True, False), repeat=2):
        module = kind(affine=affine, track_running_stats=track, dtype=np.float64)
        x = leaf(normal(*((2,) if batched else ()), C, *SPATIAL[rank]))
        assert gradcheck(lambda x: module(x), [x], atol=1e-7, rtol=1e-5)  # noqa: B023
        check(randomized(module), x)


def test_of_a_chain_of_both_flavours():
    """Gradients through statistics of statistics: none of the layers comes first."""
    net = nn.Sequential(
        nn.InstanceNorm1d(C, affine=True, dtype=np.float64),
        nn.Tanh(),
        nn.mindspore.InstanceNorm1d(C, dtype=np.float64),
        nn.Sigmoid(),
        nn.InstanceNorm1d(C, track_running_stats=True, dtype=np.float64),
    )
    for training in (True, False):
        check(randomized(net).train(training), leaf(normal(2, C, 4)))


def test_a_wrong_gradient_is_found():
    """The checks above would see statistics that are taken for constants."""
    module = layer(nn, 2, C)
    x = leaf(normal(2, C, 2, 3))

    def with_constant_statistics(x):
        mean = x.detach().mean((2, 3), keepdim=True)
        var = (x.detach() - mean) ** 2
        return (x - mean) / (var.mean((2, 3), keepdim=True) + module.eps).sqrt()

    np.testing.assert_allclose(with_constant_statistics(x).data, module(x).data, atol=1e-12)
    with pytest.raises(GradcheckError):
        gradcheck(with_constant_statistics, [x], atol=1e-7, rtol=1e-5)


# --- no data --------------------------------------------------------------------


@in_every_rank
@pytest.mark.parametrize("training", [True, False])
def test_of_an_empty_batch(rank, training):
    """Gradients of parameters are zero, by kernels and by the graph, and statistics stay."""
    for make in flavours(rank):
        module = make().train(training)
        before = {name: value.copy() for name, value in module.state_dict().items()}
        x = leaf(np.zeros((0, C, *SPATIAL[rank])))
        learned = [p for p in module.parameters() if p.requires_grad]
        y = module(x)
        assert y.shape == x.shape
        y.backward(np.zeros(x.shape), retain_graph=True)
        gradients = instnorm.grad(y, [x, *learned], Tensor(np.zeros(x.shape)), create_graph=True)
        for tensor, gradient in zip([x, *learned], gradients, strict=True):
            assert gradient.shape == tensor.shape == tensor.grad.shape
            assert not gradient.data.any()
            assert not tensor.grad.data.any()
        second = [g.sum() for g in gradients]
        if learned:
            seconds = instnorm.grad(sum(second[1:], second[0]), [x], allow_unused=True)
            assert seconds[0] is None or seconds[0].shape == x.shape
        for name, value in module.state_dict().items():
            np.testing.assert_array_equal(value, before[name])


@in_every_rank
def test_of_no_channels(rank):
    module = layer(nn, rank, 0, affine=True, track_running_stats=True)
    x = leaf(np.zeros((2, 0, *SPATIAL[rank])))
    for training in (True, False):
        module.train(training)(x).backward(np.zeros(x.shape))
        assert x.grad.shape == x.shape
        assert module.weight.grad.shape == module.bias.grad.shape == (0,)


@in_every_rank
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
def test_statistics_are_updated_once_a_call_and_not_by_derivatives(rank, batched):
    module = randomized(layer(nn, rank, C, affine=True, track_running_stats=True))
    twin = randomized(layer(nn, rank, C, affine=True, track_running_stats=True))
    x = normal(*((2,) if batched else ()), C, *SPATIAL[rank])
    twin(x)
    y = module(leaf(x))
    grads = instnorm.grad(y, list(module.parameters()), Tensor(normal(*y.shape)), create_graph=True)
    grads[0].sum().backward()
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value, twin.state_dict()[name])
