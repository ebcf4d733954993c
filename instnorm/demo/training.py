"""Training a task's net with and without instance norm, side by side, and the table of results.

Both nets start from the same weights, wherever they have the same layers, and see the
same batches.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from instnorm import get_num_threads, manual_seed, nn, optim, set_num_threads
from instnorm.demo.checkpoint import Settings
from instnorm.demo.digits import Digits
from instnorm.demo.photo import Photo
from instnorm.demo.task import Learner, Task

if TYPE_CHECKING:
    from tqdm import tqdm

TASKS: dict[str, type[Task]] = {task.name: task for task in (Digits, Photo)}


class DivergenceError(ArithmeticError):
    """The loss of a net is no longer finite."""


def learner(task: Task, settings: Settings, norm: bool) -> Learner:
    """Make a net of the task, and what trains it."""
    # Norm layers draw no random numbers, so all other layers get the same weights in both nets.
    manual_seed(settings.seed)
    net = task.make_net(norm).to(np.dtype(settings.dtype))
    optimizer = optim.SGD(net.parameters(), lr=settings.lr, momentum=settings.momentum)
    history: dict[str, list[float]] = {name: [] for name in ("loss", *task.measures)}
    return Learner("with norm" if norm else "without norm", net, optimizer, history)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Set the number of threads for a while; None leaves it alone."""
    before = get_num_threads()
    if count is not None:
        set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


def train(
    task: Task,
    settings: Settings,
    learners: list[Learner],
    epochs: range,
    after_epoch: Callable[[int], None],
) -> None:
    """Train all learners, an epoch each in turn, and tell `after_epoch` how many are done."""
    from tqdm import tqdm

    batches = math.ceil(task.samples / settings.batch_size)
    with tqdm(
        total=len(epochs) * len(learners) * batches,
        unit="batch",
        dynamic_ncols=True,
        # Seldom where stderr is a file, so that a log stays short.
        mininterval=0.1 if sys.stderr.isatty() else 5,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
    ) as bar:
        for epoch in epochs:
            for learner in learners:
                bar.set_description_str(f"epoch {epoch + 1}, {learner.name:<12}")
                _train_epoch(task, settings, learner, epoch, bar)
            after_epoch(epoch + 1)


def _train_epoch(
    task: Task, settings: Settings, learner: Learner, epoch: int, bar: tqdm[Any]
) -> None:
    start = time.perf_counter()
    total = good = 0.0
    seen = 0
    # `_checked` reports a loss that overflows, so NumPy need not warn of it.
    with np.errstate(over="ignore", invalid="ignore"):
        for inputs, targets in task.batches(settings.seed, epoch, settings.batch_size):
            output = learner.net(inputs)
            loss = task.loss(output, targets)
            learner.optimizer.zero_grad()
            loss.backward()
            learner.optimizer.step()
            total += _checked(loss.item(), learner, epoch, settings) * len(inputs)
            good += task.score(output.detach().numpy(), targets) * len(inputs)
            seen += len(inputs)
            # Of the epoch so far: the last batch may be too small to tell.
            bar.set_postfix_str(
                f"loss {total / seen:.4f}, {task.score_name} {task.shown(good / seen)}",
                refresh=False,
            )
            bar.update()
        learner.seconds += time.perf_counter() - start
        learner.history["loss"].append(total / task.samples)
        for name, value in task.measure(learner.net).items():
            learner.history[name].append(value)


def _checked(loss: float, learner: Learner, epoch: int, settings: Settings) -> float:
    if not math.isfinite(loss):
        raise DivergenceError(
            f"the loss of the net {learner.name} became {loss} in epoch {epoch + 1}; "
            f"expected a smaller --lr than {settings.lr:g} to keep it finite"
        )
    return loss


def report(task: Task, settings: Settings, epochs: int, learners: list[Learner]) -> str:
    """Tell what was trained, and how good it has become: a heading and a table."""
    heading = (
        f"{task.name}: {epochs} epochs, batches of {settings.batch_size}, lr {settings.lr:g}, "
        f"momentum {settings.momentum:g}, {settings.dtype}, seed {settings.seed}\n"
        f"{task.describe()}"
    )
    return "\n".join([heading, "", _table(task, learners)])


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
