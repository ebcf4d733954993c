"""The measurements of one net: accuracy, memory, and times that the variants take in turns."""

import statistics
import time
from typing import NamedTuple

import numpy as np
from benchmarks.worker import Worker

from .job import Job, Variant

NORMS = ("PyTorch", "instnorm", "fused", "in place", "Identity")
TASKS = ("inference", "training")
VARIANTS = [Variant(norm, last) for norm in NORMS for last in (False, True)]
FEWEST_ROUNDS = 3
TRIALS = 3  # of each layout


class Result(NamedTuple):
    net: str
    task: str
    variant: Variant  # the faster layout of this norm
    seconds: float
    peak: float  # MiB
    error: float  # of the output (inference) or the gradients (training); NaN for the limit
    contiguous_error: float


def measure(net, seconds_per_task):
    """Results of one net: for each task and norm, the faster of both layouts."""
    truth = Worker(Job, net, Variant("float64"))
    truth.ready()
    exact = {task: truth.ask("first", task)[0] for task in TASKS}
    truth.close()

    workers = {variant: Worker(Job, net, variant) for variant in VARIANTS}
    for worker in workers.values():
        worker.ready()
    results = []
    for task in TASKS:
        errors, peaks = {}, {}
        for variant, worker in workers.items():
            result, peaks[variant] = worker.ask("first", task)
            errors[variant] = _error(result, exact[task], task, variant)
        for best, seconds in _times(workers, task, seconds_per_task).items():
            contiguous = Variant(best.norm)
            results.append(
                Result(
                    *(net, task, best, seconds, peaks[best]), *(errors[best], errors[contiguous])
                )
            )
    for worker in workers.values():
        worker.close()
    return results


def _error(result, exact, task, variant):
    if variant.norm == "Identity":
        return float("nan")
    if task == "inference":
        return np.abs(result - exact).max() / np.abs(exact).max()
    return np.linalg.norm(result - exact) / np.linalg.norm(exact)


def _times(workers, task, seconds):
    """Median seconds of each norm's faster layout; the norms take turns, round by round."""
    # One run beside something else on the machine would take the slower layout to the end.
    trial = {
        variant: min(worker.ask("seconds", task) for _ in range(TRIALS))
        for variant, worker in workers.items()
    }
    chosen = [min((v for v in VARIANTS if v.norm == n), key=trial.__getitem__) for n in NORMS]
    found = {variant: [] for variant in chosen}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found[chosen[-1]]) < FEWEST_ROUNDS:
        for variant in chosen:
            found[variant].append(workers[variant].ask("seconds", task))
    return {variant: statistics.median(times) for variant, times in found.items()}
