"""The measures of windows, and the places that resizing and padding take elements from."""

import re

import numpy as np
import pytest

from instnorm.functional import windows as win


@pytest.mark.parametrize(
    ("value", "axes", "expected"),
    [
        (2, 1, (2,)),
        (2, 3, (2, 2, 2)),
        ((2, 3), 2, (2, 3)),
        ([4], 2, (4, 4)),
        (np.int64(5), 2, (5, 5)),
        (np.array([2, 3]), 2, (2, 3)),
    ],
)
def test_one_number_stands_for_all_axes(value, axes, expected):
    numbers = win.per_axis(value, axes, "stride", 1)
    assert numbers == expected
    assert all(type(n) is int for n in numbers)


@pytest.mark.parametrize(
    ("value", "axes", "error", "message"),
    [
        (0, 2, ValueError, "stride must be at least 1, got 0"),
        ((2, -1), 2, ValueError, "stride must be at least 1, got (2, -1)"),
        (2.0, 2, TypeError, "stride must be an integer or two, got 2.0"),
        (True, 2, TypeError, "stride must be an integer or two, got True"),
        ((1, 2, 3), 2, TypeError, "stride must be an integer or two, got (1, 2, 3)"),
        ("33", 2, TypeError, "stride must be an integer or two, got '33'"),
        ((1, 2), 1, TypeError, "stride must be an integer, got (1, 2)"),
        ((1, 2), 3, TypeError, "stride must be an integer or three, got (1, 2)"),
    ],
)
def test_bad_numbers(value, axes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        win.per_axis(value, axes, "stride", 1)


def test_a_window_that_is_larger_than_the_image():
    message = (
        "kernel_size (3, 3) with dilation (2, 2) spans (5, 5) pixels, more than the padded "
        "input of (4, 5)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        win.output_lengths((4, 5), (3, 3), (1, 1), (0, 0), (2, 2))


@pytest.mark.parametrize("mode", win.PAD_MODES)
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (0, 1), (2, 3), (3, 3)])
def test_padding_takes_the_elements_that_numpys_takes(before, after, mode):
    x = np.arange(1, 5)
    *_, places = np.split(win.pad_places((4,), ((before, after),), mode), [1, 2])
    names = {"replicate": "edge", "circular": "wrap"}
    expected = np.pad(x, (before, after), mode=names.get(mode, mode))
    np.testing.assert_array_equal(np.where(places < 0, 0, x[places]), expected)


def test_pad_widths_come_from_the_last_axis_to_the_first():
    pairs = win.pad_widths((2, 3, 4), (1, 2, 0, 0, 3, 0), "constant")
    assert pairs == ((3, 0), (0, 0), (1, 2))
