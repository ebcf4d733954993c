"""`instnorm convert`: a checkpoint file in the names and shapes of the other framework."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from instnorm.cli.arguments import assignment, input_shape, integer, number
from instnorm.cli.errors import CommandError, printable
from instnorm.cli.files import write_whole
from instnorm.cli.models import EXPECTED, load_model
from instnorm.migrate import checkpoints
from instnorm.migrate.inputs import InputSpec, likely_inputs, random_input
from instnorm.migrate.models import flavour_of, framework_of
from instnorm.migrate.modules import load
from instnorm.migrate.state_dicts import Change, Converted, state_dict
from instnorm.migrate.verify import Report, verify

# The file is written, and a model of the other framework does not find all that it wants in it.
INCOMPLETE = 3
DIFFERENT = 4

_EPILOG = """\
exit status: 0 done; 1 written, and the models of --verify do not run; 2 bad input, nothing written;
3 written, but there are entries that a model of the other framework will not find (MindSpore keeps
its initial values for them, in silence) or has no place for; 4 written, and --verify found outputs
that differ. --model runs the code that it names; a file's code is never run.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    suffixes = ", ".join(checkpoints.SUFFIXES)
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help=f"the file to read: {suffixes}")
    add("output", type=Path, metavar="OUT", help="the file to write, of the same suffixes")
    add(
        "--to",
        choices=("mindspore", "mindspore.mint", "pytorch"),
        required=True,
        help="whose names and shapes to write; mindspore.mint.nn has PyTorch's, but for layers "
        "that it lacks",
    )
    add(
        "--model",
        action="append",
        default=[],
        metavar="MODULE:FACTORY",
        help="a model of either framework, which tells the layers: a name in a module or in a "
        "file of Python, whose code is run; may be given once for each framework",
    )
    add(
        "--layer",
        action="append",
        type=assignment,
        default=[],
        metavar="NAME=CLASS",
        help="what a layer is, such as body.2=PReLU, or several by *, ? and [...] where they may "
        "be that; CLASS 'keep' leaves names as they are; may be given again",
    )
    add(
        "--norms",
        action="append",
        default=[],
        metavar="PATTERN",
        help="name of a layer that is an instance norm, or of several by *, ? and [...]; "
        "nothing else is one then; may be given again",
    )
    add(
        "--others",
        action="append",
        default=[],
        metavar="PATTERN",
        help="name of a layer to leave as it is, or of several: '*' is all of the rest; may be "
        "given again",
    )
    add(
        "--running-stats",
        choices=("drop", "keep"),
        default="refuse",
        help="leave running statistics of instance norms, which MindSpore ignores, out, or store "
        "them all the same (default: refuse a file that has them)",
    )
    add(
        "--verify",
        action="store_true",
        help="load both models, each from its file, run the same random input through them and "
        "compare the outputs of all layers; takes --model of both frameworks",
    )
    add(
        "--input",
        action="append",
        type=input_shape,
        default=[],
        dest="inputs",
        metavar="SHAPE",
        help="shape of an argument for --verify, such as 1,3,64,64, or 2,7:int64 for whole "
        "numbers; may be given again (default: what the first layer takes)",
    )
    add(
        "--tolerance",
        type=number(0),
        default=1e-5,
        metavar="T",
        help="largest difference for --verify, over the largest output or 1; where PyTorch itself "
        "is off by rounding, 8 times that is allowed (default: %(default)s)",
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
    """Convert the file, and list every decision."""
    models = _models(args)
    specs = _inputs(args, models) if args.verify else []
    checkpoint = _read(args.input, args)
    converted = _converted(args, checkpoint, models)
    try:
        content = checkpoints.dumps(
            args.output,
            converted.state,
            checkpoint.metadata,
            flavour="pytorch" if args.to == "pytorch" else "mindspore",
        )
    except checkpoints.CheckpointError as error:
        raise CommandError(str(error)) from error
    write_whole(args.output, content, argument="OUT")
    print("\n".join(_listing(args, checkpoint, converted, bool(models))))
    if args.verify and not _verified(args, checkpoint, models, specs):
        return DIFFERENT
    return INCOMPLETE if converted.unfound or converted.unused else 0


def _read(path: Path, args: argparse.Namespace) -> checkpoints.Checkpoint:
    try:
        return checkpoints.read(path, key=args.key, max_bytes=args.max_bytes)
    except checkpoints.CheckpointError as error:
        raise CommandError(str(error)) from error


def _models(args: argparse.Namespace) -> list[Any]:
    models = [load_model(text) for text in args.model]
    if args.verify and sorted(framework_of(m) or "" for m in models) != ["mindspore", "torch"]:
        raise CommandError(
            "argument --verify: takes a model of PyTorch and one of MindSpore, --model "
            f"{EXPECTED}, given once for each; got {len(models)}"
        )
    if args.inputs and not args.verify:
        raise CommandError("argument --input: has a use only with --verify")
    return models


def _converted(
    args: argparse.Namespace, checkpoint: checkpoints.Checkpoint, models: list[Any]
) -> Converted:
    try:
        return state_dict(
            checkpoint.arrays,
            to=args.to,
            model=models or None,
            layers=dict(args.layer),
            norms=args.norms,
            others=args.others,
            running_stats=args.running_stats,
        )
    except ValueError as error:
        raise CommandError(f"{str(args.input)!r}: {error}") from error


# --- what is printed --------------------------------------------------------------------------


def _listing(
    args: argparse.Namespace,
    checkpoint: checkpoints.Checkpoint,
    converted: Converted,
    has_model: bool,
) -> Iterator[str]:
    yield printable(f"{args.input} -> {args.output}")
    yield from _changes(converted.changes)
    changed = {change.old for change in converted.changes}
    unchanged = sum(name not in changed for name in checkpoint.arrays)
    yield f"{unchanged} {'entry' if unchanged == 1 else 'entries'} unchanged"
    yield from _decisions(converted)
    if checkpoint.metadata and not checkpoints.holds_metadata(args.output):
        yield f"metadata left out: {printable(', '.join(checkpoint.metadata))}"
    other = "PyTorch" if args.to == "pytorch" else "MindSpore"
    if converted.unfound:
        keeps = "" if args.to == "pytorch" else ", and keeps its initial values for, in silence"
        yield f"not found: what {other}'s model will look for{keeps}"
        yield from (f"  {printable(name)}" for name in converted.unfound)
    if converted.unused:
        yield f"no place: what {other}'s model has not"
        yield from (f"  {printable(name)}" for name in converted.unused)
    if not has_model and args.to != "pytorch":
        yield (
            "layers that have no entries in PyTorch (norms that are not affine) are not in the "
            "file: MindSpore has them at 1 and 0; --model tells them"
        )


def _changes(changes: list[Change]) -> Iterator[str]:
    rows = [
        (printable(change.old or "(new)"), printable(change.new or "(left out)"), change.why)
        for change in changes
    ]
    width = max((len(old) for old, *_ in rows), default=0)
    for old, new, why in rows:
        reshaped = f"  {why}" if old == new else ""
        yield f"  {old:<{width}} -> {new}{reshaped}"


def _decisions(converted: Converted) -> Iterator[str]:
    known = [d for d in converted.decisions if d.layer]
    others = [d for d in converted.decisions if not d.layer]
    if known:
        yield "layers, and what tells them:"
        width = max(len(printable(d.prefix)) for d in known)
        for d in known:
            yield f"  {printable(d.prefix):<{width}}  {d.layer}: {printable(d.why)}"
    if others:
        yield "kept under their own names, being of no layer of the table:"
        yield from (f"  {printable(d.prefix)}: {printable(d.why)}" for d in others)


# --- proof --------------------------------------------------------------------------------------


def _in_order(models: list[Any]) -> tuple[Any, Any]:
    """Return PyTorch's model and MindSpore's."""
    pytorch, mindspore = sorted(models, key=lambda model: framework_of(model) != "torch")
    return pytorch, mindspore


def _inputs(args: argparse.Namespace, models: list[Any]) -> list[InputSpec]:
    specs: list[InputSpec] = args.inputs or likely_inputs(_in_order(models)[0])
    if not specs:
        raise CommandError("argument --input: cannot tell what the model takes; expected a shape")
    return specs


def _verified(
    args: argparse.Namespace,
    checkpoint: checkpoints.Checkpoint,
    models: list[Any],
    specs: list[InputSpec],
) -> bool:
    """Load each model from its file, and compare."""
    pytorch, mindspore = _in_order(models)
    written = checkpoints.read(args.output, max_bytes=args.max_bytes)
    for model in (pytorch, mindspore):
        is_target = (flavour_of(model) == "pytorch") == (args.to == "pytorch")
        load(model, written.arrays if is_target else checkpoint.arrays)
    bridge = importlib.import_module("instnorm.bridge.mindspore")
    inputs = [random_input(spec, np.random.default_rng(0), pytorch) for spec in specs]
    try:
        report = verify(pytorch, bridge.convert(mindspore), inputs, tolerance=args.tolerance)
    # It is the users' models that run.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise CommandError(
            f"argument --verify: the models failed on input of {_shown(specs)} "
            f"({type(error).__name__}: {reason}); another is told by --input",
            status=1,
        ) from error
    print("\n".join(_proof(report, specs, args.tolerance)))
    return report.first is None


def _shown(specs: list[InputSpec]) -> str:
    return " and ".join(f"{spec.dtype} {spec.shape}" for spec in specs)


def _proof(report: Report, specs: list[InputSpec], tolerance: float) -> Iterator[str]:
    yield f"verify: random input of {_shown(specs)}, evaluation, differences over the output"
    width = max((len(c.name) for c in report.compared), default=0)
    for c in report.compared:
        mark = "" if c.agrees(tolerance) else "  differs"
        yield f"  {printable(c.name):<{width}}  {c.kind:<20} {c.error:.1e}{mark}"
    if report.first is None:
        yield (
            f"verified: {len(report.compared)} outputs agree to {tolerance:g}, or to PyTorch's own "
            "rounding"
        )
    else:
        name = printable(report.first.name) or "the model's output"
        yield f"first to differ: {name} ({report.first.kind}), by {report.first.error:.1e}"
        yield from (f"  {printable(reason)}" for reason in report.reasons or ["no reason found"])
    if report.settings:
        yield "the same in evaluation, and not in training:"
        yield from (f"  {printable(text)}" for text in report.settings)
