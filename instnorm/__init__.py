"""Instance normalization for the CPU, with a small autograd and both frameworks' layers.

From the ground up: `_core` (compiled kernels), `arrays` (ndarray in, ndarray out),
`tensor` and `autograd` (the graph), `functional`, `nn`, `optim`, `utils.data`; `testing`
checks gradients. Most names are PyTorch's: ``import instnorm as torch`` goes a long way.
"""

from importlib.metadata import PackageNotFoundError, version
from math import inf as inf
from math import nan as nan
from math import pi as pi
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
from instnorm.autograd import enable_grad, grad, is_grad_enabled, no_grad, set_grad_enabled
from instnorm.creation import (
    arange,
    as_tensor,
    cat,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    manual_seed,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
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
from instnorm.tensor import INSTEAD as _INSTEAD_OF_METHODS
from instnorm.tensor import Device, Tensor, allclose, as_function, equal, is_tensor, tensor

concat = cat
device = Device
inference_mode = no_grad

# The methods of Tensor that PyTorch has as functions too.
abs = as_function(Tensor.abs)
add = as_function(Tensor.add)
all = as_function(Tensor.all)
amax = as_function(Tensor.amax)
amin = as_function(Tensor.amin)
any = as_function(Tensor.any)
argmax = as_function(Tensor.argmax)
argmin = as_function(Tensor.argmin)
argsort = as_function(Tensor.argsort)
bmm = as_function(Tensor.bmm)
ceil = as_function(Tensor.ceil)
chunk = as_function(Tensor.chunk)
clamp = as_function(Tensor.clamp)
clip = as_function(Tensor.clip)
cos = as_function(Tensor.cos)
cumsum = as_function(Tensor.cumsum)
diag = as_function(Tensor.diag)
div = as_function(Tensor.div)
dot = as_function(Tensor.dot)
eq = as_function(Tensor.eq)
exp = as_function(Tensor.exp)
flatten = as_function(Tensor.flatten)
flip = as_function(Tensor.flip)
floor = as_function(Tensor.floor)
gather = as_function(Tensor.gather)
ge = as_function(Tensor.ge)
gt = as_function(Tensor.gt)
index_select = as_function(Tensor.index_select)
isfinite = as_function(Tensor.isfinite)
isinf = as_function(Tensor.isinf)
isnan = as_function(Tensor.isnan)
le = as_function(Tensor.le)
log = as_function(Tensor.log)
log_softmax = as_function(Tensor.log_softmax)
logsumexp = as_function(Tensor.logsumexp)
lt = as_function(Tensor.lt)
masked_fill = as_function(Tensor.masked_fill)
matmul = as_function(Tensor.matmul)
max = as_function(Tensor.max)
maximum = as_function(Tensor.maximum)
mean = as_function(Tensor.mean)
min = as_function(Tensor.min)
minimum = as_function(Tensor.minimum)
mm = as_function(Tensor.mm)
mul = as_function(Tensor.mul)
ne = as_function(Tensor.ne)
neg = as_function(Tensor.neg)
nonzero = as_function(Tensor.nonzero)
norm = as_function(Tensor.norm)
numel = as_function(Tensor.numel)
permute = as_function(Tensor.permute)
pow = as_function(Tensor.pow)
prod = as_function(Tensor.prod)
relu = as_function(Tensor.relu)
remainder = as_function(Tensor.remainder)
reshape = as_function(Tensor.reshape)
round = as_function(Tensor.round)
sigmoid = as_function(Tensor.sigmoid)
sign = as_function(Tensor.sign)
sin = as_function(Tensor.sin)
softmax = as_function(Tensor.softmax)
sort = as_function(Tensor.sort)
split = as_function(Tensor.split)
sqrt = as_function(Tensor.sqrt)
square = as_function(Tensor.square)
squeeze = as_function(Tensor.squeeze)
std = as_function(Tensor.std)
sub = as_function(Tensor.sub)
sum = as_function(Tensor.sum)
t = as_function(Tensor.t)
tanh = as_function(Tensor.tanh)
topk = as_function(Tensor.topk)
transpose = as_function(Tensor.transpose)
tril = as_function(Tensor.tril)
triu = as_function(Tensor.triu)
unbind = as_function(Tensor.unbind)
unique = as_function(Tensor.unique)
unsqueeze = as_function(Tensor.unsqueeze)
var = as_function(Tensor.var)

try:
    __version__ = version("instnorm")
except PackageNotFoundError:  # a source tree that was built in place
    __version__ = "0+unknown"

__all__ = [
    "Statistics",
    "Tensor",
    "abs",
    "add",
    "all",
    "allclose",
    "amax",
    "amin",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "as_tensor",
    "autograd",
    "bmm",
    "bool",
    "cat",
    "ceil",
    "chunk",
    "clamp",
    "clip",
    "concat",
    "cos",
    "cuda",
    "cumsum",
    "device",
    "diag",
    "div",
    "dot",
    "double",
    "draw",
    "empty",
    "empty_cache",
    "empty_like",
    "enable_grad",
    "eq",
    "equal",
    "exp",
    "eye",
    "flatten",
    "flip",
    "float",
    "float16",
    "float32",
    "float64",
    "floor",
    "from_numpy",
    "full",
    "full_like",
    "functional",
    "gather",
    "ge",
    "get_cache_limit",
    "get_num_threads",
    "grad",
    "gt",
    "half",
    "index_select",
    "inf",
    "inference_mode",
    "instance_norm",
    "instance_norm_backward",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "is_tensor",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "linspace",
    "load",
    "log",
    "log_softmax",
    "logsumexp",
    "long",
    "lt",
    "manual_seed",
    "masked_fill",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mm",
    "mul",
    "nan",
    "ne",
    "neg",
    "nn",
    "no_grad",
    "nonzero",
    "norm",
    "numel",
    "ones",
    "ones_like",
    "optim",
    "permute",
    "pi",
    "pow",
    "prod",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
    "relu",
    "remainder",
    "reshape",
    "round",
    "save",
    "set_cache_limit",
    "set_grad_enabled",
    "set_num_threads",
    "short",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "summary",
    "t",
    "tanh",
    "tensor",
    "testing",
    "topk",
    "transpose",
    "tril",
    "triu",
    "uint8",
    "unbind",
    "unique",
    "unsqueeze",
    "utils",
    "var",
    "where",
    "zeros",
    "zeros_like",
]

# What PyTorch has and this package has not: what is nearest.
_INSTEAD = {
    **_INSTEAD_OF_METHODS,
    "compile": "instnorm runs as it is written",
    "autocast": "instnorm has no mixed precision; see Module.half",
    "einsum": "nearest: matmul, permute, sum",
    "distributed": "instnorm runs in one process",
    "backends": "instnorm computes on the CPU, the same each time",
    "use_deterministic_algorithms": "instnorm computes the same each time",
    "Generator": "nearest: manual_seed, and DataLoader(seed=...)",
    "FloatTensor": "nearest: tensor(data, dtype=float32)",
    "LongTensor": "nearest: tensor(data, dtype=int64)",
    "set_default_dtype": "write dtype= where a Tensor is made, or net.double()",
    "get_default_dtype": "it is float32",
    "set_printoptions": "nearest: numpy.set_printoptions",
    "logical_and": "write a & b",
    "logical_or": "write a | b",
    "logical_not": "write ~a",
    "bernoulli": "write (rand(p.shape) < p).float()",
    "normal": "write mean + std * randn(shape)",
    "meshgrid": "nearest: numpy.meshgrid",
    "hstack": "nearest: cat(tensors, dim=1)",
    "vstack": "nearest: cat(tensors, dim=0)",
    "cdist": "write (a.unsqueeze(1) - b).norm(dim=-1)",
    "linalg": "nearest: norm, numpy.linalg",
    "fft": "nearest: numpy.fft",
    "erf": "nearest: functional.gelu, math.erf",
}


def __getattr__(name: str) -> Any:
    if name == "bfloat16":  # NumPy's comes from ml_dtypes, which is an extra
        import ml_dtypes
        import numpy as np

        return np.dtype(ml_dtypes.bfloat16)
    raise missing("instnorm", name, __all__, _INSTEAD)


set_num_threads(default_num_threads())
set_cache_limit(limit_from_environment())
