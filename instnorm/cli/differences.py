"""`instnorm differences`: the table of what PyTorch, MindSpore and this package do differently."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence

from instnorm.migrate.differences import NORMS, SECTIONS, Section, render

OTHERS = "others"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--layer",
        choices=("InstanceNorm2d", *NORMS, OTHERS),
        default="InstanceNorm2d",
        help="which layer to tell of, or all others (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "json"),
        default="text",
        help="a table as wide as the terminal, a page such as docs/differences.md, or a list of "
        "objects (default: text)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    sections = _sections(args.layer)
    if args.format == "text":
        print(render.as_text(shutil.get_terminal_size().columns, sections))
    elif args.format == "json":
        print(render.as_json(sections), end="")  # it ends in a newline of its own
    else:
        print(_page(args.layer, sections), end="")
    return 0


def _sections(layer: str) -> Sequence[Section]:
    if layer == "InstanceNorm2d":
        return SECTIONS
    return list(NORMS.values()) if layer == OTHERS else [NORMS[layer]]


def _page(layer: str, sections: Sequence[Section]) -> str:
    if layer == "InstanceNorm2d":
        return render.as_markdown()
    introduction = render.INTRODUCTION_OF_NORMS if layer == OTHERS else ""
    return render.as_markdown(sections, introduction)
