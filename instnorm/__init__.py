"""Instance normalization for the CPU, with a small autograd and both frameworks' layers.

From the ground up: `_core` (compiled kernels), `arrays` (ndarray in, ndarray out),
`tensor` and `autograd` (the graph), `functional`, `nn`, `optim`; `testing` checks
gradients.
"""

from importlib.metadata import PackageNotFoundError, version

from instnorm import autograd, functional, nn, optim, testing
from instnorm._runtime import memory as memory
from instnorm._runtime import simd as simd
from instnorm._runtime import threads as threads
from instnorm._runtime.memory import (
    empty_cache,
    get_cache_limit,
    limit_from_environment,
    set_cache_limit,
)
from instnorm._runtime.threads import default_num_threads, get_num_threads, set_num_threads
from instnorm.arrays import instance_norm, instance_norm_backward
from instnorm.autograd import enable_grad, grad, is_grad_enabled, no_grad
from instnorm.nn.init import manual_seed
from instnorm.statistics import Statistics
from instnorm.tensor import Tensor, tensor

try:
    __version__ = version("instnorm")
except PackageNotFoundError:  # a source tree that was built in place
    __version__ = "0+unknown"

__all__ = [
    "Statistics",
    "Tensor",
    "autograd",
    "empty_cache",
    "enable_grad",
    "functional",
    "get_cache_limit",
    "get_num_threads",
    "grad",
    "instance_norm",
    "instance_norm_backward",
    "is_grad_enabled",
    "manual_seed",
    "nn",
    "no_grad",
    "optim",
    "set_cache_limit",
    "set_num_threads",
    "tensor",
    "testing",
]

set_num_threads(default_num_threads())
set_cache_limit(limit_from_environment())
