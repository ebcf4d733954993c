"""Arrays of the other byte order keep their values in every format of checkpoint files."""

import numpy as np
import pytest

from instnorm import checkpoints, convert

SWAPPED = [np.dtype(name).newbyteorder("S") for name in ("f2", "f4", "f8", "i8", "u2")]


@pytest.mark.parametrize("dtype", SWAPPED, ids=str)
@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_swapped_arrays_are_written_with_their_values(suffix, dtype, tmp_path):
    path = tmp_path / f"state{suffix}"
    path.write_bytes(checkpoints.dumps(path, {"a": np.arange(1, 5, dtype=dtype)}))
    read = checkpoints.read(path).arrays["a"]
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, [1, 2, 3, 4])


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_statistics_that_conversion_makes_up_are_written_with_their_values(suffix, tmp_path):
    state = {"weight": np.ones(3, ">f4"), "bias": np.zeros(3, ">f4")}
    converted = convert.state_dict(state, to="mindspore").state
    path = tmp_path / f"state{suffix}"
    path.write_bytes(checkpoints.dumps(path, converted))
    np.testing.assert_array_equal(checkpoints.read(path).arrays["variance"], [1, 1, 1])
