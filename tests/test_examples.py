"""Every script in examples/ runs, and the one with published numbers prints them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PUBLISHED = (-1.34110, -0.44703, 0.44703, 1.34110)


def output_of(script, folder):
    # Warnings are errors there too.
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_examples_run(script, tmp_path):
    assert output_of(script, tmp_path)
    assert not list(tmp_path.iterdir())


def test_both_flavours_print_the_published_numbers(tmp_path):
    text = output_of("two_flavours.py", tmp_path)
    first, second = text.split("MindSpore's names:")
    assert "PyTorch's names:   weight bias\n" in first
    assert second.startswith(" gamma beta mean variance\n")
    for half in (first, second):
        # The printed digits themselves, in brackets as NumPy writes them.
        numbers = [float(n) for n in re.findall(r"-?\d+\.\d{3,}", half)]
        assert len(numbers) == 12
        np.testing.assert_allclose(np.reshape(numbers, (3, 4)), [PUBLISHED] * 3, rtol=0, atol=2e-6)
