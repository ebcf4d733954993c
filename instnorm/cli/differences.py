"""`instnorm differences`: the table of what PyTorch, MindSpore and this package do differently."""

from __future__ import annotations

import argparse
import shutil

from instnorm.migrate.differences import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "json"),
        default="text",
        help="a table as wide as the terminal, the page docs/differences.md, or a list of objects "
        "(default: text)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    if args.format == "text":
        print(render.as_text(shutil.get_terminal_size().columns))
    else:
        # Both end in a newline of their own.
        print(render.as_markdown() if args.format == "markdown" else render.as_json(), end="")
    return 0
