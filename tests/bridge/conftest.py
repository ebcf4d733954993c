"""What the tests of the bridges share."""

import functools

import pytest


@pytest.fixture
def calls(monkeypatch):
    """Names of the kernels' entries of PyTorch's bridge, in the order in which they are called."""
    from instnorm.bridge.torch import arrays

    seen = []

    def recorded(name, function, *args):
        seen.append(name)
        return function(*args)

    for name in ("forward", "backward"):
        function = getattr(arrays, name)
        monkeypatch.setattr(arrays, name, functools.partial(recorded, name, function))
    return seen
