"""What all tests share: the import path of `reference`, and the number of threads restored."""

import sys
from pathlib import Path

import pytest

import instnorm

# pytest's importlib mode leaves the path alone, and the tests import `reference`.
sys.path.insert(0, str(Path(__file__).parent))

# Doctests are looked for in every module, and this one imports MindSpore, which CI has not.
collect_ignore = ["composition.py"]


@pytest.fixture
def restore_threads():
    """Give back the number of threads after a test that changes it."""
    before = instnorm.get_num_threads()
    yield
    instnorm.set_num_threads(before)
