"""The measurements of one net at one batch size; the libraries take turns."""

import math
import time
from typing import NamedTuple

from benchmarks.worker import Worker

from .job import Job

FEWEST_ROUNDS = 3
ROUND_MILLISECONDS = 50  # about


class Result(NamedTuple):
    net: str
    batch_size: int
    milliseconds: dict  # by library
    peak: dict  # MiB, by library
    difference: float  # of our losses from PyTorch's, relative
    rounding: float  # of PyTorch's losses from its own in float64
    smooth: float  # of our losses from PyTorch's, where the net has no kinks

    @property
    def ratio(self):
        return self.milliseconds["instnorm"] / self.milliseconds["PyTorch"]


def measure(net, batch_size, libraries, options):
    workers = {
        name: Worker(Job, net, name, batch_size, options.dtype, options.threads)
        for name in libraries
    }
    for worker in workers.values():
        worker.ready()
    losses, peak = {}, {}
    for name, worker in workers.items():
        losses[name], peak[name] = worker.ask("losses", options.steps)
    times = _times(workers, options)
    for worker in workers.values():
        worker.close()
    exact = _losses(options, net, "PyTorch", batch_size, "float64")
    without_kinks = [
        _losses(options, net, library, batch_size, options.dtype, True)
        for library in ("instnorm", "PyTorch")
    ]
    return [
        Result(
            *(net, batch_size, times, peak),
            difference=_difference(losses["instnorm"], losses["PyTorch"]),
            rounding=_difference(losses["PyTorch"], exact),
            smooth=_difference(*without_kinks),
        )
    ]


def _losses(options, net, library, batch_size, dtype, smooth=False):
    worker = Worker(Job, net, library, batch_size, dtype, options.threads, smooth)
    worker.ready()
    losses, _ = worker.ask("losses", options.steps)
    worker.close()
    return losses


def _difference(losses, reference):
    pairs = zip(losses, reference, strict=True)
    return max((abs(a - b) / abs(b) for a, b in pairs), default=math.nan)


def _times(workers, options):
    """The least milliseconds of a step in each library, over rounds of some steps."""
    steps = {
        name: max(1, round(ROUND_MILLISECONDS / worker.ask("milliseconds", 1, "wall")))
        for name, worker in workers.items()
    }
    found = {name: [] for name in workers}
    end = time.monotonic() + options.seconds
    while time.monotonic() < end or min(map(len, found.values())) < FEWEST_ROUNDS:
        for name, worker in workers.items():
            found[name].append(worker.ask("milliseconds", steps[name], options.clock))
    return {name: min(times) for name, times in found.items()}
