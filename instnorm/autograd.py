"""Reverse-mode automatic differentiation: Function, the graph, backward, no_grad.

The graph is made of Functions. Applying one to Tensors that require gradients
leaves an instance of it, a *node*, as the result's `grad_fn`. A node knows what
its backward needs (`save_for_backward`) and where each gradient goes (`_edges`):
to the node that made the argument, or to the argument itself where it is a leaf.
The arguments' data are not kept unless saved.

Backward functions are written in Tensor operations, so with `create_graph=True`
the gradients carry a graph of their own, and can be differentiated again.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from sys import getrefcount
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np

from instnorm._runtime.memory import SMALLEST_RECYCLED, recycled_memory

if TYPE_CHECKING:
    from instnorm.tensor import Tensor

__all__ = ["Function", "enable_grad", "grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]


# --- grad mode ---------------------------------------------------------------


_F = TypeVar("_F", bound=Callable[..., Any])


class _GradMode(threading.local):
    enabled = True


_mode = _GradMode()


def is_grad_enabled() -> bool:
    """Return whether operations are recorded in the graph, in this thread."""
    return _mode.enabled


def is_recorded(*operands: Tensor | None) -> bool:
    """Return whether an operation on these Tensors is recorded in the graph."""
    if _mode.enabled:
        for operand in operands:  # `any` with a generator takes twice the time of this loop
            if operand is not None and operand._requires_grad:
                return True
    return False


class _SetGradEnabled(contextlib.ContextDecorator):
    """Set the grad mode of this thread for a block or a function, then restore it."""

    enabled: bool

    def __init__(self) -> None:
        self._before: list[bool] = []

    def _recreate_cm(self) -> _SetGradEnabled:
        # A decorated function may run in several threads, and the mode is each thread's own.
        return type(self)()

    def __enter__(self) -> None:
        self._before.append(_mode.enabled)
        _mode.enabled = self.enabled

    def __exit__(self, *exc: object) -> None:
        _mode.enabled = self._before.pop()


class no_grad(_SetGradEnabled):  # noqa: N801 - PyTorch's name
    """Leave operations out of the graph, in a ``with`` block or a decorated function.

    Examples
    --------
    >>> import instnorm
    >>> w = instnorm.tensor([1.0], requires_grad=True)
    >>> with instnorm.no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """

    enabled = False


class set_grad_enabled(_SetGradEnabled):  # noqa: N801 - PyTorch's name
    """Record operations in the graph, or leave them out, from here on or in a ``with`` block."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.enabled = mode
        super().__enter__()  # at once, without a block too

    def __call__(self, func: _F) -> _F:
        """Decorate a function: which changes nothing but in its calls."""
        self.__exit__()
        return super().__call__(func)

    def _recreate_cm(self) -> set_grad_enabled:
        return type(self)(self.enabled)

    def __enter__(self) -> None:
        """Go on, as the mode is set."""


class enable_grad(_SetGradEnabled):  # noqa: N801 - PyTorch's name
    """Record operations in the graph again, inside a `no_grad` block."""

    enabled = True


# --- Function ----------------------------------------------------------------

# Where a gradient goes: (node, which of its outputs) or (leaf, 0); None: nowhere.
_Target: TypeAlias = "Function | Tensor"
_Edge: TypeAlias = "tuple[_Target, int] | None"
# What waits for more to come: a gradient for each output of a node, one for a leaf.
_Pending: TypeAlias = "dict[_Target, list[Tensor | None]]"
# By number: (which output, what to call with its gradient).
_Hooks: TypeAlias = "dict[int, tuple[int, Callable[[Tensor], Tensor | None]]]"


_numbers = itertools.count()


class Function:
    """One differentiable operation: subclass it, and call `apply`.

    A subclass defines two static methods. ``forward(ctx, *args)`` gets the arguments
    of `apply`, Tensors among them, and returns a Tensor or an ndarray, or a tuple of
    these. ``backward(ctx, *grad_outputs)`` gets a Tensor for each output and returns
    a Tensor or None for each argument of `apply`. Written in Tensor operations,
    backward is itself differentiable.

    `ctx` is the node: an instance of the subclass, on which forward leaves what
    backward needs.

    Examples
    --------
    >>> import instnorm
    >>> class Cube(instnorm.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**3
    ...     @staticmethod
    ...     def backward(ctx, grad_output):
    ...         (x,) = ctx.saved_tensors
    ...         return grad_output * 3 * x**2
    >>> x = instnorm.tensor([2.0], requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor([12.])
    """

    _edges: Sequence[_Edge]
    _specs: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]  # shape, dtype of each output
    _hooks: _Hooks | None = None  # of the outputs
    _number: int  # nodes are numbered in the order of their making
    # What was saved, None once it was freed; of each Tensor in it, the counter of changes and what
    # it stood at; and for those that are outputs of the node itself, which one.
    _saved: tuple[Any, ...] | None = ()
    _versions: Sequence[tuple[list[int], int]] = ()
    _saved_outputs: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        """Compute the operation's result from the arguments of `apply`."""
        raise NotImplementedError("a Function must define forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Compute the gradient for each argument of `apply`."""
        raise NotImplementedError("a Function must define backward(ctx, *grad_outputs)")

    @classmethod
    def apply(cls, *args: Any) -> Tensor:
        """Run the operation, and record it if an argument requires gradients.

        Returns
        -------
        Tensor or tuple of Tensor
            What forward returned, as Tensors.
        """
        node = cls()
        edges: list[_Edge] = [None] * len(args)
        recorded = large = False
        for i, a in enumerate(args):
            if isinstance(a, Tensor):
                if a.data.nbytes >= SMALLEST_RECYCLED:
                    large = True  # the result may be so too: allocate it from the cache
                if a._requires_grad:
                    recorded = True
                    source = a.grad_fn  # _edge_to(a), without the call
                    edges[i] = (a, 0) if source is None else (source, a._output_index)
        node._edges = edges
        recording = _mode.enabled
        if recording:
            _mode.enabled = False
        try:
            if large:
                with recycled_memory():
                    result = cls.forward(node, *args)
            else:
                result = cls.forward(node, *args)
        finally:
            if recording:
                _mode.enabled = True
        recorded = recorded and recording
        if recorded:
            node._number = next(_numbers)
        if type(result) is np.ndarray:
            out = Tensor._of(result)
            if recorded:
                dtype = result.dtype
                node._specs = ((result.shape, dtype),)
                if dtype.kind not in "biu":
                    out.grad_fn, out._output_index, out._requires_grad = node, 0, True
            return out
        outputs = tuple(
            [_as_output(r, args) for r in (result if isinstance(result, tuple) else (result,))]
        )
        if recorded:
            node._specs = [(out.data.shape, out.data.dtype) for out in outputs]
            for index, out in enumerate(outputs):
                if out.data.dtype.kind not in "biu":
                    out._set_history(node, index)
            node._find_saved_outputs(outputs)
        # The return type says Tensor for a tuple of them too, as a Tensor can be unpacked as well.
        return cast("Tensor", outputs) if isinstance(result, tuple) else outputs[0]

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each argument of `apply`, whether a gradient is wanted."""
        return tuple([edge is not None for edge in self._edges])

    def save_for_backward(self, *values: Tensor | np.ndarray[Any, Any] | None) -> None:
        """Keep Tensors, or arrays that are constants, for backward.

        An argument or a result of this Function stays connected to the graph. Changing
        a saved Tensor in place makes backward raise an error.
        """
        self._saved = values
        self._versions = [(v._counter, v._counter[0]) for v in values if isinstance(v, Tensor)]

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved, each as it was given."""
        saved = self._saved
        if saved is None:
            raise RuntimeError(
                "backward ran through this part of the graph before, and its saved tensors were "
                "freed. Pass retain_graph=True to the first backward() or grad() to run it twice."
            )
        for counter, version in self._versions:
            if counter[0] != version:
                changed = [v.shape for v in saved if getattr(v, "_counter", None) is counter]
                raise RuntimeError(
                    f"a Tensor of shape {changed[0]} that {type(self).__name__} needs for its "
                    "gradient was modified by an in-place operation after it was saved; "
                    "compute a new Tensor instead, for example x = x + 1 instead of x += 1"
                )
        if not self._saved_outputs:
            return saved
        values = list(saved)
        for place, index in self._saved_outputs:
            values[place] = values[place].detach()
            values[place]._set_history(self, index)
        return tuple(values)

    def _find_saved_outputs(self, outputs: tuple[Tensor, ...]) -> None:
        """Keep no reference to the node's own outputs: it would be a cycle."""
        saved = list(self._saved or ())
        for place, value in enumerate(saved):
            for index, out in enumerate(outputs):
                if value is out:
                    saved[place] = out.detach()
                    self._saved_outputs += ((place, index),)
        self._saved = tuple(saved)


def _as_output(result: Any, args: tuple[Any, ...]) -> Tensor:
    if not isinstance(result, Tensor):
        return Tensor._of(np.asarray(result))
    # A Tensor that has a history, or is an argument, must not get another history.
    if result.requires_grad or any(result is a for a in args):
        return result.detach()
    return result


def _edge_to(tensor: Tensor) -> tuple[_Target, int]:
    node = tensor.grad_fn
    return (tensor, 0) if node is None else (node, tensor._output_index)


# --- hooks -----------------------------------------------------------------------


class RemovableHandle:
    """Takes a hook back: `remove`, or the end of a ``with`` block."""

    _numbers = itertools.count()

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self._hooks = hooks
        self._number = next(self._numbers)
        hooks[self._number] = hook

    def remove(self) -> None:
        """Take the hook back, if it has not been yet."""
        self._hooks.pop(self._number, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def register_hook(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Have `hook` called with the gradient of `tensor`; a Tensor that it returns replaces it."""
    if not tensor._requires_grad:
        raise RuntimeError("a hook needs a Tensor that requires gradients, and this one does not")
    target, index = _edge_to(tensor)
    if target._hooks is None:
        target._hooks = {}
    return RemovableHandle(target._hooks, (index, hook))


def _run_hooks(hooks: _Hooks, grads: list[Tensor | None]) -> None:
    for index, hook in list(hooks.values()):
        before = grads[index]
        after = None if before is None else hook(before)
        if before is None or after is None:
            continue
        if not isinstance(after, Tensor) or after.shape != before.shape:
            got = f"shape {after.shape}" if isinstance(after, Tensor) else type(after).__name__
            raise RuntimeError(
                f"a hook returned {got}, expected None or a Tensor of shape {before.shape}"
            )
        grads[index] = after.to(before.dtype)


# --- the backward pass ---------------------------------------------------------


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    create_graph: bool = False,
    *,
    retain_graph: bool | None = None,
    only_inputs: bool = True,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of `outputs` for `inputs`, returned and not accumulated.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensor
        What is differentiated.
    inputs : Tensor or sequence of Tensor
        By which; leaves or intermediate results.
    grad_outputs : Tensor, None, or sequence of these, optional
        A gradient for each output; may be left out for scalars, which get 1.
    create_graph : bool, default False
        Whether the result can itself be differentiated.
    retain_graph : bool, optional
        Whether to keep the graph for another pass; by default as `create_graph`.
    only_inputs : bool, default True
        For PyTorch's sake, which has no other.
    allow_unused : bool, default False
        Whether an input that the outputs do not depend on gets None, or is an error.

    Returns
    -------
    tuple of Tensor
        One for each input.

    Raises
    ------
    RuntimeError
        If a gradient is missing for a non-scalar output or has the wrong shape, an
        input does not require gradients or is unused, or the graph was freed.

    Examples
    --------
    >>> import instnorm
    >>> x = instnorm.tensor([3.0], requires_grad=True)
    >>> (first,) = instnorm.grad(x**3, x, create_graph=True)
    >>> (second,) = instnorm.grad(first, x)
    >>> first.item(), second.item()
    (27.0, 18.0)
    """
    outputs = _sequence(outputs, "outputs")
    inputs = _sequence(inputs, "inputs")
    if grad_outputs is None or isinstance(grad_outputs, Tensor):
        grad_outputs = [grad_outputs] * len(outputs) if grad_outputs is None else [grad_outputs]
    if len(grad_outputs) != len(outputs):
        raise RuntimeError(
            f"grad_outputs has {len(grad_outputs)} entries, expected one for each of the "
            f"{len(outputs)} outputs"
        )
    for i, tensor in enumerate(inputs):
        if not tensor.requires_grad:
            raise RuntimeError(f"inputs[{i}] does not require gradients")
    seeds = [seed(out, g) for out, g in zip(outputs, grad_outputs, strict=True)]
    found = run_backward(seeds, inputs, create_graph, retain_graph)
    if not allow_unused:
        for i, gradient in enumerate(found):
            if gradient is None:
                raise RuntimeError(
                    f"inputs[{i}] appears not to have been used in the graph; "
                    "pass allow_unused=True to get None for it"
                )
    return found


def _sequence(value: Any, name: str) -> Sequence[Tensor]:
    values = [value] if isinstance(value, Tensor) else list(value)
    for i, entry in enumerate(values):
        if not isinstance(entry, Tensor):
            raise TypeError(f"{name}[{i}] must be a Tensor, got {type(entry).__name__}")
    return values


def run_backward(
    seeds: Sequence[tuple[_Target, int, Tensor]],
    inputs: Sequence[Tensor] | None,
    create_graph: bool,
    retain_graph: bool | None,
) -> tuple[Tensor | None, ...]:
    """Send gradients from the seeds to the leaves' `grad`, or, returned, to `inputs`.

    The newest node goes first: all that use its outputs are newer, so they have run, and its
    gradients are complete.
    """
    wanted = None if inputs is None else _Wanted(inputs, [target for target, _, _ in seeds])
    if retain_graph is None:
        retain_graph = create_graph
    pending: _Pending = {}
    ready: list[tuple[int, Function]] = []  # a heap, whose first node is the newest

    before = _mode.enabled
    _mode.enabled = create_graph
    try:
        for target, index, gradient in seeds:
            _add(gradient, target, index, pending, ready)
        while ready:
            node = heappop(ready)[1]
            grads = pending.pop(node)
            if node._hooks is not None:
                _run_hooks(node._hooks, grads)
            if wanted is None or wanted.takes(node, grads):
                _run_node(node, grads, pending, ready)
                if not retain_graph:
                    node._saved = None if node._saved else ()
        for leaf, grads in pending.items():  # only leaves are left
            if leaf._hooks is not None and (wanted is None or wanted.has(leaf)):
                _run_hooks(leaf._hooks, grads)
        if wanted is not None:
            return wanted.found(pending)
        while pending:
            leaf, grads = pending.popitem()
            _accumulate(leaf, grads.pop(), create_graph)  # type: ignore[arg-type]
        return ()
    finally:
        _mode.enabled = before


def seed(output: Tensor, gradient: Any) -> tuple[_Target, int, Tensor]:
    """Return where the backward pass starts for `output`, and with which gradient."""
    if not output._requires_grad:
        raise RuntimeError(
            "this Tensor does not require gradients and has no grad_fn: nothing that it was "
            "computed from was created with requires_grad=True, or it was computed under no_grad"
        )
    data = output.data
    if gradient is None:
        if data.size != 1:
            raise RuntimeError(
                f"gradient can be left out only for a scalar, and the Tensor has shape "
                f"{data.shape}; pass one of that shape, or reduce the Tensor by .sum() or .mean()"
            )
        gradient = Tensor._of(np.ones(data.shape, data.dtype))
    elif not isinstance(gradient, Tensor):
        gradient = Tensor(gradient)
    if gradient.data.shape != data.shape:
        raise RuntimeError(
            f"gradient has shape {gradient.shape}, expected that of the Tensor, {data.shape}"
        )
    if gradient.data.dtype != data.dtype:
        gradient = gradient.to(data.dtype)
    return *_edge_to(output), gradient


def _run_node(
    node: Function,
    grads: list[Tensor | None],
    pending: _Pending,
    ready: list[tuple[int, Function]],
) -> None:
    """Run the node's backward, and send on what it returns for each argument."""
    if len(grads) > 1:
        for index, g in enumerate(grads):
            if g is None:
                grads[index] = Tensor._of(np.zeros(*node._specs[index]))
    result = node.backward(node, *grads)
    if not isinstance(result, tuple):
        result = (result,)
    if len(result) != len(node._edges):
        raise RuntimeError(
            f"{type(node).__name__}.backward returned {len(result)} gradients, expected "
            f"{len(node._edges)}: one for each argument of apply"
        )
    for edge, g in zip(node._edges, result):  # noqa: B905 - strict=True takes time, and the lengths were compared
        if edge is None or g is None:
            continue
        target, index = edge
        if isinstance(target, Tensor):
            shape, dtype = target.data.shape, target.data.dtype
        else:
            shape, dtype = target._specs[index]
        if not isinstance(g, Tensor) or g.data.shape != shape:
            raise _error_of_gradient(node, edge, g, shape)
        if g.data.dtype is not dtype and g.data.dtype != dtype:
            g = g.to(dtype)
        _add(g, target, index, pending, ready)


def _add(
    gradient: Tensor,
    target: _Target,
    index: int,
    pending: _Pending,
    ready: list[tuple[int, Function]],
) -> None:
    """Add a gradient to what waits at one output of a node, or at a leaf."""
    slots = pending.get(target)
    if slots is None:
        if isinstance(target, Tensor):
            pending[target] = [gradient]
            return
        heappush(ready, (-target._number, target))
        pending[target] = slots = [None] * len(target._specs)
    so_far = slots[index]
    slots[index] = gradient if so_far is None else so_far + gradient


def _error_of_gradient(
    sender: Function, edge: _Edge, gradient: Any, shape: tuple[int, ...]
) -> Exception:
    """What to raise where a backward returned a gradient that does not fit."""
    start = f"{type(sender).__name__}.backward returned "
    argument = f"argument {sender._edges.index(edge)}"
    if not isinstance(gradient, Tensor):
        return TypeError(
            f"{start}{type(gradient).__name__} for {argument}, expected a Tensor or None"
        )
    return RuntimeError(
        f"{start}a gradient of shape {gradient.shape} for {argument}, expected the argument's "
        f"shape {shape}"
    )


def _accumulate(leaf: Tensor, gradient: Tensor, create_graph: bool) -> None:
    """Add a gradient to the leaf's `grad`."""
    if create_graph:
        leaf.grad = gradient.clone() if leaf.grad is None else leaf.grad + gradient
    elif leaf._grad is not None:
        leaf._grad = Tensor._of(np.asarray(leaf._grad.data + gradient.data))
    else:
        array = gradient.data
        # The array becomes the leaf's gradient without a copy only if nobody else holds it:
        # two leaves may have been sent the same one, or a backward function may keep it.
        unseen = (
            getrefcount(gradient) <= _UNSHARED
            and getrefcount(array) <= _UNSHARED + 1  # the Tensor's own reference
            and (flags := array.flags).owndata
            and flags.writeable
            and array.strides == leaf.data.strides
        )
        if not unseen:
            leaf._grad = Tensor._of(_copy_like(array, leaf.data))
        elif type(gradient) is Tensor and not gradient._requires_grad:
            leaf._grad = gradient
        else:
            leaf._grad = Tensor._of(array)


def _references_to_a_local() -> int:
    """How many references this interpreter counts to what one local variable holds."""
    local = object()
    return getrefcount(local)


_UNSHARED = _references_to_a_local()


def _copy_like(array: np.ndarray[Any, Any], like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values of one array in new memory, in the layout of another."""
    with recycled_memory():
        copy = np.empty_like(like, subok=False)
    copy[...] = array
    return copy


class _Wanted:
    """What `grad` asks for: the gradients at some edges, and so the nodes that lead to these."""

    def __init__(self, inputs: Sequence[Tensor], roots: list[_Target]) -> None:
        self._edges = [_edge_to(tensor) for tensor in inputs]
        self._at_nodes: _Pending = {}
        self._targets = {target for target, _ in self._edges}
        wanted = set(self._edges)
        self._leading: set[Function] = set()
        for node in sorted(_nodes_behind(roots), key=lambda node: node._number):
            if any(e is not None and (e in wanted or e[0] in self._leading) for e in node._edges):
                self._leading.add(node)

    def takes(self, node: Function, grads: list[Tensor | None]) -> bool:
        """Note the gradients of the node's outputs; return whether its backward has to run."""
        if self.has(node):
            self._at_nodes[node] = list(grads)
        return node in self._leading

    def has(self, target: _Target) -> bool:
        """Return whether a gradient of this node or leaf is asked for."""
        return target in self._targets

    def found(self, at_leaves: _Pending) -> tuple[Tensor | None, ...]:
        """Return one gradient for each of the inputs, None where none came."""
        found: _Pending = {**self._at_nodes, **at_leaves}
        return tuple([found[t][index] if t in found else None for t, index in self._edges])


def _nodes_behind(roots: Sequence[_Target]) -> set[Function]:
    found: set[Function] = set()
    stack = list(roots)
    while stack:  # not by recursion: Python's stack would overflow on deep graphs
        node = stack.pop()
        if isinstance(node, Function) and node not in found:
            found.add(node)
            stack += [edge[0] for edge in node._edges if edge is not None]
    return found


# The one import at the end: Tensor's operations are Functions, so `tensor` needs what is above.
from instnorm.tensor import Tensor  # noqa: E402
