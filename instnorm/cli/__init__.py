"""The command line, `instnorm`: its parser and the way from arguments to an exit status.

Each command has a module of its own. What a command needs beyond NumPy is imported
only when it runs.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

from instnorm import __version__
from instnorm.cli import advise, convert, differences, info, train
from instnorm.cli.errors import CommandError, printable

__all__ = ["main"]

# What a shell reports for a program that a signal ended: 128 + SIGINT, Ctrl-C, and SIGPIPE.
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; by default those of the process.

    Returns
    -------
    int
        The exit status: 0, 1 (the command failed), 2 (bad input), 3 or 4 (what `convert` has
        written is not all that is wanted, or differs), 130 (Ctrl-C) or 141 (who reads the output,
        such as head, has closed it).

    Examples
    --------
    >>> import instnorm.cli
    >>> instnorm.cli.main(["info"])  # doctest: +ELLIPSIS
    instnorm ...
    0
    """
    _settle_streams()
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_the_rest(sys.stdout)
        return BROKEN_PIPE
    except CommandError as error:
        return _ended(f"error: {printable(str(error))}", error.status)
    except OSError as error:
        if error.filename is not None:
            return _ended(f"error: {printable(repr(error.filename))} failed ({error.strerror})", 1)
        _discard_the_rest(sys.stdout)
        return _ended(f"error: cannot write the output ({error.strerror})", 1)
    except KeyboardInterrupt as interrupt:
        return _ended(": ".join(["interrupted", *map(str, interrupt.args)]), INTERRUPTED)


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help(sys.stderr)
        return 2
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def _settle_streams() -> None:
    """Make both streams ones that can be written to."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # Names in files may have letters that the terminal has not.
            stream.reconfigure(errors="backslashreplace")


def _ended(message: str, status: int) -> int:
    """Tell how the command ended, if anybody can be told."""
    try:
        print(f"instnorm: {message}", file=sys.stderr, flush=True)
    except OSError:
        _discard_the_rest(sys.stderr)
    return status


def _discard_the_rest(stream: TextIO) -> None:
    """Let the stream lead nowhere: Python flushes it when it exits, and would print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, which `main` prints."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse's own says nothing where the help cannot be written.
        (file or sys.stderr).write(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="instnorm",
        description="Instance normalization for the CPU.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=None)
    parser.add_argument("--version", action="version", version=f"instnorm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module, summary in (
        (train, "train a small net with and without instance norm, and compare"),
        (convert, "carry a checkpoint between PyTorch and MindSpore"),
        (advise, "say what to write in MindSpore for each layer of a PyTorch model"),
        (differences, "print what PyTorch, MindSpore and this package do differently"),
        (info, "tell how the package was built, and what it runs on"),
    ):
        command = commands.add_parser(
            module.__name__.rpartition(".")[2],
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
