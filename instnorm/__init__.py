"""Instance normalization for the CPU, with a small autograd and both frameworks' layers.

From the ground up: `_core` (compiled kernels), `arrays` (ndarray in, ndarray out),
`tensor` and `autograd` (the graph), `functional`, `nn`, `optim`, `utils.data`; `testing`
checks gradients. Most names are PyTorch's: ``import instnorm as torch`` goes a long way.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from instnorm import autograd, cuda, functional, nn, optim, testing, utils
from instnorm._missing import missing
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
from instnorm.creation import (
    arange,
    cat,
    from_numpy,
    full,
    manual_seed,
    ones,
    ones_like,
    rand,
    randint,
    randn,
    randperm,
    stack,
    where,
    zeros,
    zeros_like,
)
from instnorm.dtypes import (
    bool,
    double,
    float,
    float16,
    float32,
    float64,
    half,
    int,
    int8,
    int16,
    int32,
    int64,
    long,
    short,
    uint8,
)
from instnorm.inspection import draw, summary
from instnorm.serialization import load, save
from instnorm.statistics import Statistics
from instnorm.tensor import Device, Tensor, tensor

device = Device

# The methods of Tensor that PyTorch has as functions too.
abs = Tensor.abs
argmax = Tensor.argmax
chunk = Tensor.chunk
clamp = Tensor.clamp
cumsum = Tensor.cumsum
exp = Tensor.exp
flatten = Tensor.flatten
log = Tensor.log
log_softmax = Tensor.log_softmax
matmul = Tensor.matmul
max = Tensor.max
mean = Tensor.mean
min = Tensor.min
permute = Tensor.permute
pow = Tensor.pow
prod = Tensor.prod
relu = Tensor.relu
reshape = Tensor.reshape
sigmoid = Tensor.sigmoid
softmax = Tensor.softmax
split = Tensor.split
sqrt = Tensor.sqrt
squeeze = Tensor.squeeze
std = Tensor.std
sum = Tensor.sum
tanh = Tensor.tanh
transpose = Tensor.transpose
unsqueeze = Tensor.unsqueeze
var = Tensor.var

try:
    __version__ = version("instnorm")
except PackageNotFoundError:  # a source tree that was built in place
    __version__ = "0+unknown"

__all__ = [
    "Statistics",
    "Tensor",
    "abs",
    "arange",
    "argmax",
    "autograd",
    "bool",
    "cat",
    "chunk",
    "clamp",
    "cuda",
    "cumsum",
    "device",
    "double",
    "draw",
    "empty_cache",
    "enable_grad",
    "exp",
    "flatten",
    "float",
    "float16",
    "float32",
    "float64",
    "from_numpy",
    "full",
    "functional",
    "get_cache_limit",
    "get_num_threads",
    "grad",
    "half",
    "instance_norm",
    "instance_norm_backward",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "load",
    "log",
    "log_softmax",
    "long",
    "manual_seed",
    "matmul",
    "max",
    "mean",
    "min",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "optim",
    "permute",
    "pow",
    "prod",
    "rand",
    "randint",
    "randn",
    "randperm",
    "relu",
    "reshape",
    "save",
    "set_cache_limit",
    "set_num_threads",
    "short",
    "sigmoid",
    "softmax",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "std",
    "sum",
    "summary",
    "tanh",
    "tensor",
    "testing",
    "transpose",
    "uint8",
    "unsqueeze",
    "utils",
    "var",
    "where",
    "zeros",
    "zeros_like",
]

# What PyTorch has and this package has not: what is nearest.
_INSTEAD = {
    "compile": "instnorm runs as it is written",
    "autocast": "instnorm has no mixed precision; see Module.half",
    "einsum": "nearest: matmul, permute, sum",
    "mm": "write a @ b",
    "bmm": "write a @ b",
    "norm": "write x.norm()",
    "allclose": "nearest: numpy.allclose(a, b)",
    "linspace": "nearest: arange",
    "distributed": "instnorm runs in one process",
}


def __getattr__(name: str) -> Any:
    if name == "bfloat16":  # NumPy's comes from ml_dtypes, which is an extra
        import ml_dtypes
        import numpy as np

        return np.dtype(ml_dtypes.bfloat16)
    raise missing("instnorm", name, __all__, _INSTEAD)


set_num_threads(default_num_threads())
set_cache_limit(limit_from_environment())
