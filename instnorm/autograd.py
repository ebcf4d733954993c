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
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from instnorm._runtime.memory import SMALLEST_RECYCLED, recycled_memory

if TYPE_CHECKING:
    from instnorm.tensor import Tensor

__all__ = ["Function", "enable_grad", "grad", "is_grad_enabled", "no_grad"]


# --- grad mode ---------------------------------------------------------------


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


class enable_grad(_SetGradEnabled):  # noqa: N801 - PyTorch's name
    """Record operations in the graph again, inside a `no_grad` block."""

    enabled = True


# --- Function ----------------------------------------------------------------

# Where a gradient goes: (node, which of its outputs) or (leaf, 0); None: nowhere.
_Edge: TypeAlias = "tuple[Function | Tensor, int] | None"


class Function:
    """One differentiable operation: subclass it, and call `apply`.

    A subclass defines two static methods. ``forward(ctx, *args)`` gets the arguments
    of `apply`, Tensors among them, and returns a Tensor or an ndarray, or a tuple of
    these. ``backward(ctx, *grad_outputs)`` gets a Tensor for each output and returns
    a Tensor or None for each argument of `apply`. Written in Tensor operations,
    backward is itself differentiable.

    `ctx` is the node: an instance of the subclass, on which forward leaves what
    backward needs.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        For each argument of `apply`, whether a gradient is wanted.
    saved_tensors : tuple
        What forward gave to `save_for_backward`.

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

    needs_input_grad: tuple[bool, ...]
    _edges: tuple[_Edge, ...]
    _specs: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]  # shape, dtype of each output
    # What was saved, None once it was freed; the version of each Tensor in it; and for those
    # that are outputs of the node itself, which one.
    _saved: tuple[Any, ...] | None = ()
    _versions: tuple[int | None, ...] = ()
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
        needs: list[bool] = []
        edges: list[_Edge] = []
        large = False
        for a in args:
            if isinstance(a, _tensor.Tensor):
                needs.append(a._requires_grad)
                edges.append(_edge_to(a) if a._requires_grad else None)
                if a.data.nbytes >= SMALLEST_RECYCLED:
                    large = True  # the result may be so too: allocate it from the cache
            else:
                needs.append(False)
                edges.append(None)
        node.needs_input_grad = tuple(needs)
        node._edges = tuple(edges)
        recording = _mode.enabled
        _mode.enabled = False
        try:
            if large:
                with recycled_memory():
                    result = cls.forward(node, *args)
            else:
                result = cls.forward(node, *args)
        finally:
            _mode.enabled = recording
        is_new = type(result) is np.ndarray
        if is_new:
            outputs: tuple[Tensor, ...] = (_tensor.Tensor._of(result),)
        else:
            results = result if isinstance(result, tuple) else (result,)
            outputs = tuple([_as_output(r, args) for r in results])
        if recording and True in needs:
            node._record(outputs)
            if not is_new:
                node._find_saved_outputs(outputs)
        # The return type says Tensor for a tuple of them too, as a Tensor can be unpacked as well.
        return cast("Tensor", outputs) if isinstance(result, tuple) else outputs[0]

    def save_for_backward(self, *values: Tensor | np.ndarray[Any, Any] | None) -> None:
        """Keep Tensors, or arrays that are constants, for backward.

        An argument or a result of this Function stays connected to the graph. Changing
        a saved Tensor in place makes backward raise an error.
        """
        self._saved = values
        self._versions = tuple(
            [v._counter[0] if isinstance(v, _tensor.Tensor) else None for v in values]
        )

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved, each as it was given."""
        saved = self._saved
        if saved is None:
            raise RuntimeError(
                "backward ran through this part of the graph before, and its saved tensors were "
                "freed. Pass retain_graph=True to the first backward() or grad() to run it twice."
            )
        for value, version in zip(saved, self._versions):  # noqa: B905 - strict=True takes time, and both are as long
            if version is not None and value._counter[0] != version:
                raise RuntimeError(
                    f"a Tensor of shape {value.shape} that {type(self).__name__} needs for its "
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

    def _record(self, outputs: tuple[Tensor, ...]) -> None:
        self._specs = tuple([(out.data.shape, out.data.dtype) for out in outputs])
        for index, out in enumerate(outputs):
            if out.data.dtype.kind not in "biu":
                out._set_history(self, index)

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
    if not isinstance(result, _tensor.Tensor):
        return _tensor.Tensor._of(np.asarray(result))
    # A Tensor that has a history, or is an argument, must not get another history.
    if result.requires_grad or any(result is a for a in args):
        return result.detach()
    return result


def _edge_to(tensor: Tensor) -> tuple[Function | Tensor, int]:
    node = tensor.grad_fn
    return tensor if node is None else node, tensor._output_index


# --- the backward pass ---------------------------------------------------------


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    create_graph: bool = False,
    *,
    retain_graph: bool | None = None,
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
    if grad_outputs is None or isinstance(grad_outputs, _tensor.Tensor):
        grad_outputs = [grad_outputs] * len(outputs) if grad_outputs is None else [grad_outputs]
    if len(grad_outputs) != len(outputs):
        raise RuntimeError(
            f"grad_outputs has {len(grad_outputs)} entries, expected one for each of the "
            f"{len(outputs)} outputs"
        )
    for i, tensor in enumerate(inputs):
        if not tensor.requires_grad:
            raise RuntimeError(f"inputs[{i}] does not require gradients")
    found = _run_backward(outputs, grad_outputs, inputs, create_graph, retain_graph)
    if not allow_unused:
        for i, gradient in enumerate(found):
            if gradient is None:
                raise RuntimeError(
                    f"inputs[{i}] appears not to have been used in the graph; "
                    "pass allow_unused=True to get None for it"
                )
    return found


def backward(tensor: Tensor, gradient: Any, create_graph: bool, retain_graph: bool | None) -> None:
    """Accumulate the gradients of `tensor` into the `grad` of the graph's leaves."""
    _run_backward([tensor], [gradient], None, create_graph, retain_graph)


def _sequence(value: Any, name: str) -> Sequence[Tensor]:
    values = [value] if isinstance(value, _tensor.Tensor) else list(value)
    for i, entry in enumerate(values):
        if not isinstance(entry, _tensor.Tensor):
            raise TypeError(f"{name}[{i}] must be a Tensor, got {type(entry).__name__}")
    return values


def _run_backward(
    outputs: Sequence[Tensor],
    grad_outputs: Sequence[Any],
    inputs: Sequence[Tensor] | None,
    create_graph: bool,
    retain_graph: bool | None,
) -> tuple[Tensor | None, ...]:
    """Send gradients from the outputs to the leaves, or to `inputs` where given."""
    seeds = [_seed(out, g) for out, g in zip(outputs, grad_outputs, strict=True)]
    order = _consumers_last([out.grad_fn for out in outputs if out.grad_fn is not None])
    sink = _Leaves(create_graph) if inputs is None else _Inputs(inputs, order)
    pending: dict[Function, list[Tensor | None]] = {}
    retain_graph = create_graph if retain_graph is None else retain_graph

    before = _mode.enabled
    _mode.enabled = create_graph
    try:
        for out, seed in zip(outputs, seeds, strict=True):
            _send(seed, _edge_to(out), pending, sink)
        while order:
            node = order.pop()
            grads = pending.pop(node, None)
            if grads is not None and sink.accept_from_node(node, grads):
                _run_node(node, grads, pending, sink)
                if not retain_graph:
                    node._saved = None if node._saved else ()
        return sink.result()
    finally:
        _mode.enabled = before


def _seed(output: Tensor, gradient: Any) -> Tensor:
    """Return the gradient that the backward pass starts with at `output`."""
    if not output.requires_grad:
        raise RuntimeError(
            "this Tensor does not require gradients and has no grad_fn: nothing that it was "
            "computed from was created with requires_grad=True, or it was computed under no_grad"
        )
    if gradient is None:
        if output.data.size != 1:
            raise RuntimeError(
                f"gradient can be left out only for a scalar, and the Tensor has shape "
                f"{output.shape}; pass one of that shape, or reduce the Tensor by .sum() or .mean()"
            )
        return _tensor.Tensor._of(np.ones(output.shape, output.dtype))
    seed = gradient if isinstance(gradient, _tensor.Tensor) else _tensor.Tensor(gradient)
    if seed.shape != output.shape:
        raise RuntimeError(
            f"gradient has shape {seed.shape}, expected that of the Tensor, {output.shape}"
        )
    return seed


def _consumers_last(roots: list[Function]) -> list[Function]:
    """All nodes that the roots lead to, each one before every node that uses its output.

    A depth-first search with a stack of its own: Python's would overflow on deep graphs.
    """
    if len(roots) == 1 and not _functions_behind(roots[0]):
        return roots
    order: list[Function] = []
    seen: set[Function] = set()
    stack: list[tuple[Function, bool]] = [(root, False) for root in roots]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(below, False) for below in _functions_behind(node) if below not in seen]
    return order


def _functions_behind(node: Function) -> list[Function]:
    return [edge[0] for edge in node._edges if edge and isinstance(edge[0], Function)]


def _run_node(
    node: Function,
    grads: list[Tensor | None],
    pending: dict[Function, list[Tensor | None]],
    sink: _Leaves | _Inputs,
) -> None:
    """Run the node's backward, and send on what it returns for each argument."""
    for index, g in enumerate(grads):
        if g is None:
            grads[index] = _tensor.Tensor._of(np.zeros(*node._specs[index]))
    result = node.backward(node, *grads)
    if not isinstance(result, tuple):
        result = (result,)
    if len(result) != len(node._edges):
        raise RuntimeError(
            f"{type(node).__name__}.backward returned {len(result)} gradients, expected "
            f"{len(node._edges)}: one for each argument of apply"
        )
    for edge, g in zip(node._edges, result):  # noqa: B905 - strict=True takes time, and the lengths were compared
        if edge is not None and g is not None:
            _send(g, edge, pending, sink, node)


def _send(
    gradient: Any,
    edge: tuple[Function | Tensor, int],
    pending: dict[Function, list[Tensor | None]],
    sink: _Leaves | _Inputs,
    sender: Function | None = None,
) -> None:
    target, index = edge
    if isinstance(target, Function):
        shape, dtype = target._specs[index]
    else:
        shape, dtype = target.data.shape, target.data.dtype
    if not isinstance(gradient, _tensor.Tensor) or gradient.data.shape != shape:
        raise _error_of_gradient(sender, edge, gradient, shape)
    if gradient.data.dtype is not dtype and gradient.data.dtype != dtype:
        gradient = gradient.to(dtype)
    if not isinstance(target, Function):
        sink.accept_for_leaf(target, gradient)
        return
    slots = pending.setdefault(target, [None] * len(target._specs))
    so_far = slots[index]
    slots[index] = gradient if so_far is None else so_far + gradient


def _error_of_gradient(
    sender: Function | None,
    edge: tuple[Function | Tensor, int],
    gradient: Any,
    shape: tuple[int, ...],
) -> Exception:
    """What to raise where a backward returned a gradient that does not fit."""
    assert sender is not None  # the gradients that a pass starts with were checked by `_seed`
    start = f"{type(sender).__name__}.backward returned "
    argument = f"argument {sender._edges.index(edge)}"
    if not isinstance(gradient, _tensor.Tensor):
        return TypeError(
            f"{start}{type(gradient).__name__} for {argument}, expected a Tensor or None"
        )
    return RuntimeError(
        f"{start}a gradient of shape {gradient.shape} for {argument}, expected the argument's "
        f"shape {shape}"
    )


# Where gradients end up. `accept_from_node` also says whether the node's backward has to run.


class _Leaves:
    """Gradients go to the leaves' `grad`, all of them together at the end."""

    def __init__(self, create_graph: bool) -> None:
        self._create_graph = create_graph
        self._found: dict[Tensor, Tensor] = {}

    def accept_from_node(self, node: Function, grads: list[Tensor | None]) -> bool:
        return True

    def accept_for_leaf(self, leaf: Tensor, gradient: Tensor) -> None:
        so_far = self._found.get(leaf)
        self._found[leaf] = gradient if so_far is None else so_far + gradient

    def result(self) -> tuple[Tensor | None, ...]:
        while self._found:
            leaf, gradient = self._found.popitem()
            if self._create_graph:
                leaf.grad = gradient.clone() if leaf.grad is None else leaf.grad + gradient
            elif leaf._grad is None:
                array = gradient.data
                # The array becomes the leaf's gradient without a copy only if nobody else holds it:
                # two leaves may have been sent the same one, or a backward function may keep it.
                unseen = (
                    sys.getrefcount(gradient) <= _UNSHARED
                    and sys.getrefcount(array) <= _UNSHARED + 1  # the Tensor's own reference
                    and array.flags.owndata
                    and array.flags.writeable
                    and array.strides == leaf.data.strides
                )
                if not unseen:
                    leaf._grad = _tensor.Tensor._of(_copy_like(array, leaf.data))
                elif type(gradient) is _tensor.Tensor and not gradient._requires_grad:
                    leaf._grad = gradient
                else:
                    leaf._grad = _tensor.Tensor._of(array)
            else:
                leaf._grad = _tensor.Tensor._of(np.asarray(leaf._grad.data + gradient.data))
        return ()


def _references_to_a_local() -> int:
    """How many references this interpreter counts to what one local variable holds."""
    local = object()
    return sys.getrefcount(local)


_UNSHARED = _references_to_a_local()


def _copy_like(array: np.ndarray[Any, Any], like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values of one array in new memory, in the layout of another."""
    with recycled_memory():
        copy = np.empty_like(like, subok=False)
    copy[...] = array
    return copy


class _Inputs:
    """Gradients go to a tuple; only nodes that lead to one of the inputs are run."""

    def __init__(self, inputs: Sequence[Tensor], order: list[Function]) -> None:
        self._wanted = [_edge_to(tensor) for tensor in inputs]
        self._found: dict[tuple[int, int], Tensor] = {}
        wanted = {(id(edge[0]), edge[1]) for edge in self._wanted if edge is not None}
        self._keys = wanted
        self._leading: set[Function] = set()
        for node in order:
            for edge in node._edges:
                if edge is not None and (
                    (id(edge[0]), edge[1]) in wanted or edge[0] in self._leading
                ):
                    self._leading.add(node)

    def accept_from_node(self, node: Function, grads: list[Tensor | None]) -> bool:
        for index, gradient in enumerate(grads):
            if gradient is not None and (id(node), index) in self._keys:
                self._found[id(node), index] = gradient
        return node in self._leading

    def accept_for_leaf(self, leaf: Tensor, gradient: Tensor) -> None:
        key = (id(leaf), 0)
        if key in self._keys:
            so_far = self._found.get(key)
            self._found[key] = gradient if so_far is None else so_far + gradient

    def result(self) -> tuple[Tensor | None, ...]:
        return tuple(
            [
                None if edge is None else self._found.get((id(edge[0]), edge[1]))
                for edge in self._wanted
            ]
        )


# The one import at the end: Tensor's operations are Functions, so `tensor` needs what is above.
import instnorm.tensor as _tensor  # noqa: E402
