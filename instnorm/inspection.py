"""Looking at what was built: `summary` of a model's layers, `draw` of a Tensor's graph."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instnorm._primitives import Linear
from instnorm.autograd import Function, no_grad
from instnorm.nn.module import Module
from instnorm.tensor import Tensor

__all__ = ["Drawing", "Summary", "draw", "summary"]


# --- summary -------------------------------------------------------------------------


class Summary:
    """A table of layers, as text; `rows` has its entries.

    Attributes
    ----------
    rows : list of (str, str, str, int)
        For each Module in the order of calls: its indented name, its class, the shape of its
        output, and how many numbers its own parameters have.
    parameters, trainable : int
        How many numbers all parameters have, and those that require gradients.
    """

    def __init__(self, rows: list[tuple[str, str, str, int]], model: Module) -> None:
        self.rows = rows
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        self.parameters = sum(size for size, _ in sizes)
        self.trainable = sum(size for size, learned in sizes if learned)

    def __repr__(self) -> str:
        head = ("name", "layer", "output", "parameters")
        cells = [head, *((n, k, s, f"{count:,}" if count else "-") for n, k, s, count in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                text.rjust(width) if i == 3 else text.ljust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        total = f"{self.parameters:,} parameters, {self.trainable:,} of them trainable"
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:], rule, total])


def summary(model: Module, *inputs: Any) -> Summary:
    """Run a model, and tell of each layer the shape of its output and its parameters.

    Parameters
    ----------
    model : Module
        It is called in evaluation mode, without recording, and left as it was.
    *inputs : Tensor or ndarray
        What it is called with.

    Returns
    -------
    Summary
        Its text is the table.

    Examples
    --------
    >>> import instnorm
    >>> net = instnorm.nn.Sequential(instnorm.nn.Linear(4, 3), instnorm.nn.ReLU())
    >>> instnorm.summary(net, instnorm.zeros(2, 4))
    name  layer       output  parameters
    ------------------------------------
          Sequential  (2, 3)           -
      0   Linear      (2, 3)          15
      1   ReLU        (2, 3)           -
    ------------------------------------
    15 parameters, 15 of them trainable
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    names = {id(module): name for name, module in model.named_modules()}
    rows: list[tuple[str, str, str, int]] = []
    places: list[int] = []  # the rows of the modules that are running

    def enter(module: Module, args: Any) -> None:
        places.append(len(rows))
        name = names[id(module)].rpartition(".")[2]
        own = sum(p.numel() for p in module.parameters(recurse=False))
        rows.append(("  " * (len(places) - 1) + name, type(module).__name__, "", own))

    def leave(module: Module, args: Any, output: Any) -> None:
        place = places.pop()
        indented, kind, _, own = rows[place]
        rows[place] = indented, kind, _shapes(output), own

    modes = [(module, module.training) for module in model.modules()]
    handles = [
        handle
        for module in model.modules()
        for handle in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
    ]
    try:
        with no_grad():
            model.eval()(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return Summary(rows, model)


def _shapes(output: Any) -> str:
    if isinstance(output, Tensor):
        return str(output.shape)
    if isinstance(output, tuple | list):
        return ", ".join(map(_shapes, output))
    return type(output).__name__


# --- draw ------------------------------------------------------------------------------

_HEIGHT, _GAP_X, _GAP_Y = 30, 24, 32


class Drawing:
    """The graph behind a Tensor, as a picture; a notebook shows it.

    Attributes
    ----------
    svg : str
        The picture.
    dot : str
        The same graph in the language of Graphviz, which lays large graphs out better.
    """

    def __init__(self, svg: str, dot: str) -> None:
        self.svg = svg
        self.dot = dot

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture, or where the name ends in .dot the text for Graphviz."""
        Path(path).write_text(self.dot if Path(path).suffix == ".dot" else self.svg)


def draw(tensor: Tensor, names: Module | dict[str, Tensor] | None = None) -> Drawing:
    """Draw the operations that a Tensor was computed by, down to the leaves.

    Parameters
    ----------
    tensor : Tensor
        Its graph is drawn as far as it is recorded.
    names : Module or dict from str to Tensor, optional
        What to call the leaves; a Module stands for its parameters.

    Returns
    -------
    Drawing
        Operations are grey, leaves (parameters and inputs that require gradients) green.

    Raises
    ------
    TypeError
        If `tensor` is not one.

    Examples
    --------
    >>> import instnorm
    >>> w = instnorm.tensor([1.0, 2.0], requires_grad=True)
    >>> print(instnorm.draw((w * w).sum(), {"w": w}).dot)
    digraph {
      n0 [label="result ()"]
      n1 [label="sum_over"]
      n2 [label="Mul"]
      n3 [label="w (2,)"]
      n1 -> n0
      n2 -> n1
      n3 -> n2
    }
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a Tensor, got {type(tensor).__name__}")
    known: dict[str, Any] = (
        dict(names.named_parameters()) if isinstance(names, Module) else dict(names or {})
    )
    labels = {id(t): name for name, t in known.items()}
    below: dict[Any, list[Any]] = {tensor: [] if tensor.grad_fn is None else [tensor.grad_fn]}
    stack = list(below[tensor])
    while stack:
        box = stack.pop(0)
        if box not in below:
            edges = box._edges if isinstance(box, Function) else ()
            below[box] = list(dict.fromkeys(edge[0] for edge in edges if edge is not None))
            stack += below[box]

    def text(box: Any) -> str:
        if isinstance(box, Linear):  # all linear maps are this one Function: by whose map it is
            maps: Any = box.maps  # type: ignore[attr-defined]
            return str(maps[0].__qualname__.partition(".<locals>")[0])
        if isinstance(box, Function):
            return type(box).__name__
        return f"{labels.get(id(box), 'result' if box is tensor else 'leaf')} {box.shape}"

    numbers = {box: i for i, box in enumerate(below)}
    arrows = [(numbers[source], numbers[box]) for box in below for source in below[box]]
    leaves = [isinstance(box, Tensor) and box.is_leaf for box in below]
    texts = [text(box) for box in below]
    return Drawing(_svg(texts, arrows, leaves), _dot(texts, arrows))


def _dot(labels: Sequence[str], edges: Sequence[tuple[int, int]]) -> str:
    lines = [f'n{i} [label="{label}"]' for i, label in enumerate(labels)]
    lines += [f"n{source} -> n{target}" for source, target in edges]
    return "\n  ".join(["digraph {", *lines]) + "\n}"


def _svg(labels: Sequence[str], edges: Sequence[tuple[int, int]], leaves: Sequence[bool]) -> str:
    """Boxes in layers, each above all that it was computed from."""
    depth = [0] * len(labels)
    moved = True
    while moved:
        moved = False
        for source, target in edges:
            if depth[source] <= depth[target]:
                depth[source], moved = depth[target] + 1, True
    rows: dict[int, list[int]] = {}
    for i, d in enumerate(depth):
        rows.setdefault(d, []).append(i)
    widest, box = max(map(len, rows.values())), 8 * max(map(len, labels)) + 16
    width = widest * (box + _GAP_X) + _GAP_X
    height = len(rows) * (_HEIGHT + _GAP_Y) + _GAP_Y
    at = {}
    for d, row in rows.items():
        start = (width - len(row) * (box + _GAP_X) + _GAP_X) / 2
        for column, i in enumerate(row):
            at[i] = start + column * (box + _GAP_X), height - (d + 1) * (_HEIGHT + _GAP_Y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#666"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for source, target in edges:
        (x1, y1), (x2, y2) = at[source], at[target]
        parts.append(
            f'<line x1="{x1 + box / 2}" y1="{y1 + _HEIGHT}" x2="{x2 + box / 2}" y2="{y2}" '
            'stroke="#666" marker-end="url(#tip)"/>'
        )
    for i, label in enumerate(labels):
        x, y = at[i]
        fill = "#d9f0d3" if leaves[i] else "#eeeeee"
        parts.append(
            f'<rect x="{x}" y="{y}" width="{box}" height="{_HEIGHT}" rx="5" fill="{fill}" '
            f'stroke="#666"/><text x="{x + box / 2}" y="{y + _HEIGHT / 2 + 4}" '
            f'text-anchor="middle">{html.escape(label)}</text>'
        )
    return "\n".join([*parts, "</svg>"])
