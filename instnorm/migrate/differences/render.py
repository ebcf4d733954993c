"""The table as text: for a terminal, as Markdown, as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence

from instnorm.migrate.differences.table import SECTIONS, Row, Section

__all__ = ["as_json", "as_markdown", "as_text"]

COLUMNS = ("", "PyTorch", "MindSpore", "instnorm")
GAP = "  "
# Columns of fewer characters would break most words: then there is a list in place of a table.
NARROWEST = 20

INTRODUCTION = """\
# Differences between PyTorch's, MindSpore's and instnorm's InstanceNorm2d

The pair `torch.nn.InstanceNorm2d` (PyTorch 2.13) and `mindspore.nn.InstanceNorm2d`
(MindSpore 2.10), and what this package does in its two flavours, `instnorm.nn` for
PyTorch's code and `instnorm.nn.mindspore` for MindSpore's. `instnorm differences` prints
this page; `tests/migrate/test_differences.py` holds every cell against the layers themselves.
What MindSpore computes is not observed but read, in its documentation and its source,
because it computes nothing on a CPU.
"""


def as_text(width: int) -> str:
    """Make a table that fits the width of a terminal, or a list where that is too narrow.

    Parameters
    ----------
    width : int
        In characters.
    """
    layout = _table if _column(width) >= NARROWEST else _list
    return "\n\n".join("\n".join(layout(section, width)) for section in SECTIONS)


def _column(width: int) -> int:
    return (width - len(GAP) * (len(COLUMNS) - 1)) // len(COLUMNS)


def _table(section: Section, width: int) -> Iterator[str]:
    column = _column(width)
    line = GAP.join("-" * column for _ in COLUMNS)
    yield section.title
    yield line
    yield from _side_by_side(COLUMNS, column)
    yield line
    for i, row in enumerate(section.rows):
        if i:
            yield ""
        yield from _side_by_side(_cells(row), column)


def _side_by_side(cells: Sequence[str], column: int) -> Iterator[str]:
    wrapped = [textwrap.wrap(cell, column) for cell in cells]
    for i in range(max(map(len, wrapped))):
        parts = (lines[i] if i < len(lines) else "" for lines in wrapped)
        yield GAP.join(part.ljust(column) for part in parts).rstrip()


def _list(section: Section, width: int) -> Iterator[str]:
    width = max(width, NARROWEST)
    yield from textwrap.wrap(section.title, width)
    for row in section.rows:
        topic, *cells = _cells(row)
        yield ""
        yield from textwrap.wrap(topic, width)
        for name, cell in zip(COLUMNS[1:], cells, strict=True):
            yield from textwrap.wrap(
                f"{name}: {cell}", width, initial_indent="  ", subsequent_indent="    "
            )


def _cells(row: Row) -> tuple[str, ...]:
    """The row without the marks of Markdown, which a terminal would show."""
    cells = (row.topic, row.pytorch.text, row.mindspore.text, row.instnorm)
    return tuple(cell.replace("`", "") for cell in cells)


def as_markdown() -> str:
    """Make the page `docs/differences.md`."""
    return "\n".join([INTRODUCTION, *map(_markdown_section, SECTIONS)])


def _markdown_section(section: Section) -> str:
    lines = [f"## {section.title}", "", "| | PyTorch | MindSpore | instnorm |", "| - | - | - | - |"]
    for row in section.rows:
        cells = (row.topic, row.pytorch.text, row.mindspore.text, row.instnorm)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def as_json() -> str:
    """Make a list of objects, one for each row."""
    rows = [
        {
            "section": section.title,
            "topic": row.topic,
            "pytorch": row.pytorch.text,
            "mindspore": row.mindspore.text,
            "instnorm": row.instnorm,
        }
        for section in SECTIONS
        for row in section.rows
    ]
    return json.dumps(rows, indent=2) + "\n"
