"""The measurements of one net: accuracy, memory, and times that the variants take in turns."""

import statistics
import time
from typing import NamedTuple

import numpy as np

from models.worker import Variant, Worker

NORMS = ("PyTorch", "instnorm", "Identity")
TASKS = ("inference", "training")
TIMED = [Variant(norm, last) for norm in NORMS for last in (False, True)]
FEWEST_ROUNDS = 3


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
    truth = Worker(net, Variant("float64"))
    truth.ready()
    exact = {"inference": truth.ask("output"), "training": truth.ask("gradients")}
    truth.close()

    workers = {variant: Worker(net, variant) for variant in TIMED}
    for worker in workers.values():
        worker.ready()
    results = []
    for task in TASKS:
        peaks = {variant: worker.ask("peak", task) for variant, worker in workers.items()}
        errors = {v: _error(worker, task, exact[task], v) for v, worker in workers.items()}
        times = _interleaved(workers, task, seconds_per_task)
        for norm in NORMS:
            best = min((v for v in TIMED if v.norm == norm), key=times.__getitem__)
            results.append(
                Result(
                    *(net, task, best, times[best], peaks[best]),
                    *(errors[best], errors[Variant(norm)]),
                )
            )
    for worker in workers.values():
        worker.close()
    return results


def _error(worker, task, exact, variant):
    if variant.norm == "Identity":
        return float("nan")
    if task == "inference":
        return np.abs(worker.ask("output") - exact).max() / np.abs(exact).max()
    return np.linalg.norm(worker.ask("gradients") - exact) / np.linalg.norm(exact)


def _interleaved(workers, task, seconds):
    """Median seconds of each variant; all variants take their turn in each round."""
    found = {variant: [] for variant in workers}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found[TIMED[0]]) < FEWEST_ROUNDS:
        for variant, worker in workers.items():
            found[variant].append(worker.ask("seconds", task))
    return {variant: statistics.median(times) for variant, times in found.items()}
