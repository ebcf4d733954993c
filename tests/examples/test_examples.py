"""Every script in examples/ runs, and the one with published numbers prints them."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT

from instnorm import nn

EXAMPLES = ROOT / "examples"
# Where MindSpore is installed, test_bridge_mindspore.py and test_whole_models.py run its own.
SCRIPTS = [
    pytest.param(path.name, marks=[pytest.mark.torch] if "torch" in path.name else [])
    for path in sorted(EXAMPLES.glob("*.py"))
    if path.name not in ("mindspore_bridge.py", "cyclegan_mindspore.py")
]
PUBLISHED = (-1.34110, -0.44703, 0.44703, 1.34110)


def output_of(script, folder):
    # Warnings are errors there too.
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        # Threads that share processors with other tests would wait for each other.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


USES = [
    pytest.param(path.name, marks=[pytest.mark.torch] if "torch" in path.name else [])
    for path in sorted((EXAMPLES / "uses").glob("*.py"))
]


@pytest.mark.slow
@pytest.mark.parametrize("script", USES)
def test_each_use_draws_its_picture(script, tmp_path):
    assert output_of(f"uses/{script}", tmp_path)
    assert (tmp_path / script.replace(".py", ".png")).stat().st_size > 5000


@pytest.mark.parametrize("script", SCRIPTS)
def test_examples_run(script, tmp_path):
    assert output_of(script, tmp_path)
    assert not list(tmp_path.iterdir())


def test_both_flavours_print_the_published_numbers(tmp_path):
    text = output_of("two_flavours.py", tmp_path)
    first, second = text.split("\n\nAs in MindSpore: ")
    assert first.startswith("As in PyTorch: weight, bias\n")
    assert second.startswith("gamma, beta, mean, variance\n")
    second, last = second.rsplit("\n\n", 1)
    assert last == "Largest difference between the two: 0.0\n"
    for half in (first, second):
        numbers = [float(n) for n in re.findall(r"-?\d+\.\d+", half)]
        assert len(numbers) == 12
        np.testing.assert_allclose(np.reshape(numbers, (3, 4)), [PUBLISHED] * 3, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "layer",
    [nn.InstanceNorm2d(3), nn.InstanceNorm2d(3, affine=True), nn.mindspore.InstanceNorm2d(3)],
    ids=["PyTorch's", "affine", "MindSpore's"],
)
def test_the_published_numbers_in_full(layer):
    """Published are five decimals. In full: the mean is 0.25 and the variance 0.0125."""
    image = np.linspace(0.1, 1.2, 12, dtype=np.float32).reshape(1, 3, 2, 2)
    exact = np.array([-0.15, -0.05, 0.05, 0.15]) / math.sqrt(0.0125 + 1e-5)
    np.testing.assert_array_equal(exact.round(5), PUBLISHED)
    np.testing.assert_allclose(layer(image).data.reshape(3, 4), [exact] * 3, rtol=0, atol=2e-6)
