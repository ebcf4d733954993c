"""What all tests share: the path of `reference`, a cache for PyTorch, the threads restored."""

import sys
from pathlib import Path

import pytest

import instnorm

# pytest's importlib mode leaves the path alone, and the tests import `reference`.
sys.path.insert(0, str(Path(__file__).parent))

# Doctests are looked for in every module, and this one imports MindSpore, which CI has not.
collect_ignore = ["composition.py"]


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
