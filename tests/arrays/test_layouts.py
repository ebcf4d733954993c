"""Every memory layout: the numbers are those of the twin, the layout is that of the input."""

import itertools
import os

import ml_dtypes
import numpy as np
import pytest
from helpers import looped, reference, run_python
from helpers.layouts import (
    DENSE,
    LAYOUTS,
    WRITEABLE,
    at_offset,
    channels_last,
    memory_order,
    result_strides,
)
from helpers.problems import DTYPES, assert_right, posed, problem, same_bits, solve
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import instnorm
from instnorm import functional as F
from instnorm import instance_norm, instance_norm_backward, nn
from instnorm._runtime import simd
from instnorm.testing import gradcheck, gradgradcheck

FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = DTYPES
FULL = [FLOAT32, FLOAT64]
RESOLUTION = {dtype: float(ml_dtypes.finfo(dtype).eps) for dtype in DTYPES}

in_every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
in_every_layout = looped("layout", LAYOUTS)
in_both_layouts = pytest.mark.parametrize("layout", ["contiguous", "channels last"])

# Where statistics are of one row or a few, of many rows of few or of many elements, and of
# so much that threads share them.
SIZES = [(2, 3, 4, 5), (3, 16, 9, 11), (1, 65, 40, 3), (2, 320, 6, 6, 6), (1, 3, 120, 121)]
LARGE = [
    ((1, 3, 700, 701), FLOAT32),
    ((3, 64, 9, 1000), FLOAT32),
    ((1, 1, 1000, 1000), FLOAT16),
    ((1, 512, 49, 50), BFLOAT16),
    ((2, 33, 70, 71), FLOAT64),
]


def sample(shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def assert_keeps_layout(result, x):
    assert type(result) is np.ndarray
    assert result.dtype == x.dtype
    assert result.strides == result_strides(x)
    assert result.flags.writeable
    assert not np.may_share_memory(result, x)


# --- values and layout of the results --------------------------------------------------


@in_every_layout
@in_every_dtype
@pytest.mark.parametrize(
    "shape", [(2, 3, 7), (2, 3, 4, 5), (2, 3, 2, 3, 4), (1, 3, 4, 5), (2, 1, 3, 5), (1, 1, 2, 1, 3)]
)
def test_small_arrays(shape, dtype, layout):
    for affine in (False, True):
        p = problem(shape, dtype, affine=affine)
        x, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
        results = solve(p, x, g)
        assert_right(p, results)
        assert_keeps_layout(results[0], x)
        assert_keeps_layout(results[1], x)
        assert (x == p.x).all()
        assert (g == p.grad_output).all()


@in_every_layout
@pytest.mark.parametrize("shape", SIZES[1:])
def test_larger_arrays(shape, layout):
    p = problem(shape, FLOAT32)
    x, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
    results = solve(p, x, g)
    assert_right(p, results)
    assert_keeps_layout(results[0], x)
    assert_keeps_layout(results[1], x)


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("layouts", [("channels last",) * 2, ("channels last", "contiguous"),
                                     ("contiguous", "channels last"), ("contiguous",) * 2],
                         ids=" and ".join)  # fmt: skip
@pytest.mark.parametrize(("shape", "dtype"), LARGE, ids=str)
def test_large_arrays(shape, dtype, layouts):
    instnorm.set_num_threads(2)
    p = problem(shape, dtype, FLOAT32)
    x, g = LAYOUTS[layouts[0]](p.x), LAYOUTS[layouts[1]](p.grad_output)
    assert_right(p, solve(p, x, g))


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 7, 16, 17, 31, 64, 65, 320, 512, 513])
def test_any_number_of_channels(channels, batch, dtype, layout):
    p = problem((batch, channels, 5, 7), dtype, FLOAT32)
    assert_right(p, solve(p, LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)))


@in_every_dtype
@pytest.mark.parametrize("channels", [33, 36, 40, 50, 100, 127, 200, 250])
def test_pixels_taken_together_for_the_sake_of_the_lanes(channels, dtype):
    p = problem((2, channels, 29, 37), dtype, FLOAT32)
    assert_right(p, solve(p, channels_last(p.x), channels_last(p.grad_output)))


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("varied", ["row length", "channels"])
def test_every_size_up_to_200(varied, dtype, layout):
    for n in range(2, 201):
        p = problem((2, 3, n) if varied == "row length" else (2, n, 5), dtype, FLOAT32)
        x, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
        assert_right(p, solve(p, x, g))


# Of what `forward_small` and `backward_small` take: with both kinds of rows, and sizes of one.
SMALL = [(1, 3, 2, 2), (2, 3, 5), (2, 1, 3, 5), (1, 5, 1, 4), (3, 17, 2, 3, 2), (2, 3, 20, 20)]


def assert_the_same_bits(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert a.strides == b.strides
        np.testing.assert_array_equal(a, b)


def assert_small_is_as_large(x, g, weight, bias):
    """An `out` is what the entries for small arrays do not take."""
    forward = instance_norm(x, weight, bias, return_stats=True)
    options = {"mean": forward[1], "rstd": forward[2]}
    backward = instance_norm_backward(g, x, weight, **options)
    assert_the_same_bits(
        forward, instance_norm(x, weight, bias, return_stats=True, out=np.empty_like(x))
    )
    assert_the_same_bits([instance_norm(x, weight, bias)], forward[:1])
    assert_the_same_bits(
        backward, instance_norm_backward(g, x, weight, **options, out=np.empty_like(x))
    )


def is_taken(*arrays):
    """Whether the entries for small arrays are to take them: all in one of the two layouts."""
    return all(a.flags.aligned and a.dtype.isnative for a in arrays) and (
        all(a.flags.c_contiguous for a in arrays)
        or (
            not arrays[0].flags.c_contiguous
            and all(np.moveaxis(a, 1, -1).flags.c_contiguous for a in arrays)
        )
    )


@in_every_layout
@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize("shape", SMALL)
def test_small_arrays_in_both_layouts_have_the_bits_of_larger_ones(shape, dtype, layout):
    p = problem(shape, dtype, dtype)
    x = LAYOUTS[layout](p.x)
    took = simd.kernels.forward_small(x, p.weight, p.bias, 1e-5, True)
    assert (took is not None) == is_taken(x)
    for g_layout in ("contiguous", "channels last", "Fortran", layout):
        g = LAYOUTS[g_layout](p.grad_output)
        if took is not None:
            found = simd.kernels.backward_small(g, x, p.weight, *took[1:], True)
            assert (found is not None) == is_taken(x, g)
        assert_small_is_as_large(x, g, p.weight, p.bias)
        assert_right(p, solve(p, x, g))


@in_both_layouts
@pytest.mark.parametrize("step", [-3, 0, 1, 1000])
@pytest.mark.parametrize(
    "shape", [(1, 3, 2, 2), (2, 1, 3, 4), (2, 3, 1, 4), (2, 3, 4, 1), (1, 1, 6)]
)
def test_small_arrays_whose_axes_of_one_element_have_any_stride(shape, step, layout):
    p = problem(shape, FLOAT32, FLOAT32)

    def strided(array):
        array = LAYOUTS[layout](array)
        strides = [4 * step if n == 1 else s for n, s in zip(shape, array.strides, strict=True)]
        return np.lib.stride_tricks.as_strided(array, shape, strides)

    x, g = strided(p.x), strided(p.grad_output)
    assert simd.kernels.forward_small(x, p.weight, p.bias, 1e-5, False) is not None
    assert_small_is_as_large(x, g, p.weight, p.bias)
    assert_right(p, solve(p, x, g))


@in_both_layouts
@pytest.mark.parametrize("rows", [255, 256, 257, 600])
def test_small_arrays_of_many_rows_without_their_statistics(rows, layout):
    x = LAYOUTS[layout](sample((1, rows, 3), FLOAT32))
    assert_the_same_bits([instance_norm(x)], instance_norm(x, return_stats=True)[:1])


SINGLETONS = [(1, 1, 5, 7), (1, 3, 5, 7), (2, 1, 5, 7), (2, 3, 1, 7), (2, 3, 5, 1), (2, 3, 1, 1, 4)]


@in_every_layout
@in_every_dtype
def test_layout_with_axes_of_one_element(dtype, layout):
    """Their strides mean nothing, and those of the result are NumPy's all the same."""
    for shape in SINGLETONS:
        x = LAYOUTS[layout](sample(shape, dtype))
        y, mean, rstd = instance_norm(x, return_stats=True)
        grad_input, *_ = instance_norm_backward(x, x, mean=mean, rstd=rstd)
        assert_keeps_layout(y, x)
        assert_keeps_layout(grad_input, x)


@in_every_layout
@in_every_dtype
@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_in_mixed_layouts(batch, dtype, layout):
    """PyTorch 2.13 gets these wrong for a batch of one and a channels-last gradient."""
    p = problem((batch, 3, 4, 5), dtype)
    x = LAYOUTS[layout](p.x)
    for name, g_layout in LAYOUTS.items():
        results = solve(p, x, g_layout(p.grad_output))
        assert_right(p, results, f"grad_output is {name}")
        assert results[1].strides == result_strides(x)


@pytest.mark.parametrize("layouts", [("contiguous", "channels last"), ("Fortran", "contiguous"),
                                     ("channels last", "contiguous"), ("channels last", "cropped")],
                         ids=" and ".join)  # fmt: skip
@in_every_dtype
@pytest.mark.parametrize("shape", SIZES)
def test_larger_gradients_in_mixed_layouts(shape, dtype, layouts):
    p = problem(shape, dtype)
    x, g = LAYOUTS[layouts[0]](p.x), LAYOUTS[layouts[1]](p.grad_output)
    assert_right(p, solve(p, x, g))


@in_every_dtype
@pytest.mark.parametrize("over", [(0,), (1,), (2,), (3,), (0, 1), (2, 3), (1, 3), (0, 1, 2, 3)])
def test_broadcast_arrays(over, dtype):
    shape = (2, 3, 4, 5)
    held = [1 if axis in over else n for axis, n in enumerate(shape)]
    p = problem(shape, dtype)
    x = np.broadcast_to(p.x[tuple(slice(n) for n in held)], shape)
    g = np.broadcast_to(p.grad_output[tuple(slice(n) for n in held)], shape)
    for both in [(x, p.grad_output), (p.x, g), (x, g)]:
        q = posed(*both, p.weight, p.bias)
        results = solve(q)
        assert_right(q, results)
        assert results[0].flags.writeable
        assert results[0].strides == result_strides(q.x)


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("own", ["mean", "var", None])
@pytest.mark.parametrize("shape", SIZES[:3])
def test_given_statistics(shape, own, dtype, layout):
    given = {"mean": sample(shape[:2], seed=2), "var": np.exp(sample(shape[:2], seed=3))}
    given.pop(own, None)
    p = problem(shape, dtype)
    x, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
    y, mean, rstd = instance_norm(x, p.weight, p.bias, **given, return_stats=True)
    assert mean.shape == rstd.shape == shape[:2]
    resolution = 4 * RESOLUTION[dtype]
    expected = reference.forward(p.x, p.weight, p.bias, **given)
    assert (np.abs(y - expected) <= resolution * np.abs(expected).max()).all()
    assert_keeps_layout(y, x)

    gradients = instance_norm_backward(g, x, p.weight, mean=mean, rstd=rstd, use_input_stats=False)
    expected = reference.backward_given(p.grad_output, p.x, p.weight, mean=mean, rstd=rstd)
    assert (np.abs(gradients[0] - expected[0]) <= resolution * np.abs(expected[0]).max()).all()
    # At the scale of the terms that they are the sums of.
    terms = reference.backward_given(
        np.abs(p.grad_output), np.abs(p.x), None, mean=-np.abs(mean), rstd=rstd
    )
    for a, e, size in zip(gradients[1:], expected[1:], terms[1:], strict=True):
        assert (np.abs(a - e) <= resolution * np.maximum(np.abs(e).max(), size)).all()
    assert_keeps_layout(gradients[0], x)


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 17, 1, 1), (2, 1, 1, 1, 1)])
def test_one_element_with_given_statistics(shape, dtype, layout):
    x = LAYOUTS[layout](np.full(shape, 5, dtype))
    y = instance_norm(x, mean=np.full(shape[1], 3.0), var=np.full(shape[1], 4.0), eps=0)
    assert (y == 1).all()
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        instance_norm(x)


@in_every_layout
@in_every_dtype
def test_empty_arrays(dtype, layout):
    for shape in [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0), (0, 0, 0, 0)]:
        x = LAYOUTS[layout](np.zeros(shape, dtype))
        weight = np.ones(shape[1], FLOAT32)
        y, mean, rstd = instance_norm(x, weight, weight, return_stats=True)
        assert (y.shape, y.dtype) == (shape, x.dtype)
        assert mean.shape == rstd.shape == shape[:2]
        gradients = instance_norm_backward(x, x, weight, mean=mean, rstd=rstd)
        assert (gradients[0].shape, gradients[0].dtype) == (shape, x.dtype)
        for a in gradients[1:]:
            assert a.dtype == FLOAT32
            assert a.tolist() == [0] * shape[1]


# --- out -------------------------------------------------------------------------------


@in_every_layout
@in_every_dtype
def test_out_in_another_layout(dtype, layout):
    p = problem((2, 3, 4, 5), dtype)
    x, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
    for name, out_layout in WRITEABLE.items():
        out = out_layout(np.full(p.x.shape, 9, dtype))
        if out.dtype != x.dtype:  # as byte-swapped ones are
            continue
        strides = out.strides
        y, mean, rstd = instance_norm(x, p.weight, p.bias, eps=p.eps, return_stats=True, out=out)
        assert y is out
        y = y.copy()
        gradients = instance_norm_backward(g, x, p.weight, mean=mean, rstd=rstd, out=out)
        assert gradients[0] is out
        assert_right(p, [y, *gradients], f"out is {name}")
        assert out.strides == strides


@in_both_layouts
@pytest.mark.parametrize("out_layout", ["contiguous", "channels last", "cropped"])
@pytest.mark.parametrize("shape", SIZES[1:])
def test_larger_out(shape, out_layout, layout):
    p = problem(shape, FLOAT32)
    x, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
    outs = [LAYOUTS[out_layout](np.full(shape, 9, FLOAT32)) for _ in range(2)]
    y, mean, rstd = instance_norm(x, p.weight, p.bias, eps=p.eps, return_stats=True, out=outs[0])
    gradients = instance_norm_backward(g, x, p.weight, mean=mean, rstd=rstd, out=outs[1])
    assert_right(p, [y, *gradients])


@looped("layout", WRITEABLE)
@in_every_dtype
@pytest.mark.parametrize("shape", SIZES[:2])
def test_in_place(shape, dtype, layout):
    p = problem(shape, dtype)
    x, g = WRITEABLE[layout](p.x), WRITEABLE[layout](p.grad_output)
    y, mean, rstd = instance_norm(x.copy(order="K"), p.weight, p.bias, eps=p.eps, return_stats=True)
    for out in (g, x):
        grad_output = g if out is g else WRITEABLE[layout](p.grad_output)
        results = instance_norm_backward(grad_output, x, p.weight, mean=mean, rstd=rstd, out=out)
        assert results[0] is out
        assert_right(p, [y, *results])
    x[...] = p.x
    assert instance_norm(x, p.weight, p.bias, eps=p.eps, out=x) is x
    assert_right(p, [x])


@pytest.mark.parametrize("layout", ["cropped", "channels last, cropped", "every other",
                                    "channels last, some of the channels"])  # fmt: skip
def test_nothing_is_written_beside_the_elements_of_out(layout):
    x = WRITEABLE[layout](sample((2, 3, 4, 5), FLOAT32))
    base = x
    while base.base is not None:
        base = base.base
    before = base.copy()
    x[...] = 77
    outside = base == before
    x[...] = sample((2, 3, 4, 5), FLOAT32)
    instance_norm(x, out=x)
    assert outside.any()
    assert (base[outside] == 77).all()


def overlapping(shape, dtype, shift, layout):
    """Two arrays of one layout in the same memory, the second `shift` elements further on."""
    size = int(np.prod(shape))
    memory = sample((size + abs(shift),), dtype)
    like = LAYOUTS[layout](np.empty(shape, dtype))
    start = max(0, -shift)
    return [as_strided(memory[i:], shape, like.strides) for i in (start, start + shift)]


SHIFTS = [-64, -3, -1, 1, 2, 5, 33]


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("given_statistics", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 30, 50), (1, 33, 40, 9)])
def test_out_that_overlaps_the_input(shape, given_statistics, dtype, layout):
    channels = shape[1]
    given = {"mean": np.zeros(channels), "var": np.ones(channels)} if given_statistics else {}
    for shift in SHIFTS:
        x, out = overlapping(shape, dtype, shift, layout)
        apart = LAYOUTS[layout](x)
        expected = instance_norm(apart, out=np.empty_like(apart), **given)
        assert instance_norm(x, out=out, **given) is out
        assert same_bits(out, expected)


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("operand", ["grad_output", "x"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 33, 40, 9)])
def test_grad_input_that_overlaps_an_input(shape, operand, dtype, layout):
    for shift in SHIFTS:
        array, out = overlapping(shape, dtype, shift, layout)
        values = {"grad_output": sample(shape, dtype, 1), "x": sample(shape, dtype, 2)}
        values = {name: LAYOUTS[layout](value) for name, value in values.items()}
        values[operand][...] = array
        _, mean, rstd = instance_norm(values["x"], return_stats=True)
        expected = instance_norm_backward(
            **values, mean=mean, rstd=rstd, out=np.empty_like(values["x"])
        )
        values[operand] = array
        actual = instance_norm_backward(**values, mean=mean, rstd=rstd, out=out)
        assert actual[0] is out
        for a, e in zip(actual, expected, strict=True):
            assert same_bits(a, e)


@looped("out_layout", DENSE)
@pytest.mark.parametrize("x_layout", DENSE)
@in_every_dtype
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 17, 10, 11)])
def test_out_in_the_same_memory_in_another_order(shape, dtype, x_layout, out_layout):
    """The same first byte and size, yet no element of `out` lies where the same one of x does."""
    p = problem(shape, dtype)
    x, g = DENSE[x_layout](p.x), DENSE[x_layout](p.grad_output)
    strides = DENSE[out_layout](p.x).strides
    y, mean, rstd = instance_norm(x, p.weight, p.bias, eps=p.eps, return_stats=True)
    for operand in (g, x):
        out = as_strided(operand, shape, strides)
        grad_output = DENSE[x_layout](p.grad_output) if operand is x else g
        gradients = instance_norm_backward(grad_output, x, p.weight, mean=mean, rstd=rstd, out=out)
        assert gradients[0] is out
        assert_right(p, [y, *gradients])
    x[...] = p.x
    assert instance_norm(x, p.weight, p.bias, eps=p.eps, out=out) is out
    assert_right(p, [out])


@pytest.mark.parametrize("axes", [(0, 1, 3, 2), (0, 2, 1, 3), (1, 0, 2, 3), (3, 2, 1, 0)])
def test_out_that_is_the_input_transposed(axes):
    p = problem((4, 4, 4, 4), FLOAT32)
    for layout in DENSE.values():
        x = layout(p.x)
        out = x.transpose(axes)
        instance_norm(x, p.weight, p.bias, eps=p.eps, out=out)
        assert_right(p, [out])


@in_both_layouts
@pytest.mark.parametrize("name", ["weight", "bias", "mean", "var"])
@in_every_dtype
def test_out_that_overlaps_a_parameter(dtype, name, layout):
    x = LAYOUTS[layout](sample((2, 5, 4, 4), dtype))
    out = LAYOUTS[layout](np.ones(x.shape, dtype))
    memory = out if layout == "contiguous" else out.base
    for start in (0, 17, 100):
        view = memory.reshape(-1)[start : start + 5]
        view[...] = [1, 2, 3, 4, 5]
        expected = instance_norm(x, **{name: view.copy()}, out=np.empty_like(x))
        instance_norm(x, **{name: view}, out=out)
        assert same_bits(out, expected)


# --- alignment -------------------------------------------------------------------------


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("shape", [(2, 3, 37), (1, 5, 7, 9), (2, 65, 4, 4)])
def test_alignment_changes_no_bit(shape, dtype, layout):
    p = problem(shape, dtype)
    x, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
    y, mean, rstd = instance_norm(x, p.weight, p.bias, return_stats=True, out=np.empty_like(x))
    y_without_out = instance_norm(x, p.weight, p.bias)
    expected = instance_norm_backward(g, x, p.weight, mean=mean, rstd=rstd, out=np.empty_like(x))
    for offset in range(0, 64, dtype.itemsize):
        x = at_offset(x, offset)
        g = at_offset(g, (5 * offset + dtype.itemsize) % 64)
        out = at_offset(x, (9 * offset + 3 * dtype.itemsize) % 64)
        assert same_bits(instance_norm(x, p.weight, p.bias, out=out), y)
        assert same_bits(instance_norm(x, p.weight, p.bias), y_without_out)
        actual = instance_norm_backward(g, x, p.weight, mean=mean, rstd=rstd, out=out)
        for a, e in zip(actual, expected, strict=True):
            assert same_bits(a, e)


# --- channels on another axis ----------------------------------------------------------


def in_shape_channels_last(array):
    return np.moveaxis(array, 1, -1)


@in_every_layout
@in_every_dtype
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5), (1, 17, 3, 2, 9), (2, 1, 5, 7)])
def test_channel_axis(shape, dtype, layout):
    p = problem(shape, dtype)
    x, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
    y, mean, rstd = instance_norm(x, p.weight, p.bias, eps=p.eps, return_stats=True)
    expected = [y, *instance_norm_backward(g, x, p.weight, mean=mean, rstd=rstd)]
    for axis in range(1, len(shape)):
        for channel_axis in (axis, axis - len(shape), np.int64(axis)):
            there = {"channel_axis": channel_axis}
            moved, moved_g = np.moveaxis(x, 1, axis), np.moveaxis(g, 1, axis)
            y, moved_mean, moved_rstd = instance_norm(
                moved, p.weight, p.bias, eps=p.eps, return_stats=True, **there
            )
            assert same_bits(moved_mean, mean)
            assert same_bits(moved_rstd, rstd)
            actual = [
                y,
                *instance_norm_backward(moved_g, moved, p.weight, mean=mean, rstd=rstd, **there),
            ]
            for result in actual[:2]:
                assert result.shape == moved.shape
                assert memory_order(result) == memory_order(np.empty_like(moved))
            actual[:2] = [np.moveaxis(result, axis, 1) for result in actual[:2]]
            for a, e in zip(actual, expected, strict=True):
                assert same_bits(a, e)


@in_every_dtype
def test_channel_axis_with_all_the_other_arguments(dtype):
    p = problem((2, 5, 4, 3), dtype)
    x, g = in_shape_channels_last(p.x).copy(), in_shape_channels_last(p.grad_output).copy()
    out = np.empty_like(x)
    mean, var = sample((2, 5)), np.exp(sample((5,)))
    given = {"mean": mean, "var": var, "eps": 0.5}
    expected, _, rstd = instance_norm(p.x, p.weight, p.bias, **given, return_stats=True)
    y = instance_norm(x, p.weight, p.bias, **given, out=out, channel_axis=-1)
    assert y is out
    np.testing.assert_array_equal(y, in_shape_channels_last(expected))

    options = {"mean": mean, "rstd": rstd, "use_input_stats": False}
    expected = instance_norm_backward(p.grad_output, p.x, p.weight, **options)
    actual = instance_norm_backward(g, x, p.weight, **options, out=g, channel_axis=-1)
    assert actual[0] is g
    np.testing.assert_array_equal(g, in_shape_channels_last(expected[0]))
    # Sums, formed in another order: what they are off by is in proportion to what they add up.
    x_hat = (p.x.astype(float) - mean[..., None, None]) * rstd[..., None, None]
    for a, e, terms in zip(
        actual[1:], expected[1:], (p.grad_output * x_hat, p.grad_output), strict=True
    ):
        allowed = 8 * RESOLUTION[dtype] * np.abs(terms.astype(float)).sum((0, 2, 3))
        assert (np.abs(a.astype(float) - e.astype(float)) <= allowed).all()


@pytest.mark.parametrize("name", ["x", "weight", "bias", "mean", "var"])
def test_shapes_are_checked_by_the_channel_axis(name):
    good = {"x": np.zeros((2, 4, 5, 3)), "weight": np.ones(3), "bias": np.ones(3)}
    good |= {"mean": np.ones((2, 3)), "var": np.ones((2, 3))}
    assert instance_norm(**good, channel_axis=-1).shape == (2, 4, 5, 3)
    bad = {**good, name: np.zeros((2, 3, 4, 5)) if name == "x" else np.ones(4)}
    with pytest.raises(ValueError, match=r"has shape .*, expected"):
        instance_norm(**bad, channel_axis=-1)


@pytest.mark.parametrize(
    ("axis", "error"),
    [
        (0, ValueError),
        (-4, ValueError),
        (4, np.exceptions.AxisError),
        (-5, np.exceptions.AxisError),
        (1.0, TypeError),
        ("1", TypeError),
        (None, TypeError),
        ((1,), TypeError),
    ],
)
def test_a_bad_channel_axis_is_refused(axis, error):
    x = np.zeros((2, 3, 4, 5))
    stats = {"mean": np.zeros((2, 3)), "rstd": np.ones((2, 3))}
    with pytest.raises(error, match="axis"):
        instance_norm(x, channel_axis=axis)
    with pytest.raises(error, match="axis"):
        instance_norm_backward(x, x, **stats, channel_axis=axis)


def test_one_pixel_is_refused_whatever_the_channel_axis():
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        instance_norm(np.zeros((2, 1, 1, 3)), channel_axis=-1)


# --- what else an array can be ---------------------------------------------------------


class Sub(np.ndarray):
    """A subclass, whose results are plain arrays."""


class ArrayProducer:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class DLPackProducer:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class InterfaceProducer:
    def __init__(self, array):
        self.array = array

    @property
    def __array_interface__(self):
        return self.array.__array_interface__


def mapped(array, path):
    file = np.memmap(path, array.dtype, "w+", shape=array.shape)
    file[...] = array
    return file


def in_torch(array):
    import torch

    return torch.as_tensor(array)


@in_both_layouts
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64, FLOAT16], ids=str)
@pytest.mark.parametrize(
    "producer",
    [
        ArrayProducer,
        DLPackProducer,
        InterfaceProducer,
        pytest.param(in_torch, marks=pytest.mark.torch),
    ],
)
def test_producers_of_arrays(producer, dtype, layout):
    p = problem((2, 3, 4, 5), dtype)
    x, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
    results = solve(p, producer(x), producer(g))
    assert_right(p, results)
    assert_keeps_layout(results[0], x)
    assert_keeps_layout(results[1], x)


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1)])
def test_channels_last_tensors_of_torch(shape):
    import torch

    p = problem(shape, FLOAT32) if shape[2] > 1 else None
    x = torch.from_numpy(sample(shape, FLOAT32)).to(memory_format=torch.channels_last)
    y = instance_norm(x, mean=np.zeros(shape[1]), var=np.ones(shape[1]))
    assert_keeps_layout(y, x.numpy())
    if p is not None:
        x, g = (torch.tensor(a).to(memory_format=torch.channels_last) for a in (p.x, p.grad_output))
        assert_right(p, solve(p, x, g))


@in_every_layout
@in_every_dtype
def test_subclasses_give_plain_arrays(dtype, layout):
    p = problem((2, 3, 4, 5), dtype)
    x, g = LAYOUTS[layout](p.x).view(Sub), LAYOUTS[layout](p.grad_output).view(Sub)
    results = solve(p, x, g)
    assert_right(p, results)
    assert [type(a) for a in results] == [np.ndarray] * 4
    assert_keeps_layout(results[0], x)


def test_arrays_in_files(tmp_path):
    p = problem((2, 3, 4, 5), FLOAT32)
    x, g = mapped(p.x, tmp_path / "x"), mapped(p.grad_output, tmp_path / "g")
    results = solve(p, x, g)
    assert_right(p, results)
    assert type(results[0]) is np.ndarray
    out = mapped(p.x, tmp_path / "out")
    assert instance_norm(x, p.weight, p.bias, eps=p.eps, out=out) is out
    assert_right(p, [out])


# --- Tensors and layers ----------------------------------------------------------------

LAYERS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


@in_every_layout
@in_every_dtype
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5), (2, 3, 2, 3, 4)])
def test_tensors_keep_layout_and_dtype(shape, dtype, layout):
    p = problem(shape, dtype, FLOAT32)
    array = LAYOUTS[layout](p.x)
    x, weight, bias = (instnorm.Tensor(a, requires_grad=True) for a in (array, p.weight, p.bias))
    y = F.instance_norm(x, weight=weight, bias=bias, eps=p.eps)
    y.backward(instnorm.Tensor(LAYOUTS[layout](p.grad_output)))
    results = [y.data, x.grad.data, weight.grad.data, bias.grad.data]
    assert_right(p, results)
    assert_keeps_layout(results[0], array)
    assert_keeps_layout(results[1], array)
    assert weight.grad.dtype == bias.grad.dtype == FLOAT32


@looped("layout", DENSE)
@in_every_dtype
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@pytest.mark.parametrize("shape", [(1, 3, 7), (1, 3, 4, 5), (1, 3, 2, 3, 4)])
def test_layers_keep_layout_and_dtype(shape, batched, dtype, layout):
    p = problem(shape, dtype)
    array, g = LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output)
    if not batched:
        array, g = array[0], g[0]
    layer = LAYERS[len(shape)](3, eps=p.eps, affine=True, track_running_stats=True, dtype=dtype)
    layer.load_state_dict({**layer.state_dict(), "weight": p.weight, "bias": p.bias})
    x = instnorm.Tensor(array, requires_grad=True)
    y = layer(x)
    y.backward(instnorm.Tensor(g))
    assert y.shape == array.shape
    results = [y.data, x.grad.data]
    assert_right(p, [a.reshape(shape) for a in results])
    assert_right(p, [*p.exact[:2], layer.weight.grad.data, layer.bias.grad.data])
    for result in results:
        assert result.dtype == dtype
        assert result.strides == result_strides(array)

    mean = p.x.astype(float).mean((0, *range(2, len(shape))))
    np.testing.assert_allclose(
        layer.running_mean.data.astype(float),
        0.1 * mean,
        rtol=8 * RESOLUTION[dtype],
    )
    layer.eval()
    assert layer(x).data.strides == result_strides(array)


@pytest.mark.parametrize("g_layout", ["contiguous", "channels last", "cropped"])
@pytest.mark.parametrize("layout", ["channels last", "channels last, cropped", "Fortran"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3, 2, 3), (2, 2, 3, 1, 2)])
def test_gradcheck(shape, layout, g_layout):
    x = instnorm.Tensor(LAYOUTS[layout](sample(shape)), requires_grad=True)
    weight, bias = (
        instnorm.Tensor(sample(shape[1:2], seed=seed), requires_grad=True) for seed in (1, 2)
    )
    # The norm's cotangent comes in the layout of the mask, or in what a product makes of both.
    mask = instnorm.Tensor(LAYOUTS[g_layout](sample(shape, seed=2)))

    def normalized(x, weight, bias):
        return F.instance_norm(x, weight=weight, bias=bias) * mask

    assert gradcheck(normalized, [x, weight, bias])
    assert gradgradcheck(normalized, [x, weight, bias])


# --- the same bits ---------------------------------------------------------------------

# Around what one thread keeps to itself, and with pixels and channels that do not divide evenly.
SHARED = [(1, 3, 181, 191), (5, 7, 33, 35), (2, 320, 6, 6, 6), (1, 64, 100, 101), (1, 1, 300, 301),
          (1, 40, 90, 91)]  # fmt: skip
PAIRS = [("contiguous", "contiguous"), ("channels last", "channels last"),
         ("channels last", "contiguous"), ("contiguous", "channels last"),
         ("Fortran", "Fortran"), ("channels last, cropped", "cropped")]  # fmt: skip


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("layouts", PAIRS, ids=" and ".join)
@in_every_dtype
@pytest.mark.parametrize("shape", SHARED)
def test_the_number_of_threads_changes_no_bit(shape, dtype, layouts):
    x, g = LAYOUTS[layouts[0]](sample(shape, dtype)), LAYOUTS[layouts[1]](sample(shape, dtype, 1))
    weight = sample(shape[1:2], FLOAT32)
    expected = None
    for threads in (1, 2, 3, 7):
        instnorm.set_num_threads(threads)
        y, mean, rstd = instance_norm(x, weight, weight, return_stats=True)
        z, *_ = instance_norm(x, var=np.ones(shape[1]), return_stats=True)
        gradients = instance_norm_backward(g, x, weight, mean=mean, rstd=rstd)
        given = instance_norm_backward(g, x, mean=mean, rstd=rstd, use_input_stats=False)
        actual = [y, mean, rstd, z, *gradients, *given]
        expected = expected or actual
        assert all(same_bits(a, e) for a, e in zip(actual, expected, strict=True))


# So large that the kernels write past the caches, but not in place.
STREAMED = [
    ((1, 3, 2051, 2051), "contiguous"),
    ((7, 16, 113_001), "contiguous"),
    ((2, 48, 201, 211), "channels last"),
    ((1, 3, 1201, 1333), "channels last"),
]


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize(
    "dtype",
    [FLOAT32, FLOAT16, *(pytest.param(d, marks=pytest.mark.slow) for d in (FLOAT64, BFLOAT16))],
    ids=str,
)
@pytest.mark.parametrize(("shape", "layout"), STREAMED)
def test_writing_past_the_caches_changes_no_bit(shape, layout, dtype):
    instnorm.set_num_threads(2)
    shape = (shape[0] * max(4 // dtype.itemsize, 1), *shape[1:])
    rng = np.random.default_rng(0)
    x, g = (LAYOUTS[layout](rng.random(shape, np.float32).astype(dtype)) for _ in range(2))
    weight = sample(shape[1:2], FLOAT32)
    rows = layout == "contiguous"
    limit = simd.kernels.STREAM_BYTES if rows else simd.kernels.STREAM_PIXELS_BYTES
    assert x.nbytes + g.nbytes >= limit

    y, mean, rstd = instance_norm(x, weight, weight, return_stats=True)
    grad_input, *_ = instance_norm_backward(g, x, weight, mean=mean, rstd=rstd)
    # Where a cache line does not begin. The values there are others than the results.
    later = instance_norm(x, weight, weight, out=at_offset(x, x.itemsize))
    grad_later, *_ = instance_norm_backward(
        g, x, weight, mean=mean, rstd=rstd, out=at_offset(g, g.itemsize)
    )
    instance_norm_backward(g, x, weight, mean=mean, rstd=rstd, out=g)
    instance_norm(x, weight, weight, out=x)
    assert same_bits(y, x)
    assert same_bits(later, x)
    assert same_bits(grad_input, g)
    assert same_bits(grad_later, g)
    ended = instance_norm(x, weight, weight, residual=g)
    instance_norm(x, weight, weight, residual=g, out=g)
    assert same_bits(ended, g)


@pytest.mark.usefixtures("restore_threads")
@in_every_dtype
@pytest.mark.parametrize(
    ("shape", "layout"),
    [((5, 3, 4, 5), layout) for layout in LAYOUTS]
    + list(itertools.product([(3, 17, 13, 12), (4, 64, 7, 7), (2, 3, 181, 101)], DENSE)),
)
def test_a_sample_is_normalized_the_same_in_any_batch(shape, layout, dtype):
    instnorm.set_num_threads(2)
    x, g = LAYOUTS[layout](sample(shape, dtype)), LAYOUTS[layout](sample(shape, dtype, 1))
    weight = sample(shape[1:2], FLOAT32)
    y, mean, rstd = instance_norm(x, weight, weight, return_stats=True)
    grad_input, *_ = instance_norm_backward(g, x, weight, mean=mean, rstd=rstd)
    n = shape[0]
    for part in [*(slice(i, i + 1) for i in range(n)), slice(0, n - 1), slice(1, n)]:
        part_y, part_mean, part_rstd = instance_norm(x[part], weight, weight, return_stats=True)
        part_grad, *_ = instance_norm_backward(
            g[part], x[part], weight, mean=part_mean, rstd=part_rstd
        )
        assert same_bits(part_y, y[part])
        assert same_bits(part_mean, mean[part])
        assert same_bits(part_rstd, rstd[part])
        assert same_bits(part_grad, grad_input[part])


SOLVE_AND_HASH = """
import hashlib
from helpers.layouts import LAYOUTS
from helpers.problems import DTYPES, assert_right, problem, solve
found = hashlib.sha256()
for shape in [(2, 3, 4, 5), (3, 17, 9, 11), (1, 65, 40, 3), (2, 320, 6, 6), (1, 3, 120, 121)]:
    for dtype in DTYPES:
        p = problem(shape, dtype)
        for layout in ("contiguous", "channels last", "cropped"):
            results = solve(p, LAYOUTS[layout](p.x), LAYOUTS[layout](p.grad_output))
            assert_right(p, results, layout)
            for array in results:
                found.update(array.tobytes())
print(found.hexdigest())
"""


def test_every_simd_level_gives_the_same_bits():
    """Those without a fused multiply-add give others, which are right as well."""
    found = {}
    for level in simd.available():
        found[level] = run_python(SOLVE_AND_HASH, INSTNORM_SIMD=level)
    fused = {level: bits for level, bits in found.items() if simd._module("_core", level).HAS_FMA}
    assert len(set(fused.values())) <= 1


# --- promises of precision -------------------------------------------------------------

PROMISED_ULPS = {FLOAT32: 2, FLOAT64: 4}
PRECISE = [
    (2, 5, 7, 9),
    (1, 3, 61, 67),
    (1, 64, 31, 9),
    (2, 17, 1, 2),
    (1, 1, 50, 90),
    (1, 36, 40, 33),
]


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e18, 1e30])
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("dtype", FULL, ids=str)
def test_ulps_in_channels_last(dtype, mean, spread):
    for shape in PRECISE:
        x = ((sample(shape) + mean) * spread).astype(dtype)
        error = reference.ulps(instance_norm(channels_last(x)), reference.forward(x))
        assert error.max() <= PROMISED_ULPS[dtype]


@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize("shape", PRECISE)
def test_ulps_with_an_outlier_in_channels_last(shape, dtype):
    """One element far from the others makes nearly the whole variance, and a large |y|."""
    x = 1.3 * sample(shape, dtype)
    x.reshape(*shape[:2], -1)[..., 0] *= 20
    error = reference.ulps(instance_norm(channels_last(x)), reference.forward(x))
    assert error.max() <= PROMISED_ULPS[dtype]


@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize("shape", PRECISE)
def test_a_mean_and_spread_of_its_own_in_each_channel(shape, dtype):
    """What is right in one channel must not cost another its precision."""
    channels = np.arange(shape[1]).reshape(-1, 1, 1)
    spread = 10.0 ** (channels % 5 * 8 - 3)
    x = ((sample(shape) + [0, 1e5, 1e3][shape[1] % 3]) * spread).astype(dtype)
    error = reference.ulps(instance_norm(channels_last(x)), reference.forward(x))
    assert error.max() <= PROMISED_ULPS[dtype]


@pytest.mark.parametrize("spread", [1e-20, 1e-3, 1e18, 1e30])
def test_gradients_at_spreads_whose_squares_leave_float32(spread):
    p = problem((2, 5, 7, 9), FLOAT32)
    x = (p.x * spread).astype(np.float32)
    q = posed(x, p.grad_output, p.weight, p.bias, 0)
    results = solve(q, channels_last(x), channels_last(p.grad_output))
    assert_right(q, results)


@in_every_layout
@in_every_dtype
@pytest.mark.parametrize("eps", [0, 1e-5])
def test_a_constant_channel_gives_exactly_the_bias(eps, dtype, layout):
    weight, bias = sample((2, 3), dtype)
    mixed = sample((2, 3, 11, 13), dtype)
    for value in (0.1, -1 / 3, 3e4, 0.0):
        constant = LAYOUTS[layout](np.full(mixed.shape, value).astype(dtype))
        assert (instance_norm(constant, weight, bias, eps=eps) == bias[:, None, None]).all()
        assert (instance_norm(constant, eps=eps) == 0).all()
        mixed[:, 1] = value
        y = instance_norm(LAYOUTS[layout](mixed), weight, bias, eps=eps)
        assert (y[:, 1] == bias[1]).all()


@in_both_layouts
@in_every_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 17, 9, 11), (1, 5, 60, 70)])
def test_nan_and_inf_spoil_their_own_channel_only(shape, bad, dtype, layout):
    x, g = LAYOUTS[layout](sample(shape, dtype)), LAYOUTS[layout](sample(shape, dtype, 1))
    n, c = shape[0] - 1, shape[1] - 1
    others = np.ones(shape[:2], bool)
    others[n, c] = False
    clean = np.arange(shape[1]) != c

    def results(x, g):
        y, mean, rstd = instance_norm(x, return_stats=True)
        return y, *instance_norm_backward(g, x, mean=mean, rstd=rstd)

    expected = results(x, g)
    for spoilt in (x, g):
        spoilt[n, c, 1, 2] = bad
        actual = results(x, g)
        assert np.isnan(actual[0][n, c]).all() == (spoilt is x)
        assert np.isnan(actual[1][n, c].astype(float)).all()
        for a, e in zip(actual[:2], expected[:2], strict=True):
            assert same_bits(a[others], e[others])
        for a, e in zip(actual[2:], expected[2:], strict=True):
            assert same_bits(a[clean], e[clean])
        spoilt[n, c, 1, 2] = 0.5
        expected = results(x, g)


# --- anything --------------------------------------------------------------------------


@st.composite
def views(draw, shape, dtype, seed):
    """A view into a larger array, by random steps and with the axes in random order."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])) for _ in shape]
    larger = [shape[axis] * abs(steps[axis]) for axis in order]
    view = sample(larger, dtype, seed).transpose(np.argsort(order))
    return view[tuple(slice(None, None, step) for step in steps)]


@st.composite
def calls(draw):
    """Arguments for all that the two functions do."""
    ndim = draw(st.integers(3, 5))
    sizes = [st.integers(1, 3), st.integers(1, 70), *[st.integers(1, 40 // ndim)] * (ndim - 2)]
    shape = tuple(draw(size) for size in sizes)
    assume(np.prod(shape[2:]) > 1)
    dtype = draw(st.sampled_from(DTYPES))
    weight, bias = (
        None if d is None else np.exp(sample(shape[1:2], seed=seed)).astype(d)
        for seed, d in enumerate(draw(st.tuples(*[st.none() | st.sampled_from(DTYPES)] * 2)))
    )
    return (
        {
            "x": draw(views(shape, dtype, 0)),
            "g": draw(views(shape, dtype, 1)),
            "weight": weight,
            "bias": bias,
        },
        draw(st.integers(1, 4)),
        draw(st.sampled_from([None, "new", "x", "g"])),
    )


@pytest.mark.usefixtures("restore_threads")
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(calls())
def test_any_call(call):
    arguments, threads, place = call
    instnorm.set_num_threads(threads)
    p = posed(**arguments)
    x, g = arguments["x"], arguments["g"]
    y, mean, rstd = instance_norm(x, p.weight, p.bias, eps=p.eps, return_stats=True)
    out = {None: None, "new": np.empty_like(x), "x": x, "g": g}[place]
    gradients = instance_norm_backward(g, x, p.weight, mean=mean, rstd=rstd, out=out)
    assert_right(p, [y, *gradients])
    assert y.strides == result_strides(x)
    if out is None:
        assert gradients[0].strides == result_strides(x)
    else:
        assert gradients[0] is out


# --- more than 2**31 elements ----------------------------------------------------------


@pytest.mark.skipif("INSTNORM_BIG_TESTS" not in os.environ, reason="takes 10 GB and a minute")
@pytest.mark.timeout(1800)
@in_both_layouts
@pytest.mark.parametrize("channels", [1, 3])
def test_more_than_2_to_the_31_elements(channels, layout):
    """All in place. Each channel takes two values, which become 1 and -1."""
    pixels = 2 * (2**30 // channels + 2**15)
    x = np.empty((1, channels, pixels), np.float16)
    if layout == "channels last":
        x = x.reshape(1, pixels, channels).transpose(0, 2, 1)
    for c in range(channels):
        x[0, c, 0::2], x[0, c, 1::2] = (c + 1) * 2.0**c, (c - 1) * 2.0**c
    y, mean, rstd = instance_norm(x, eps=0, out=x, return_stats=True)
    assert y is x
    np.testing.assert_allclose(mean, [[c * 2.0**c for c in range(channels)]], rtol=1e-7)
    np.testing.assert_allclose(rstd, [[0.5**c for c in range(channels)]], rtol=1e-6)
    for start in range(0, pixels, 2**26):
        part = x[..., start : start + 2**26]
        assert (part[..., 0::2] == 1).all()
        assert (part[..., 1::2] == -1).all()

    # The gradient of the squares' sum, which the norm leaves as it is.
    weight = np.ones(channels)
    statistics = {"mean": np.zeros(channels), "rstd": weight}
    grad_input, grad_weight, grad_bias = instance_norm_backward(x, x, weight, **statistics, out=x)
    assert grad_input is x
    np.testing.assert_allclose(grad_weight, pixels, rtol=1e-6)
    np.testing.assert_allclose(grad_bias, 0, atol=1e-6 * pixels)
    for start in range(0, pixels, 2**26):
        assert (np.abs(x[..., start : start + 2**26]) < 1e-6).all()
