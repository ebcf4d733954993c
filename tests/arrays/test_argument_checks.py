"""Arguments that only look right: refused by name, on the short path for small arrays as well."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from instnorm import instance_norm, instance_norm_backward

SMALL = np.arange(24.0).reshape(2, 3, 4)
MEDIUM = np.random.default_rng(0).standard_normal((4, 8, 64, 64))
ARRAYS = pytest.mark.parametrize("x", [SMALL, MEDIUM], ids=["small", "medium"])


def statistics(x):
    return {"mean": np.zeros(x.shape[:2]), "rstd": np.ones(x.shape[:2])}


@ARRAYS
@pytest.mark.parametrize("name", ["x", "weight", "bias", "mean", "var", "out"])
def test_forward_refuses_masked_arrays(name, x):
    channel = np.ones(x.shape[1])
    arguments = {"x": x.copy(), "weight": channel, "bias": channel, "mean": channel, "var": channel}
    arguments["out"] = np.zeros_like(x)
    arguments[name] = np.ma.masked_greater(arguments[name], 0.5)
    with pytest.raises(TypeError, match=f"{name} is a masked array, whose mask would be ignored"):
        instance_norm(**arguments)


@ARRAYS
@pytest.mark.parametrize("name", ["grad_output", "x", "weight", "mean", "rstd", "out"])
def test_backward_refuses_masked_arrays(name, x):
    arguments = {"grad_output": x.copy(), "x": x.copy(), "weight": np.ones(x.shape[1])}
    arguments |= {**statistics(x), "out": np.zeros_like(x)}
    arguments[name] = np.ma.masked_greater(arguments[name], 0.5)
    with pytest.raises(TypeError, match=f"{name} is a masked array, whose mask would be ignored"):
        instance_norm_backward(**arguments)


@ARRAYS
@pytest.mark.parametrize("eps", [True, False, np.True_], ids=repr)
def test_eps_is_no_truth_value(eps, x):
    with pytest.raises(TypeError, match="eps must be a number, got bool"):
        instance_norm(x, eps=eps)


@ARRAYS
@pytest.mark.parametrize("eps", [10**400, -(10**400), Fraction(10**400)], ids=["int", "-int", "/"])
def test_eps_beyond_a_float_is_refused(eps, x):
    with pytest.raises(ValueError, match="eps must be finite and at least 0"):
        instance_norm(x, eps=eps)


@ARRAYS
@pytest.mark.parametrize("flag", ["no", "", 1, 0, None, 0.0, np.ones(2, bool)], ids=repr)
def test_flags_are_truth_values(flag, x):
    kind = type(flag).__name__
    with pytest.raises(TypeError, match=f"return_stats must be True or False, got {kind}"):
        instance_norm(x, return_stats=flag)
    with pytest.raises(TypeError, match=f"use_input_stats must be True or False, got {kind}"):
        instance_norm_backward(x, x, **statistics(x), use_input_stats=flag)


@ARRAYS
def test_numpys_truth_values_will_do(x):
    assert len(instance_norm(x, return_stats=np.True_)) == 3
    assert instance_norm(x, return_stats=np.False_).shape == x.shape
    grads = [
        instance_norm_backward(x, x, **statistics(x), use_input_stats=flag)[0]
        for flag in (np.False_, False)
    ]
    np.testing.assert_array_equal(*grads)


def test_nothing_of_an_endless_empty_array_is_allocated():
    # 2^33 rows of no elements: their statistics would take 128 GB.
    code = """
import resource
import numpy as np
from instnorm import instance_norm, instance_norm_backward
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
x = np.zeros((2**33, 1, 0), np.float32)
assert instance_norm(x, np.ones(1), np.ones(1)).shape == x.shape
y, mean, rstd = instance_norm(x, return_stats=True)
assert mean.shape == rstd.shape == (2**33, 1) and np.isnan(mean[5, 0]) and np.isnan(rstd[-1, 0])
grads = instance_norm_backward(y, x, mean=mean, rstd=rstd)
assert grads[0].shape == x.shape and grads[1].tolist() == grads[2].tolist() == [0]
assert instance_norm(x, mean=np.zeros(1), var=np.ones(1), out=y) is y
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_image_that_is_read_as_sequences_is_warned_of(channels):
    image = np.random.default_rng(0).random((8, 9, channels))
    with pytest.warns(
        UserWarning, match=r"is read as 8 sequences of length 9, .* pass x\[None\]"
    ) as w:
        y = instance_norm(image, channel_axis=-1)
    assert w[0].filename == __file__
    # These are said without a doubt, and warn of nothing.
    np.testing.assert_array_equal(instance_norm(image, channel_axis=2), y)
    instance_norm(image[None], channel_axis=-1)
    instance_norm(np.ones((8, 9, 7)), channel_axis=-1)
    instance_norm(np.ones((7, 9, 3)), channel_axis=-1)
