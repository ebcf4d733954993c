"""What all tests share: asserts that explain themselves, skips, what is restored after a test."""

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


@pytest.fixture(scope="session", autouse=True)
def inductor_cache(tmp_path_factory):
    """Keep what torch.compile caches to this run.

    By default all checkouts of a user share one cache, and one would be handed what another
    compiled for the same graph, under other names of our modules.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture
def restore_threads():
    """Give back the number of threads after a test that changes it."""
    before = instnorm.get_num_threads()
    yield
    instnorm.set_num_threads(before)
