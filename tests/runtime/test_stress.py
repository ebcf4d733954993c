"""Everything at once: kernels in several threads, other threads counts and caches, forks.

`INSTNORM_STRESS_SECONDS` says for how long; `make races` runs this under ThreadSanitizer.
"""

import os
import threading
import time

import numpy as np
import pytest

import instnorm
from instnorm import Tensor, instance_norm, instance_norm_backward
from instnorm._runtime import _memory

SECONDS = float(os.environ.get("INSTNORM_STRESS_SECONDS", "1"))
# In one thread; shared among OpenMP's, by rows, by blocks of rows, and by pixels.
CASES = [((4, 8, 33), 1), ((4, 33, 8), -1), ((8, 16, 2500), 1), ((1, 3, 110_000), 1)]
CASES += [((2, 30_000, 5), -1), ((1, 5, 53_000), 1)]


def sample(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def results_of(x, g, weight, axis):
    y, mean, rstd = instance_norm(x, weight, weight, channel_axis=axis, return_stats=True)
    return (
        y,
        mean,
        rstd,
        *instance_norm_backward(g, x, weight, mean=mean, rstd=rstd, channel_axis=axis),
    )


class Problem:
    """One call, and what it gave when nothing else was going on."""

    def __init__(self, shape, axis, dtype):
        self.arguments = (
            sample(shape, dtype, 0), sample(shape, dtype, 1), sample(shape[axis], dtype, 2), axis
        )  # fmt: skip
        self.expected = [a.tobytes() for a in results_of(*self.arguments)]

    def check(self):
        assert [a.tobytes() for a in results_of(*self.arguments)] == self.expected


def train_a_step(_=None):
    x = Tensor(sample((4, 3, 32, 32), np.float32, 3), requires_grad=True)
    y = instnorm.functional.instance_norm(x)
    (y * y + y).sum().backward()
    assert x.grad is not None


def fork():
    """A child that normalizes, while its parent's other threads go on."""
    x = sample((8, 16, 2500), np.float32, 0)
    pid = os.fork()
    if pid == 0:
        fine = False
        try:
            fine = bool(np.isfinite(instance_norm(x)).all()) and instnorm.get_num_threads() == 1
        finally:
            os._exit(0 if fine else 1)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError("a forked child hangs")
        time.sleep(0.001)
    assert done[1] == 0
    time.sleep(0.02)


def change_threads(step=iter(range(10**9))):  # noqa: B008
    instnorm.set_num_threads(1 + next(step) % 4)
    time.sleep(0.001)


def change_cache(step=iter(range(10**9))):  # noqa: B008
    instnorm.set_cache_limit([0, 2**18, 2**22, 2**28][next(step) % 4])
    instnorm.empty_cache()
    assert _memory.get_cached() <= 2**28
    time.sleep(0.001)


@pytest.fixture(autouse=True)
def _restore_all():
    threads, limit = instnorm.get_num_threads(), instnorm.get_cache_limit()
    yield
    instnorm.set_num_threads(threads)
    instnorm.set_cache_limit(limit)


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("forks", [False, True])
def test_everything_at_once_gives_what_each_gives_alone(forks):
    problems = [
        Problem(shape, axis, dtype) for shape, axis in CASES for dtype in (np.float32, np.float64)
    ]
    jobs = [problem.check for problem in problems[::2]] + [problem.check for problem in problems]
    jobs += [train_a_step, change_threads, change_cache]
    if forks:
        if not hasattr(os, "fork"):
            pytest.skip("the platform has no fork")
        jobs.append(fork)
    errors, done, end = [], [0] * len(jobs), time.monotonic() + SECONDS

    def work(number):
        try:
            while time.monotonic() < end or not done[number]:
                jobs[number]()
                done[number] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(500)
        assert not thread.is_alive(), "a thread hangs"
    assert not errors
    print(f"{sum(done)} calls")
