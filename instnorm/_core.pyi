"""Types of the compiled kernels; `_core.pyx` documents them."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

_Floats: TypeAlias = npt.NDArray[Any]
_Doubles: TypeAlias = npt.NDArray[np.float64]

HAS_OPENMP: bool
HAS_FMA: bool
COMPILER: str
BLOCK_SIZE: int
STREAM_BYTES: int
STREAM_PIXELS_BYTES: int

def cpu_supports(level: str) -> bool: ...
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
) -> None: ...
def statistics(
    x: _Floats, mean: _Doubles, rstd: _Doubles, eps: float, channels_last: bool = False
) -> None: ...
def forward_given(
    x: _Floats,
    y: _Floats,
    weight: _Floats | None,
    bias: _Floats | None,
    mean: _Doubles,
    rstd: _Doubles,
    channels_last: bool = False,
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
) -> None: ...
def forward_small(
    x: Any, weight: Any, bias: Any, eps: Any
) -> tuple[_Floats, _Doubles, _Doubles] | None: ...
def backward_small(
    grad_output: Any, x: Any, weight: Any, mean: Any, rstd: Any, through_statistics: bool
) -> tuple[_Floats, _Floats, _Floats] | None: ...
