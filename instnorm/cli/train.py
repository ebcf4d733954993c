"""`instnorm train`: train a task's net with and without instance norm, side by side.

Both nets start from the same weights, wherever they have the same layers, and see the
same batches.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import instnorm
from instnorm import nn, optim
from instnorm.cli import checkpoint
from instnorm.cli.arguments import integer, number
from instnorm.cli.checkpoint import Checkpoint, Settings
from instnorm.cli.digits import Digits
from instnorm.cli.errors import CommandError, check_demo_packages
from instnorm.cli.files import prepare_folder
from instnorm.cli.photo import Photo
from instnorm.cli.task import Learner, Task

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["TASKS", "add_arguments", "run"]

TASKS: dict[str, type[Task]] = {task.name: task for task in (Digits, Photo)}


# --- arguments --------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments. None stands for the checkpoint's or task's value."""

    def default(option: str) -> str:
        values = [f"{t.name} {getattr(t.defaults, option)}" for t in TASKS.values()]
        return f"(default: {', '.join(values)})"

    add = parser.add_argument
    add("--task", choices=TASKS, help="what to learn (default: digits)")
    add(
        "--epochs",
        type=integer(1),
        metavar="N",
        help=f"how many to reach, a resumed checkpoint's included {default('epochs')}",
    )
    add("--lr", type=number(0), metavar="X", help=f"learning rate {default('lr')}")
    add("--momentum", type=number(0, 1), metavar="X", help=f"of SGD {default('momentum')}")
    add(
        "--batch-size",
        type=integer(1),
        metavar="N",
        help=f"samples in a step {default('batch_size')}",
    )
    add(
        "--seed",
        type=integer(0),
        metavar="N",
        help="of weights and batches; the same seed gives the same result (default: 0)",
    )
    add(
        "--threads",
        type=integer(1, 4096),
        metavar="N",
        help="threads for the kernels (default: one for each processor)",
    )
    add("--dtype", choices=("float32", "float64"), help="of all numbers (default: float32)")
    add(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="where pictures and weights go (default: demo)",
    )
    add("--resume", type=Path, metavar="FILE", help="go on from this checkpoint, *.safetensors")


def _settings(args: argparse.Namespace, saved: Checkpoint | None) -> Settings:
    """What was asked for; then what the checkpoint says; then the task's defaults."""
    if saved is None:
        task = TASKS[args.task or "digits"]
        defaults = dataclasses.asdict(task.defaults)
        del defaults["epochs"]
        base = Settings(task=task.name, seed=0, dtype="float32", **defaults)
    else:
        base = saved.settings
        _check_same_run(args, saved)
    asked = {name: getattr(args, name) for name in dataclasses.asdict(base)}
    changes = {name: value for name, value in asked.items() if value is not None}
    return dataclasses.replace(base, **changes)


def _check_same_run(args: argparse.Namespace, saved: Checkpoint) -> None:
    if saved.settings.task not in TASKS:
        raise saved.error(f"is of an unknown task, {saved.settings.task!r}")
    for name in ("task", "seed", "dtype"):
        asked, found = getattr(args, name), getattr(saved.settings, name)
        if asked not in (None, found):
            raise CommandError(
                f"argument --resume: {str(saved.path)!r} was trained with --{name} {found}, "
                f"expected one with --{name} {asked}"
            )


def _epochs(args: argparse.Namespace, settings: Settings, saved: Checkpoint | None) -> int:
    epochs: int = args.epochs or TASKS[settings.task].defaults.epochs
    if saved is not None and epochs < saved.epochs:
        raise CommandError(
            f"argument --epochs: got {epochs}, expected at least {saved.epochs}, which "
            f"{str(saved.path)!r} has reached"
        )
    return epochs


# --- the command ------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Train, print the table, and write weights and pictures."""
    check_demo_packages()
    saved = None if args.resume is None else checkpoint.read(args.resume)
    settings = _settings(args, saved)
    epochs = _epochs(args, settings, saved)
    task = TASKS[settings.task](np.dtype(settings.dtype))
    if settings.batch_size > task.samples:
        raise CommandError(
            f"argument --batch-size: got {settings.batch_size}, expected at most the "
            f"{task.samples} samples that {task.name} trains on"
        )
    learners = [_learner(task, settings, norm) for norm in (True, False)]
    if saved is not None:
        checkpoint.restore(saved, learners)
    prepare_folder(args.out)

    files = _Files(args.out, task.name)
    done = 0 if saved is None else saved.epochs
    with _threads(args.threads):
        _train(task, settings, learners, range(done, epochs), files)
        figures = task.pictures(learners)
    print(_heading(task, settings, epochs), "", _table(task, learners), sep="\n")
    files.write_results(learners, figures)
    print(f"\nIn {args.out}: {', '.join(path.name for path in files.written)}")
    return 0


def _learner(task: Task, settings: Settings, norm: bool) -> Learner:
    # Norm layers draw nothing, so the others get the same weights in both nets.
    instnorm.manual_seed(settings.seed)
    net = task.make_net(norm).to(np.dtype(settings.dtype))
    optimizer = optim.SGD(net.parameters(), lr=settings.lr, momentum=settings.momentum)
    history: dict[str, list[float]] = {name: [] for name in ("loss", *task.measures)}
    return Learner("with norm" if norm else "without norm", net, optimizer, history)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Set the number of threads for a while; None leaves it alone."""
    from threadpoolctl import threadpool_limits

    before = instnorm.get_num_threads()
    if count is not None:
        instnorm.set_num_threads(count)
    try:
        # Matrix products this small gain nothing from threads, and BLAS's idle threads
        # spin for a while after each, on the processors that the kernels' threads need.
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        instnorm.set_num_threads(before)


# --- training ---------------------------------------------------------------------


def _train(
    task: Task, settings: Settings, learners: list[Learner], epochs: range, files: _Files
) -> None:
    """Train all learners, an epoch each in turn, and write a checkpoint after every one."""
    from tqdm import tqdm

    batches = math.ceil(task.samples / settings.batch_size)
    with tqdm(
        total=len(epochs) * len(learners) * batches,
        unit="batch",
        dynamic_ncols=True,
        # Where nobody watches, a log should stay short.
        mininterval=0.1 if sys.stderr.isatty() else 5,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
    ) as bar:
        try:
            for epoch in epochs:
                for learner in learners:
                    bar.set_description_str(f"epoch {epoch + 1}, {learner.name:<12}")
                    _train_epoch(task, settings, learner, epoch, bar)
                files.write_checkpoint(settings, epoch + 1, learners)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*files.advice()) from None


def _train_epoch(
    task: Task, settings: Settings, learner: Learner, epoch: int, bar: tqdm[Any]
) -> None:
    start = time.perf_counter()
    total = 0.0
    # A loss that overflows is reported below, in words.
    with np.errstate(over="ignore", invalid="ignore"):
        for inputs, targets in task.batches(settings.seed, epoch, settings.batch_size):
            output = learner.net(inputs)
            loss = task.loss(output, targets)
            learner.optimizer.zero_grad()
            loss.backward()
            learner.optimizer.step()
            total += _checked(loss.item(), learner, epoch, settings) * len(inputs)
            bar.set_postfix_str(
                f"loss {loss.item():.4f}, {task.score(output.detach().numpy(), targets)}",
                refresh=False,
            )
            bar.update()
        learner.seconds += time.perf_counter() - start
        learner.history["loss"].append(total / task.samples)
        for name, value in task.measure(learner.net).items():
            learner.history[name].append(value)


def _checked(loss: float, learner: Learner, epoch: int, settings: Settings) -> float:
    if not math.isfinite(loss):
        raise CommandError(
            f"the loss of the net {learner.name} became {loss} in epoch {epoch + 1}; "
            f"expected a smaller --lr than {settings.lr:g} to keep it finite",
            status=1,
        )
    return loss


# --- results ----------------------------------------------------------------------


class _Files:
    """What the command writes, all in one folder under names that begin with the task's."""

    def __init__(self, folder: Path, task: str) -> None:
        self.written: list[Path] = []
        self._folder = folder
        self._task = task

    def write_checkpoint(self, settings: Settings, epochs: int, learners: list[Learner]) -> None:
        self._write("checkpoint.safetensors", checkpoint.write, settings, epochs, learners)

    def write_results(self, learners: list[Learner], figures: Mapping[str, Any]) -> None:
        from instnorm.cli import pictures

        for learner in learners:
            name = learner.name.replace(" ", "-")
            self._write(f"{name}.safetensors", checkpoint.write_weights, learner.net)
        for name, figure in figures.items():
            self._write(f"{name}.png", pictures.write, figure)

    def advice(self) -> list[str]:
        """What to tell somebody who interrupts the training."""
        return [f"to go on, --resume {path}" for path in self.written]

    def _write(self, name: str, write: Callable[..., None], *content: Any) -> None:
        path = self._folder / f"{self._task}-{name}"
        write(path, *content)
        if path not in self.written:
            self.written.append(path)


def _heading(task: Task, settings: Settings, epochs: int) -> str:
    return (
        f"{task.name}: {epochs} epochs, batches of {settings.batch_size}, lr {settings.lr:g}, "
        f"momentum {settings.momentum:g}, {settings.dtype}, seed {settings.seed}\n"
        f"{task.describe()}"
    )


def _table(task: Task, learners: list[Learner]) -> str:
    rows = [("", *(learner.name for learner in learners))]
    for label, value in task.reference_rows().items():
        rows.append((label, *(value for _ in learners)))
    for name, label in task.measures.items():
        rows.append((label, *(task.shown(learner.history[name][-1]) for learner in learners)))
    moves = [_moves(learner.net) for learner in learners]
    for label in ("gamma moved from 1 by", "beta moved from 0 by"):
        rows.append((label, *(move.get(label, "-") for move in moves)))
    rows.append(("time to train", *(f"{learner.seconds:.1f} s" for learner in learners)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _moves(net: nn.Module) -> dict[str, str]:
    """How far weight and bias of the norms, also called gamma and beta, are from their start."""
    norms = [module for module in net.modules() if isinstance(module, nn.InstanceNorm2d)]
    if not norms:
        return {}
    gamma = np.concatenate([np.abs(norm.weight.data - 1) for norm in norms])
    beta = np.concatenate([np.abs(norm.bias.data) for norm in norms])
    return {
        f"{name} by": f"{moved.mean():.2f}, at most {moved.max():.2f}"
        for name, moved in (("gamma moved from 1", gamma), ("beta moved from 0", beta))
    }
