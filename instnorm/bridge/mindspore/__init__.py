"""MindSpore's InstanceNorm1d, 2d and 3d on a CPU, where MindSpore has no kernel for them."""

import contextlib
import io

import mindspore
from mindspore import ops


def _settle_numpy() -> None:
    """Have MindSpore meet NumPy 2 here rather than in the user's first operator.

    MindSpore 2.10 is compiled for NumPy 1: the first operator of a process raises
    SystemError and prints a page, all later ones run. An operator that refuses its
    arguments is enough, and leaves the device still to be chosen.
    """
    refusals = contextlib.suppress(SystemError, TypeError)
    with refusals, contextlib.redirect_stderr(io.StringIO()):
        ops.ReduceMean()(mindspore.Tensor([0.0]), "no axis")


_settle_numpy()

from instnorm.bridge.mindspore.modules import (  # noqa: E402 - NumPy is to be settled first
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from instnorm.bridge.mindspore.replacement import (  # noqa: E402
    convert,
    converted,
    revert,
)

__all__ = [
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "convert",
    "converted",
    "revert",
]
