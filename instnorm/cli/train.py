"""`instnorm train`: train a task's net with and without instance norm, side by side."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instnorm.cli.arguments import integer, number
from instnorm.cli.errors import CommandError, check_demo_packages
from instnorm.cli.files import prepare_folder, write_whole
from instnorm.demo import checkpoint, training
from instnorm.demo.checkpoint import Checkpoint, Settings
from instnorm.demo.task import Learner
from instnorm.demo.training import TASKS

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
    try:
        return _run(args)
    except checkpoint.CheckpointError as error:
        raise CommandError(f"argument --resume: {error}") from error
    except training.DivergenceError as error:
        raise CommandError(str(error), status=1) from error


def _run(args: argparse.Namespace) -> int:
    saved = None if args.resume is None else checkpoint.read(args.resume)
    settings = _settings(args, saved)
    epochs = _epochs(args, settings, saved)
    task = TASKS[settings.task](np.dtype(settings.dtype))
    if settings.batch_size > task.samples:
        raise CommandError(
            f"argument --batch-size: got {settings.batch_size}, expected at most the "
            f"{task.samples} samples that {task.name} trains on"
        )
    learners = [training.learner(task, settings, norm) for norm in (True, False)]
    if saved is not None:
        checkpoint.restore(saved, learners)
    prepare_folder(args.out)

    files = _Files(args.out, task.name)
    done = 0 if saved is None else saved.epochs
    with training.threads(args.threads):
        try:
            training.train(
                task,
                settings,
                learners,
                range(done, epochs),
                lambda epochs: files.write_checkpoint(settings, epochs, learners),
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*files.advice()) from None
        figures = task.pictures(learners)
    print(training.report(task, settings, epochs, learners))
    files.write_results(learners, figures)
    print(f"\nIn {args.out}: {', '.join(path.name for path in files.written)}")
    return 0


class _Files:
    """What the command writes, all in one folder under names that begin with the task's."""

    def __init__(self, folder: Path, task: str) -> None:
        self.written: list[Path] = []
        self._folder = folder
        self._task = task

    def write_checkpoint(self, settings: Settings, epochs: int, learners: list[Learner]) -> None:
        self._write("checkpoint.safetensors", checkpoint.dumps(settings, epochs, learners))

    def write_results(self, learners: list[Learner], figures: Mapping[str, Any]) -> None:
        from instnorm.demo import pictures

        for learner in learners:
            name = learner.name.replace(" ", "-")
            self._write(f"{name}.safetensors", checkpoint.dumps_weights(learner.net))
        for name, figure in figures.items():
            self._write(f"{name}.png", pictures.as_png(figure))

    def advice(self) -> list[str]:
        """What to tell somebody who interrupts the training."""
        return [f"to go on, --resume {path}" for path in self.written]

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / f"{self._task}-{name}"
        write_whole(path, content)
        if path not in self.written:
            self.written.append(path)
