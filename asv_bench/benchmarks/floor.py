"""The floor that speed is measured against: the traffic that nobody can avoid.

A forward pass has to read x and write y, as numpy.copyto(y, x) does. Both passes have to do that,
and then to read x and grad_output and write grad_input, as numpy.add does.
"""

import threading
import time

import numpy as np

from .common import placed

LINE = 64  # bytes


class Team:
    """Python threads that stay, and start and end a piece of work together.

    NumPy lets go of the interpreter's lock in its loops, so that Python's threads will do.
    """

    def __init__(self, threads):
        self._barrier = threading.Barrier(threads)
        self._spans = [(0.0, 0.0)] * threads
        self._awake = [False] * threads
        self._work = self._calls = None
        for index in range(1, threads):
            threading.Thread(target=self._stay, args=(index,), daemon=True).start()

    def mean_seconds(self, work, calls):
        """Let each thread call its part of the work so often; from the first start to the last end.

        Parameters
        ----------
        work : list of callable
            One for each thread.
        calls : int
        """
        self._work, self._calls = work, calls
        self._awake = [False] * len(work)
        self._take_part(0)
        starts, ends = zip(*self._spans, strict=True)
        return (max(ends) - min(starts)) / calls

    def _stay(self, index):
        while True:
            self._take_part(index)

    def _take_part(self, index):
        self._barrier.wait()
        part = self._work[index]
        # The barrier wakes one thread after another; those that are awake wait for the last one
        # without going to sleep again.
        self._awake[index] = True
        while not all(self._awake):
            time.sleep(0)
        start = time.perf_counter()
        for _ in range(self._calls):
            part()
        self._spans[index] = (start, time.perf_counter())
        self._barrier.wait()


_teams = {}


def team(threads):
    """The process's team of so many threads."""
    if threads not in _teams:
        _teams[threads] = Team(threads)
    return _teams[threads]


class Floor:
    """The unavoidable traffic of a pass, on flat arrays; `mean_seconds` is what is timed.

    The threads meet before the first and after the last of the calls in a row, and not between
    them: what it takes to wake a thread is not traffic.
    """

    def __init__(self, arrays, threads, direction):
        self._team = team(threads)
        work = {"forward": _copy, "forward+backward": _both_passes}[direction]
        parts = zip(*(_shares(array, threads) for array in arrays), strict=True)
        self._work = [work(*part) for part in parts]

    def __call__(self):
        self.mean_seconds(1)

    def mean_seconds(self, calls):
        return self._team.mean_seconds(self._work, calls)


def floors(inputs, threads, direction):
    """The floor of the inputs, on one thread and on all of them; the faster one is the limit.

    Parameters
    ----------
    inputs : benchmarks.common.Inputs
    threads : int
    direction : {"forward", "forward+backward"}

    Returns
    -------
    dict from str to Floor
    """
    x, grad_output = _flat(inputs.x), _flat(inputs.grad_output)
    y, grad_input = (placed(x.shape, x.dtype, name) for name in ("y", "grad_input"))
    for target in (y, grad_input):
        target.fill(0)  # so that its pages are there before the clock runs
    arrays = x, grad_output, y, grad_input
    return {f"{n} thread{'s' * (n > 1)}": Floor(arrays, n, direction) for n in sorted({1, threads})}


def _copy(x, grad_output, y, grad_input):
    return lambda: np.copyto(y, x)


def _both_passes(x, grad_output, y, grad_input):
    def work():
        np.copyto(y, x)
        np.add(x, grad_output, out=grad_input)

    return work


def _flat(array):
    """The elements of a dense array in the order of memory.

    Half precision is taken as integers of its size, since NumPy computes with it element by
    element, which takes far longer than the traffic.
    """
    if not array.flags.c_contiguous:
        array = np.moveaxis(array, 1, -1)
    flat = array.reshape(-1)
    assert flat.base is not None  # a view: the floor is measured on the very arrays
    return flat.view(np.uint16) if flat.itemsize == 2 else flat


def _shares(flat, threads):
    """Parts of nearly the same size, each of which begins where a cache line does."""
    line = LINE // flat.itemsize
    cuts = [round(i * flat.size / threads / line) * line for i in range(threads)]
    return np.split(flat, cuts[1:])
