"""`instnorm convert`: rename the instance norms of a checkpoint file for the other framework."""

from __future__ import annotations

import argparse
from pathlib import Path

from instnorm.cli.arguments import integer
from instnorm.cli.errors import CommandError, printable
from instnorm.cli.files import write_whole
from instnorm.migrate import checkpoints
from instnorm.migrate.state_dicts import Converted, state_dict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    suffixes = ", ".join(checkpoints.SUFFIXES)
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help=f"the file to read: {suffixes}")
    add("output", type=Path, metavar="OUT", help="the file to write, of the same suffixes")
    add("--to", choices=("mindspore", "pytorch"), required=True, help="whose names to write")
    add(
        "--norms",
        action="append",
        default=[],
        metavar="PATTERN",
        help="name of a layer that is an instance norm, or of several by *, ? and [...]; "
        "'*' where the model has no other norm; may be given again",
    )
    add(
        "--others",
        action="append",
        default=[],
        metavar="PATTERN",
        help="name of a layer that looks like an instance norm and is none; may be given again",
    )
    add(
        "--running-stats",
        choices=("drop", "keep"),
        default="refuse",
        help="leave running statistics, which MindSpore ignores, out, or store them all the same "
        "(default: refuse a file that has them)",
    )
    add(
        "--max-bytes",
        type=integer(1),
        default=checkpoints.DEFAULT_MAX_BYTES,
        metavar="N",
        help="most bytes that IN, what it inflates to, and its arrays may take each: a file that "
        "claims more is refused (default: %(default)s)",
    )
    add("--key", metavar="NAME", help="which state dict to read of a PyTorch file of several")


def run(args: argparse.Namespace) -> int:
    """Convert the file, and list what was renamed."""
    try:
        checkpoint = checkpoints.read(args.input, key=args.key, max_bytes=args.max_bytes)
        converted = _converted(args, checkpoint)
        content = checkpoints.dumps(
            args.output, converted.state, checkpoint.metadata, flavour=args.to
        )
    except checkpoints.CheckpointError as error:
        raise CommandError(str(error)) from error
    write_whole(args.output, content, argument="OUT")
    print(_listing(args, checkpoint, converted))
    return 0


def _converted(args: argparse.Namespace, checkpoint: checkpoints.Checkpoint) -> Converted:
    try:
        return state_dict(
            checkpoint.arrays,
            to=args.to,
            norms=args.norms,
            others=args.others,
            running_stats=args.running_stats,
        )
    except ValueError as error:
        raise CommandError(f"{str(args.input)!r}: {error}") from error


def _listing(
    args: argparse.Namespace,
    checkpoint: checkpoints.Checkpoint,
    converted: Converted,
) -> str:
    rows = [
        (printable(change.old or "(new)"), printable(change.new or "(left out)"))
        for change in converted.changes
    ]
    width = max((len(old) for old, _ in rows), default=0)
    renamed = {change.old for change in converted.changes}
    unchanged = sum(name not in renamed for name in checkpoint.arrays)
    paths = printable(f"{args.input} -> {args.output}")
    lines = [paths, *(f"  {old:<{width}} -> {new}" for old, new in rows)]
    lines.append(f"{unchanged} {'entry' if unchanged == 1 else 'entries'} unchanged")
    if checkpoint.metadata and not checkpoints.holds_metadata(args.output):
        lines.append(f"metadata left out: {printable(', '.join(checkpoint.metadata))}")
    return "\n".join(lines)
