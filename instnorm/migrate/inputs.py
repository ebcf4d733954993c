"""Random input for a model: of the shape that its first layer takes, unless one is told."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from instnorm._layouts import Array
from instnorm.migrate.models import Layer, layers_of

# Long enough for a few layers of stride 2, and soon computed.
_SIDE = {1: 64, 2: 64, 3: 16}


class InputSpec(NamedTuple):
    """The shape and dtype of an argument."""

    shape: tuple[int, ...]
    dtype: str = "float32"


def likely_inputs(model: Any) -> list[InputSpec]:
    """Return what the first layer of the table takes; nothing where there is none."""
    for layer in layers_of(model):
        if layer.kind is not None:
            return [_taken_by(layer)]
    return []


def _taken_by(layer: Layer) -> InputSpec:
    assert layer.kind is not None
    module, name = layer.module, layer.kind.pytorch
    if name == "Embedding":
        return InputSpec((2, 8), "int64")
    if name == "Linear":
        return InputSpec((2, module.in_features))
    if name == "LayerNorm":
        return InputSpec((2, *layer.normalized_shape()))
    if name in ("GroupNorm", "PReLU"):
        channels = getattr(module, "num_channels", getattr(module, "num_parameters", 1))
        return InputSpec((2, channels, 16, 16))
    rank = int(name[-2])
    channels = getattr(module, "in_channels", None) or module.num_features
    return InputSpec((2, channels, *(_SIDE[rank],) * rank))


def random_input(spec: InputSpec, random: np.random.Generator, model: Any) -> Array:
    """Return normal random numbers, or whole ones that all embeddings of the model have rows for.

    Parameters
    ----------
    spec : InputSpec
    random : numpy.random.Generator
    model : module
    """
    if np.dtype(spec.dtype).kind == "f":
        return random.standard_normal(spec.shape).astype(spec.dtype)
    sizes = [getattr(layer.module, "num_embeddings", None) for layer in layers_of(model)]
    below = min((size for size in sizes if size), default=2)
    return random.integers(0, below, spec.shape).astype(spec.dtype)
