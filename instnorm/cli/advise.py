"""`instnorm advise`: what to write in MindSpore for each layer of a PyTorch model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from instnorm.cli.errors import CommandError, printable
from instnorm.cli.models import EXPECTED, load_model, load_module
from instnorm.migrate.advice import Advice, advise
from instnorm.migrate.models import flavour_of, framework_of, named_modules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = "The code of the file or module is run. nn is mindspore.nn in what is printed."
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE.py",
        help="a file of Python with one model: a module, or a class or function that makes one "
        "without arguments",
    )
    parser.add_argument("--model", metavar="MODULE:FACTORY", help=f"the model: {EXPECTED}")
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="lines for people, or a list of objects (default: text)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the advice."""
    if (args.file is None) == (args.model is None):
        raise CommandError("expected either FILE.py or --model MODULE:FACTORY")
    model = load_model(args.model) if args.model else _model_in(args.file)
    if flavour_of(model) != "pytorch":
        raise CommandError(f"expected a model of PyTorch, got {type(model).__name__} of MindSpore")
    found = advise(model)
    if args.format == "json":
        rows = [
            {
                "name": a.prefix,
                "pytorch": a.pytorch,
                "mindspore": str(a.call or ""),
                "differs": a.differs,
            }
            for a in found
        ]
        print(json.dumps(rows, indent=2))
    else:
        print("\n".join(_lines(found)))
    return 0


def _lines(found: list[Advice]) -> Iterator[str]:
    for advice in found:
        yield f"{printable(advice.prefix) or '(the model)'}: {printable(advice.pytorch)}"
        yield f"  {printable(str(advice.call)) if advice.call else 'no constructor call known'}"
        yield from (f"  - {printable(text)}" for text in advice.differs)


# --- which model a file has --------------------------------------------------------------------


def _model_in(file: str) -> Any:
    """Return the only model of a file: one that is there, or the outermost that can be made."""
    if not file.endswith(".py"):
        raise CommandError(f"expected a file of Python, FILE.py, got {file!r}")
    try:
        module = load_module(file)
    except CommandError:
        raise
    # It is the user's code: whatever it raises.
    except (Exception, SystemExit) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise CommandError(f"{file!r} failed ({type(error).__name__}: {reason})") from error
    own = {name: value for name, value in vars(module).items() if framework_of(value)}
    found = own or _made(module)
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise CommandError(
            f"{file!r} has {len(found)} models that can be had without arguments ({names}); name "
            f"one by --model {file}:NAME"
        )
    return next(iter(found.values()))


def _made(module: ModuleType) -> dict[str, Any]:
    """Make what the file's own classes make without arguments, but for parts of others."""
    made = {}
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__:
            try:
                model = value()
            # Most classes want arguments, and are parts.
            except Exception:
                continue
            if framework_of(model):
                made[name] = model
    parts = {
        type(part).__name__
        for model in made.values()
        for prefix, part in named_modules(model)
        if prefix
    }
    return {name: model for name, model in made.items() if name not in parts}
