"""Types of the compiled kernels; `_core.pyx` documents them."""

from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

_Floats: TypeAlias = npt.NDArray[Any]
_Doubles: TypeAlias = npt.NDArray[np.float64]

HAS_OPENMP: bool
HAS_FMA: bool
HAS_SIMD: bool
COMPILER: str
BLOCK_SIZE: int
STREAM_BYTES: int
STREAM_PIXELS_BYTES: int
__test__: dict[str, str]  # Cython's, of docstrings with doctests

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def forbid_threads() -> None: ...
def forward(
    x: _Floats,
    y: _Floats,
    weight: _Floats | None,
    bias: _Floats | None,
    mean: _Doubles,
    rstd: _Doubles,
    eps: float,
    channels_last: bool = False,
    residual: _Floats | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    activation: int = 0,
    slope: _Doubles | None = None,
) -> None: ...
def statistics(
    x: _Floats,
    mean: _Doubles,
    rstd: _Doubles,
    eps: float,
    channels_last: bool = False,
    mask: npt.NDArray[np.bool_] | None = None,
    exact: bool = False,
) -> None: ...
def forward_given(
    x: _Floats,
    y: _Floats,
    weight: _Floats | None,
    bias: _Floats | None,
    mean: _Doubles,
    rstd: _Doubles,
    channels_last: bool = False,
    residual: _Floats | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    activation: int = 0,
    slope: _Doubles | None = None,
) -> None: ...
def backward(
    grad_output: _Floats,
    x: _Floats,
    grad_input: _Floats,
    weight: _Floats | None,
    mean: _Doubles,
    rstd: _Doubles,
    grad_weight: _Doubles,
    grad_bias: _Doubles,
    through_statistics: bool,
    channels_last: bool = False,
    bias: _Floats | None = None,
    residual: _Floats | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    activation: int = 0,
    slope: _Doubles | None = None,
    grad_residual: _Floats | None = None,
    grad_slope: _Doubles | None = None,
    from_output: bool = False,
) -> None: ...

# The entries for small arrays take anything, and return None for what is not small and plain.

@overload
def forward_small(
    x: object, weight: object, bias: object, eps: object, return_stats: Literal[False]
) -> _Floats | None: ...
@overload
def forward_small(
    x: object, weight: object, bias: object, eps: object, return_stats: bool
) -> Any: ...
def backward_small(
    grad_output: object,
    x: object,
    weight: object,
    mean: object,
    rstd: object,
    through_statistics: bool,
) -> tuple[_Floats, _Floats, _Floats] | None: ...
def update_running(
    running_mean: object,
    running_var: object,
    mean: _Doubles,
    rstd: _Doubles,
    momentum: float,
    eps: float,
    length: int,
    counts: npt.NDArray[np.int64] | None = None,
) -> bool: ...
