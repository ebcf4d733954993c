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
from instnorm.tensor import Device, Tensor, allclose, equal, is_tensor, tensor

concat = cat
device = Device
inference_mode = no_grad

# The methods of Tensor that PyTorch has as functions too.
abs = Tensor.abs
add = Tensor.add
all = Tensor.all
amax = Tensor.amax
amin = Tensor.amin
any = Tensor.any
argmax = Tensor.argmax
argmin = Tensor.argmin
argsort = Tensor.argsort
bmm = Tensor.bmm
ceil = Tensor.ceil
chunk = Tensor.chunk
clamp = Tensor.clamp
clip = Tensor.clip
cos = Tensor.cos
cumsum = Tensor.cumsum
diag = Tensor.diag
div = Tensor.div
dot = Tensor.dot
eq = Tensor.eq
exp = Tensor.exp
flatten = Tensor.flatten
flip = Tensor.flip
floor = Tensor.floor
gather = Tensor.gather
ge = Tensor.ge
gt = Tensor.gt
index_select = Tensor.index_select
isfinite = Tensor.isfinite
isinf = Tensor.isinf
isnan = Tensor.isnan
le = Tensor.le
log = Tensor.log
log_softmax = Tensor.log_softmax
logsumexp = Tensor.logsumexp
lt = Tensor.lt
masked_fill = Tensor.masked_fill
matmul = Tensor.matmul
max = Tensor.max
maximum = Tensor.maximum
mean = Tensor.mean
min = Tensor.min
minimum = Tensor.minimum
mm = Tensor.mm
mul = Tensor.mul
ne = Tensor.ne
neg = Tensor.neg
nonzero = Tensor.nonzero
norm = Tensor.norm
numel = Tensor.numel
permute = Tensor.permute
pow = Tensor.pow
prod = Tensor.prod
relu = Tensor.relu
remainder = Tensor.remainder
reshape = Tensor.reshape
round = Tensor.round
sigmoid = Tensor.sigmoid
sign = Tensor.sign
sin = Tensor.sin
softmax = Tensor.softmax
sort = Tensor.sort
split = Tensor.split
sqrt = Tensor.sqrt
square = Tensor.square
squeeze = Tensor.squeeze
std = Tensor.std
sub = Tensor.sub
sum = Tensor.sum
t = Tensor.t
tanh = Tensor.tanh
topk = Tensor.topk
transpose = Tensor.transpose
tril = Tensor.tril
triu = Tensor.triu
unbind = Tensor.unbind
unique = Tensor.unique
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
