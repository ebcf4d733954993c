"""Copies of an array in every memory layout: the same values, elsewhere in memory."""

import numpy as np


def in_order(array, axes):
    """A dense copy whose axes lie in memory in this order, the innermost last."""
    return np.array(array.transpose(axes), order="C").transpose(np.argsort(axes))


def contiguous(array):
    return np.array(array, order="C")


def channels_last(array):
    return in_order(array, (0, *range(2, array.ndim), 1))


def backwards(array):
    """Negative strides on every axis."""
    turned = (slice(None, None, -1),) * array.ndim
    return np.array(array[turned], order="C")[turned]


def cut_out(array, margin, dense=contiguous):
    """A view into a larger array in the layout `dense`, `margin[axis]` elements from its ends."""
    larger = dense(np.full([n + 2 * m for n, m in zip(array.shape, margin, strict=True)], 77))
    larger = larger.astype(array.dtype, order="K")
    view = larger[tuple(slice(m, m + n) for n, m in zip(array.shape, margin, strict=True))]
    view[...] = array
    return view


def cropped(array, dense=contiguous):
    return cut_out(array, (0, 0, *[1] * (array.ndim - 2)), dense)


def some_of_the_channels(array, dense=contiguous):
    return cut_out(array, (0, 3, *[0] * (array.ndim - 2)), dense)


def every_other(array, dense=contiguous):
    """A view with something else between all elements."""
    larger = dense(np.full([2 * n for n in array.shape], 77)).astype(array.dtype, order="K")
    view = larger[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


def at_offset(array, nbytes):
    """A copy, in the order of `array`, which starts `nbytes` after a multiple of 64 bytes."""
    axes = np.argsort([-stride for stride in array.strides], kind="stable")
    memory = np.empty(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + nbytes
    ordered = array.transpose(axes)
    view = memory[start : start + array.nbytes].view(array.dtype).reshape(ordered.shape)
    view[...] = ordered
    return view.transpose(np.argsort(axes))


def byte_swapped(array):
    return array.astype(array.dtype.newbyteorder(), order="K")


def read_only(array):
    copy = array.copy(order="K")
    copy.flags.writeable = False
    return copy


DENSE = {
    "contiguous": contiguous,
    "channels last": channels_last,
    "Fortran": lambda a: np.array(a, order="F"),
    "batch innermost": lambda a: in_order(a, (*range(1, a.ndim), 0)),
    "channels outermost": lambda a: in_order(a, (1, 0, *range(2, a.ndim))),
    "channels among the spatial axes": lambda a: in_order(a, (0, 2, 1, *range(3, a.ndim))),
    "spatial axes reversed": lambda a: in_order(a, (0, 1, *reversed(range(2, a.ndim)))),
    "channels last, spatial axes reversed": lambda a: in_order(
        a, (0, *reversed(range(2, a.ndim)), 1)
    ),
}

LAYOUTS = {
    **DENSE,
    "backwards": backwards,
    "channels last, backwards": lambda a: channels_last(a[:, :, ::-1])[:, :, ::-1],
    "channels last, channels backwards": lambda a: channels_last(a[:, ::-1])[:, ::-1],
    "cropped": cropped,
    "channels last, cropped": lambda a: cropped(a, channels_last),
    "some of the channels": some_of_the_channels,
    "channels last, some of the channels": lambda a: some_of_the_channels(a, channels_last),
    "every other": every_other,
    "channels last, every other": lambda a: every_other(a, channels_last),
    "unaligned": lambda a: at_offset(contiguous(a), 1),
    "channels last, unaligned": lambda a: at_offset(channels_last(a), 1),
    "byte-swapped": byte_swapped,
    "channels last, byte-swapped": lambda a: byte_swapped(channels_last(a)),
    "read-only": lambda a: read_only(contiguous(a)),
    "channels last, read-only": lambda a: read_only(channels_last(a)),
}
# Enough where memory layouts are not the point of the test.
COMMON = {
    "contiguous": contiguous,
    "channels last": channels_last,
    "Fortran": LAYOUTS["Fortran"],
    "every other, backwards": lambda a: every_other(a[..., ::-1])[..., ::-1],
}
WRITEABLE = {name: layout for name, layout in LAYOUTS.items() if "read-only" not in name}


def result_strides(x):
    """Strides of a result that keeps the memory layout of `x`."""
    return np.empty_like(x, subok=False).strides


def memory_order(array):
    """The axes longer than 1, from the largest stride to the smallest."""
    axes = [axis for axis, size in enumerate(array.shape) if size > 1]
    return sorted(axes, key=lambda axis: -array.strides[axis])
