"""What all tests share: asserts that explain themselves, and the number of threads restored."""

from importlib.util import find_spec

import pytest

import instnorm

pytest.register_assert_rewrite("helpers")

# They have no doctests, which pytest would import them for, and one of them imports MindSpore.
collect_ignore = ["helpers"]


def pytest_runtest_setup(item):
    """Skip a test that is marked as needing a framework which is not installed."""
    for framework in ("torch", "mindspore"):
        if item.get_closest_marker(framework) and not find_spec(framework):
            pytest.skip(f"needs {framework}")


@pytest.fixture
def restore_threads():
    """Give back the number of threads after a test that changes it."""
    before = instnorm.get_num_threads()
    yield
    instnorm.set_num_threads(before)
