from instnorm._layouts import Array

__test__: dict[str, str]  # Cython's, of docstrings with doctests

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def forbid_threads() -> None: ...
def convolve(
    source: Array,
    weight: Array,
    bias: Array | None,
    result: Array,
    window: tuple[int, ...],
    groups: int,
    adjoint: bool = False,
) -> None: ...
def weight_gradient(
    large: Array,
    small: Array,
    grad_weight: Array,
    grad_bias: Array | None,
    window: tuple[int, ...],
    groups: int,
) -> None: ...
def pool(
    task: str,
    large: Array,
    small: Array,
    extra: Array | None,
    window: tuple[int, ...] = (),
) -> None: ...
def elementwise(task: str, a: Array, b: Array | None, out: Array, number: float = 0.0) -> bool: ...
def error_sum(a: Array, b: Array, squared: bool) -> float | None: ...
def cross_entropy(scores: Array, labels: Array, ignored: int, p: Array) -> tuple[float, int]: ...
def cross_entropy_gradient(
    p: Array, labels: Array, ignored: int, scale: float, out: Array
) -> None: ...
def multiply(a: Array, b: Array, bias: Array | None, out: Array) -> None: ...
def descend_step(
    parameter: Array,
    gradient: Array,
    buffer: Array | None,
    first: bool,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> bool: ...

TASKS: dict[str, int]
ELEMENT_TASKS: dict[str, int]
