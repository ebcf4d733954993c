"""Random models of every layer of the table of layers, the same in PyTorch and in MindSpore.

Names, nesting and what is shared are random. All layers take and return (N, 4, 4, 4): those of
other shapes are wrapped. What PyTorch's constructor is in MindSpore is told by `advise`, so that
this holds its calls too.
"""

import importlib
import random
import warnings

import numpy as np
import torch

from instnorm.migrate.advice import advise

CHANNELS, SIDE = 4, 4
# Of PyTorch's, by the shape that they take: the rank of a spatial layer, or "last" for the last
# axis alone.
LAYERS = {
    1: (
        "Conv1d(4, 4, 3, padding=1)",
        "Conv1d(4, 4, 1, bias=False)",
        "ConvTranspose1d(4, 4, 3, padding=1)",
        "InstanceNorm1d(4)",
        "InstanceNorm1d(4, affine=True)",
        "BatchNorm1d(4)",
        "WEIGHT_NORM(Conv1d(4, 4, 3, padding=1))",
    ),
    2: (
        "Conv2d(4, 4, 3, padding=1)",
        'Conv2d(4, 4, (1, 3), padding="same", bias=False)',
        "Conv2d(4, 4, 1, groups=2)",
        "ConvTranspose2d(4, 4, 3, padding=1)",
        "ConvTranspose2d(4, 4, 1, bias=False)",
        "InstanceNorm2d(4)",
        "InstanceNorm2d(4, eps=0.01, affine=True)",
        "InstanceNorm2d(4, affine=True, bias=False)",
        "BatchNorm2d(4)",
        "BatchNorm2d(4, affine=False)",
        "GroupNorm(2, 4)",
        "GroupNorm(2, 4, affine=False)",
        "PReLU(4)",
        "PReLU()",
        "LeakyReLU(0.1)",
        "OLD_WEIGHT_NORM(Conv2d(4, 4, 3, padding=1))",
        "WEIGHT_NORM(ConvTranspose2d(4, 4, 3, padding=1))",
    ),
    3: (
        "Conv3d(4, 4, 3, padding=1)",
        "ConvTranspose3d(4, 4, 3, padding=1, bias=False)",
        "InstanceNorm3d(4, affine=True)",
        "BatchNorm3d(4)",
    ),
    "last": (
        "Linear(4, 4)",
        "Linear(4, 4, bias=False)",
        "LayerNorm(4, eps=0.1)",
        "LayerNorm(4, eps=0.1, bias=False)",
        "LayerNorm(4, eps=0.1, elementwise_affine=False)",
        "GELU()",
    ),
}
EVERY = [(shape, text) for shape, texts in LAYERS.items() for text in texts]
NAMES = ("conv", "norm", "bn2d", "weight_", "act", "block1", "x", "body", "g", "enc.oder"[:3], "fc")


def made(text):
    """A layer of PyTorch's by its constructor call."""
    utils = torch.nn.utils
    names = {name: getattr(torch.nn, name) for name in dir(torch.nn)}
    names["WEIGHT_NORM"] = utils.parametrizations.weight_norm
    names["OLD_WEIGHT_NORM"] = utils.weight_norm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old weight norm is deprecated
        return eval(text, names)


def shaped(shape, x):
    n = x.shape[0]
    return {
        1: lambda: x.reshape(n, CHANNELS, -1),
        3: lambda: x.reshape(n, CHANNELS, 1, SIDE, SIDE),
    }.get(shape, lambda: x)()


class Tree:
    """A random tree of containers; leaves are numbers of layers, some of them more than once."""

    def __init__(self, seed, layers=EVERY):
        self.random = random.Random(seed)
        self.layers = list(layers)
        self.random.shuffle(self.layers)
        leaves = list(range(len(self.layers)))
        shared = [i for i in leaves if "ReLU" in self.layers[i][1] or "Norm2d" in self.layers[i][1]]
        leaves += self.random.sample(shared, min(2, len(shared)))
        self.random.shuffle(leaves)
        self.root = self.nested(leaves)

    def nested(self, leaves):
        if len(leaves) <= 3:
            children = [("leaf", i) for i in leaves]
        else:
            cuts = sorted(self.random.sample(range(1, len(leaves)), 2))
            parts = [leaves[: cuts[0]], leaves[cuts[0] : cuts[1]], leaves[cuts[1] :]]
            children = [self.nested(part) for part in parts]
        kind = self.random.choice(["sequential", "list", "named"])
        names = self.random.sample(NAMES, len(children))
        return kind, list(zip(names, children, strict=True))


def pytorchs(tree):
    """The tree as a model of PyTorch's, with random values."""
    nn = torch.nn

    class Shaped(nn.Module):
        def __init__(self, shape, inner):
            super().__init__()
            self.shape, self.inner = shape, inner

        def forward(self, x):
            return self.inner(shaped(self.shape, x)).reshape(x.shape)

    class Listed(nn.Module):
        def __init__(self, children):
            super().__init__()
            self.steps = nn.ModuleList(children)

        def forward(self, x):
            for step in self.steps:
                x = step(x)
            return x

    class Named(nn.Module):
        def __init__(self, names, children):
            super().__init__()
            self.order = names
            for name, child in zip(names, children, strict=True):
                setattr(self, name, child)

        def forward(self, x):
            for name in self.order:
                x = getattr(self, name)(x)
            return x

    class Whole(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.embedding, self.body = nn.Embedding(9, 4), body

        def forward(self, numbers):
            return self.body(self.embedding(numbers).permute(0, 3, 1, 2))

    torch.manual_seed(0)
    leaves = [Shaped(shape, made(text)) for shape, text in tree.layers]
    builders = {"sequential": lambda n, c: nn.Sequential(*c), "list": lambda n, c: Listed(c)}
    model = Whole(built(tree.root, leaves, builders | {"named": Named}))
    randomize(model)
    return model.eval()


def randomize(model):
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                value.fill_(7)
            elif "running_var" in name:
                value.uniform_(0.5, 2)
            elif value.dtype.is_floating_point:
                value.normal_(0, 0.7)


def mindspores(tree, model):
    """The same as a model of MindSpore's; `model` is the one of PyTorch's."""
    importlib.import_module("instnorm.bridge.mindspore")  # which settles NumPy
    mindspore = importlib.import_module("mindspore")
    nn = mindspore.nn

    class Shaped(nn.Cell):
        def __init__(self, shape, inner):
            super().__init__()
            self.shape_of, self.inner = shape, inner

        def construct(self, x):
            return self.inner(shaped(self.shape_of, x)).reshape(x.shape)

    class Listed(nn.Cell):
        def __init__(self, children):
            super().__init__()
            self.steps = nn.CellList(children)

        def construct(self, x):
            for step in self.steps:
                x = step(x)
            return x

    class Named(nn.Cell):
        def __init__(self, names, children):
            super().__init__()
            self.order = names
            for name, child in zip(names, children, strict=True):
                setattr(self, name, child)

        def construct(self, x):
            for name in self.order:
                x = getattr(self, name)(x)
            return x

    class Whole(nn.Cell):
        def __init__(self, body):
            super().__init__()
            self.embedding, self.body = nn.Embedding(9, 4), body

        def construct(self, numbers):
            return self.body(self.embedding(numbers).transpose((0, 3, 1, 2)))

    calls = [advise(made(text))[0].call for _, text in tree.layers]
    leaves = [
        Shaped(shape, call.made(nn)) for (shape, _), call in zip(tree.layers, calls, strict=True)
    ]
    builders = {"sequential": lambda n, c: nn.SequentialCell(*c), "list": lambda n, c: Listed(c)}
    return Whole(built(tree.root, leaves, builders | {"named": Named}))


def built(node, leaves, builders):
    kind, content = node
    if kind == "leaf":
        return leaves[content]
    names = [name for name, _ in content]
    return builders[kind](names, [built(child, leaves, builders) for _, child in content])


def numbers(seed=0):
    """Input for the models."""
    return np.random.default_rng(seed).integers(0, 9, (2, SIDE, SIDE))
