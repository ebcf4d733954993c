"""The table as text: for a terminal, as Markdown, as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence

from instnorm.migrate.differences.table import SECTIONS, Row, Section

__all__ = ["INTRODUCTION_OF_NORMS", "as_json", "as_markdown", "as_text"]

_COLUMNS = ("", "PyTorch", "MindSpore", "instnorm")
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
because it computes nothing on a CPU. Other norms, and convolutions, are in
[`norms.md`](norms.md): `instnorm differences --layer others`.
"""


INTRODUCTION_OF_NORMS = """\
# Differences between PyTorch's and MindSpore's other norms and convolutions

What models mix with InstanceNorm2d, in `torch.nn` (PyTorch 2.13) and `mindspore.nn` (MindSpore
2.10). `instnorm differences --layer others` prints this page, and `--layer GroupNorm` one table of
it; `tests/migrate/test_norms.py` holds every cell against the layers themselves.
"""


def as_text(width: int, sections: Sequence[Section] = SECTIONS) -> str:
    """Make a table that fits the width of a terminal, or a list where that is too narrow.

    Parameters
    ----------
    width : int
        In characters.
    sections : sequence of Section
    """
    parts = []
    for section in sections:
        layout = _table if _column(section, width) >= NARROWEST else _list
        parts.append("\n".join(layout(section, width)))
    return "\n\n".join(parts)


def _titles(section: Section) -> tuple[str, ...]:
    """Return the columns: this package has none where it has no such layer."""
    return _COLUMNS if any(row.instnorm for row in section.rows) else _COLUMNS[:-1]


def _column(section: Section, width: int) -> int:
    columns = len(_titles(section))
    return (width - len(GAP) * (columns - 1)) // columns


def _table(section: Section, width: int) -> Iterator[str]:
    titles, column = _titles(section), _column(section, width)
    line = GAP.join("-" * column for _ in titles)
    yield section.title
    yield line
    yield from _side_by_side(titles, column)
    yield line
    for i, row in enumerate(section.rows):
        if i:
            yield ""
        yield from _side_by_side(_plain_cells(row), column)


def _side_by_side(cells: Sequence[str], column: int) -> Iterator[str]:
    wrapped = [textwrap.wrap(cell, column) for cell in cells]
    for i in range(max(map(len, wrapped))):
        parts = (lines[i] if i < len(lines) else "" for lines in wrapped)
        yield GAP.join(part.ljust(column) for part in parts).rstrip()


def _list(section: Section, width: int) -> Iterator[str]:
    width = max(width, NARROWEST)
    yield from textwrap.wrap(section.title, width)
    for row in section.rows:
        topic, *cells = _plain_cells(row)
        yield ""
        yield from textwrap.wrap(topic, width)
        for name, cell in zip(_titles(section)[1:], cells, strict=True):
            yield from textwrap.wrap(
                f"{name}: {cell}", width, initial_indent="  ", subsequent_indent="    "
            )


def _cells(row: Row) -> tuple[str, ...]:
    cells = (row.topic, row.pytorch.text, row.mindspore.text)
    return (*cells, row.instnorm) if row.instnorm else cells


def _plain_cells(row: Row) -> tuple[str, ...]:
    """Return the row without the marks of Markdown, which a terminal would show."""
    return tuple(cell.replace("`", "") for cell in _cells(row))


def as_markdown(sections: Sequence[Section] = SECTIONS, introduction: str = INTRODUCTION) -> str:
    """Make the page `docs/differences.md`, or another."""
    parts = [*map(_markdown_section, sections)]
    return "\n".join([introduction, *parts] if introduction else parts)


def _markdown_section(section: Section) -> str:
    titles = _titles(section)
    lines = [f"## {section.title}", "", f"| | {' | '.join(titles[1:])} |"]
    lines.append(f"|{' |'.join(' -' for _ in titles)} |")
    lines += [f"| {' | '.join(_cells(row))} |" for row in section.rows]
    return "\n".join([*lines, ""])


def as_json(sections: Sequence[Section] = SECTIONS) -> str:
    """Make a list of objects, one for each row."""
    rows = [
        {
            "section": section.title,
            "topic": row.topic,
            "pytorch": row.pytorch.text,
            "mindspore": row.mindspore.text,
            **({"instnorm": row.instnorm} if row.instnorm else {}),
        }
        for section in sections
        for row in section.rows
    ]
    return json.dumps(rows, indent=2) + "\n"
