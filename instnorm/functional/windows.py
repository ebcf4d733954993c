"""Geometry of images: the measures of windows, nearest neighbours, padding."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from instnorm._layouts import Array

# What a function takes for its spatial axes: one number for all, or one for each.
Numbers: TypeAlias = int | Sequence[int]
Pad: TypeAlias = tuple[int, int]
AdaptiveSize: TypeAlias = int | Sequence[int | None] | None


def per_axis(value: Any, axes: int, name: str, least: int) -> tuple[int, ...]:
    """One integer for all spatial axes, or one for each, as a tuple; all at least `least`."""
    if type(value) is int:
        numbers: tuple[int, ...] = (value,) * axes
    else:
        numbers = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,) * axes
        if len(numbers) == 1:
            numbers *= axes
        if len(numbers) != axes or not all(
            isinstance(v, int | np.integer) and not isinstance(v, bool) for v in numbers
        ):
            count = {1: "an integer", 2: "an integer or two", 3: "an integer or three"}[axes]
            raise TypeError(f"{name} must be {count}, got {value!r}")
        numbers = tuple([int(v) for v in numbers])
    if min(numbers) < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return numbers


def check_named_padding(padding: str, stride: tuple[int, ...]) -> None:
    """Refuse a name of padding that is none, or 'same' with a stride."""
    if padding not in ("valid", "same"):
        raise ValueError(f"padding must be integers, 'valid' or 'same', got {padding!r}")
    if padding == "same" and max(stride) > 1:
        raise ValueError(f"padding='same' needs stride 1, got stride {stride}")


def output_lengths(
    lengths: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """How many places a window has along each axis.

    With `ceil_mode`, one more where the last one reaches beyond the padded input, if it begins
    before the padding at the end does.
    """
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    padded = [n + 2 * p for n, p in zip(lengths, padding, strict=True)]
    if any(r > p for r, p in zip(reach, padded, strict=True)):
        raise ValueError(
            f"kernel_size {kernel} with dilation {dilation} spans {tuple(reach)} pixels, more "
            f"than the padded input of {tuple(padded)}"
        )
    counts = [(p - r) // s + 1 for p, r, s in zip(padded, reach, stride, strict=True)]
    if ceil_mode:
        for i, (p, r, s) in enumerate(zip(padded, reach, stride, strict=True)):
            further = (p - r) % s > 0 and counts[i] * s < lengths[i] + padding[i]
            counts[i] += further
    return tuple(counts)


def _integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be of integers, got {value!r}") from None


def _single_places(lengths: tuple[int, ...]) -> list[Array]:
    """The places of the axes of one element that images lack to have three."""
    return [np.zeros(3 - len(lengths), np.int32)]


# --- nearest neighbours -----------------------------------------------------------


def nearest_lengths(
    spatial: tuple[int, ...], size: Any, scale_factor: Any
) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """The new length of each spatial axis, checked; and the factors where these are given."""
    given, name = (size, "size") if size is not None else (scale_factor, "scale_factor")
    values = tuple(given) if isinstance(given, Sequence) else (given,) * len(spatial)
    if len(values) != len(spatial):
        raise ValueError(
            f"{name} has {len(values)} entries, expected one for each of the "
            f"{len(spatial)} spatial axes"
        )
    lengths = tuple(
        [
            _integer(value, "size") if size is not None else _scaled(length, value)
            for value, length in zip(values, spatial, strict=True)
        ]
    )
    for new, length in zip(lengths, spatial, strict=True):
        if new < 1:
            raise ValueError(f"{name}={given} leaves no element of an axis of length {length}")
    return lengths, None if size is not None else values


def _scaled(length: int, factor: float) -> int:
    if not math.isfinite(factor):
        raise ValueError(f"scale_factor must be finite, got {factor}")
    return math.floor(length * factor)


@functools.lru_cache(maxsize=256)
def nearest_places(
    spatial: tuple[int, ...], lengths: tuple[int, ...], factors: tuple[float, ...] | None
) -> Array:
    """For each of three spatial axes, which element of it an element of the result is."""
    places = _single_places(spatial)
    for i, (length, new) in enumerate(zip(spatial, lengths, strict=True)):
        # In float32, as in PyTorch: exact arithmetic would choose another element now and then.
        if factors is None:
            step = np.float32(length) / np.float32(new)
        else:
            step = np.float32(1 / factors[i])
        source = np.floor(np.arange(new, dtype=np.float32) * step).astype(np.int32)
        places.append(np.minimum(source, length - 1))
    return np.concatenate(places)


# --- padding -----------------------------------------------------------------------

PAD_MODES = ("constant", "reflect", "replicate", "circular")


def pad_widths(shape: tuple[int, ...], pad: Sequence[int], mode: str) -> tuple[Pad, ...]:
    """``(before, after)`` for each axis of an array of `shape`, checked."""
    widths = [_integer(p, "pad") for p in pad]
    if len(widths) % 2 or len(widths) > 2 * len(shape):
        raise ValueError(
            f"pad has {len(widths)} entries, expected 2 for each of the last axes "
            f"of an input of shape {shape}"
        )
    pairs = [(0, 0)] * len(shape)
    for i in range(len(widths) // 2):
        axis, before, after = len(shape) - 1 - i, widths[2 * i], widths[2 * i + 1]
        if min(before, after) < 0:
            raise ValueError(f"pad must not be negative, got {tuple(widths)}")
        if mode == "reflect" and max(before, after) >= shape[axis]:
            raise ValueError(
                f"pad ({before}, {after}) must be less than the length {shape[axis]} of the axis "
                "that it reflects"
            )
        if mode == "circular" and max(before, after) > shape[axis]:
            raise ValueError(
                f"pad ({before}, {after}) must be at most the length {shape[axis]} of the axis "
                "that it goes around"
            )
        pairs[axis] = (before, after)
    return tuple(pairs)


@functools.lru_cache(maxsize=256)
def pad_places(lengths: tuple[int, ...], pairs: tuple[Pad, ...], mode: str) -> Array:
    """For each of three spatial axes, which element an element of the result is, -1 for 0."""
    places = _single_places(lengths)
    for length, (before, after) in zip(lengths, pairs, strict=True):
        place = np.arange(-before, length + after)
        if mode == "reflect":
            place = length - 1 - np.abs(length - 1 - np.abs(place))
        elif mode == "replicate":
            place = place.clip(0, length - 1)
        elif mode == "circular":
            place %= length
        else:
            place[(place < 0) | (place >= length)] = -1
        places.append(place.astype(np.int32))
    return np.concatenate(places)
