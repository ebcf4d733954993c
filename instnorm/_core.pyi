"""Types of the compiled kernels; `_core.pyx` documents them."""

from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

HAS_OPENMP: bool
HAS_FMA: bool
COMPILER: str
BLOCK_SIZE: int
STREAM_BYTES: int
STREAM_PIXELS_BYTES: int
__test__: dict[str, str]  # Cython's, of docstrings with doctests

def cpu_supports(level: str) -> bool: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def forbid_threads() -> None: ...
def forward(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    weight: npt.NDArray[Any] | None,
    bias: npt.NDArray[Any] | None,
    mean: npt.NDArray[np.float64],
    rstd: npt.NDArray[np.float64],
    eps: float,
    channels_last: bool = False,
) -> None: ...
def statistics(
    x: npt.NDArray[Any],
    mean: npt.NDArray[np.float64],
    rstd: npt.NDArray[np.float64],
    eps: float,
    channels_last: bool = False,
) -> None: ...
def forward_given(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    weight: npt.NDArray[Any] | None,
    bias: npt.NDArray[Any] | None,
    mean: npt.NDArray[np.float64],
    rstd: npt.NDArray[np.float64],
    channels_last: bool = False,
) -> None: ...
def backward(
    grad_output: npt.NDArray[Any],
    x: npt.NDArray[Any],
    grad_input: npt.NDArray[Any],
    weight: npt.NDArray[Any] | None,
    mean: npt.NDArray[np.float64],
    rstd: npt.NDArray[np.float64],
    grad_weight: npt.NDArray[np.float64],
    grad_bias: npt.NDArray[np.float64],
    through_statistics: bool,
    channels_last: bool = False,
) -> None: ...

# The entries for small arrays take anything, and return None for what is not small and plain.

@overload
def forward_small(
    x: object, weight: object, bias: object, eps: object, return_stats: Literal[False]
) -> npt.NDArray[Any] | None: ...
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
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]] | None: ...
def update_running(
    running_mean: object,
    running_var: object,
    mean: npt.NDArray[np.float64],
    rstd: npt.NDArray[np.float64],
    momentum: float,
    eps: float,
    length: int,
) -> bool: ...
