"""Timing of several functions side by side, so that what disturbs one disturbs all.

The functions take turns, in a new random order in every round. Before each turn there is
a pause: threads that OpenMP and the like leave spinning after a parallel region, in hope of
the next one, would hold up the threads of another library. After the pause come untimed
calls, which wake a library's own threads and bring its data back into the caches, then the
timed ones in a row.

A function that has a method `mean_seconds(calls)` keeps the time itself: one that runs in
another process, or on several threads at once.
"""

import random
import time

import numpy as np

PAUSE = 0.01


def seconds_per_call(functions, rounds=5, turn=0.02):
    """Time functions of no arguments.

    Parameters
    ----------
    functions : dict from str to callable
    rounds : int
    turn : float
        How long, in seconds, a function is timed in each round; at least one call.

    Returns
    -------
    dict from str to list of float
        For each function, the mean time of a call in each round.
    """
    order = list(functions)
    calls = {name: _calls_that_fit(function, turn) for name, function in functions.items()}
    shuffle = random.Random(0).shuffle
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            time.sleep(PAUSE)
            # One call that outlasts its turn is long beside the time that waking threads takes.
            if calls[name] > 1:
                mean_seconds(functions[name], calls[name] // 4 + 1)
            seconds[name].append(mean_seconds(functions[name], calls[name]))
    return seconds


def medians(seconds):
    return {name: float(np.median(values)) for name, values in seconds.items()}


def _calls_that_fit(function, turn):
    seconds = mean_seconds(function, 1)
    if seconds < turn:  # else it is slow enough for the first call to tell
        seconds = min(mean_seconds(function, 1) for _ in range(3))
    return max(1, min(10_000, int(turn / seconds)))


def mean_seconds(function, calls):
    """Time so many calls in a row; the mean time of one."""
    if hasattr(function, "mean_seconds"):
        return function.mean_seconds(calls)
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls
