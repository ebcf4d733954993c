"""Everything at once: kernels and layers in several threads, other thread counts, caches, forks.

`INSTNORM_STRESS_SECONDS` says for how long; `make races` runs this under ThreadSanitizer.
"""

import os
import threading
import time

import numpy as np
import pytest

import instnorm
import instnorm.functional as F
from instnorm import Tensor, instance_norm, instance_norm_backward
from instnorm._runtime import _memory

SECONDS = float(os.environ.get("INSTNORM_STRESS_SECONDS", "1"))
# In one thread; shared among OpenMP's, by rows, by blocks of rows, and by pixels.
CASES = [((4, 8, 33), 1), ((4, 33, 8), -1), ((8, 16, 2500), 1), ((1, 3, 110_000), 1)]
CASES += [((2, 30_000, 5), -1), ((1, 5, 53_000), 1)]


def sample(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def epilogue(shape, axis, dtype):
    """All that can follow the affine map."""
    channels = shape[axis]
    pixels = tuple(np.delete(shape, axis))
    return {
        "residual": sample(shape, dtype, 3),
        "mask": sample(pixels, np.float64, 4) > -1,
        "activation": "leaky_relu",
        "negative_slope": np.linspace(0.1, 0.5, channels),
    }


def norm(x, g, weight, axis, options):
    """Results and gradients of one call."""
    options = {"channel_axis": axis, **options}
    y, mean, rstd = instance_norm(x, weight, weight, return_stats=True, **options)
    if len(options) > 1:
        options["bias"] = weight
    return y, mean, rstd, *instance_norm_backward(g, x, weight, mean=mean, rstd=rstd, **options)


def net(x, kernel, matrix, labels):
    """Convolution, norm, pooling, a product of matrices and a loss, all shared among threads."""
    leaves = [Tensor(array, requires_grad=True) for array in (x, kernel, matrix)]
    h = F.conv2d(leaves[0], leaves[1], padding=1)
    h = F.max_pool2d(F.relu(F.instance_norm(h)), 2)
    loss = F.cross_entropy(h.flatten(1) @ leaves[2], labels)
    loss.backward()
    return loss.data, *(leaf.grad.data for leaf in leaves)


class Problem:
    """One call, and what it gave when nothing else was going on."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments
        self.expected = self.found()

    def found(self):
        return [a.tobytes() for a in self.function(*self.arguments)]

    def check(self):
        assert self.found() == self.expected


def problems():
    for shape, axis in CASES:
        for dtype in (np.float32, np.float64):
            arrays = sample(shape, dtype, 0), sample(shape, dtype, 1), sample(shape[axis], dtype, 2)
            for options in {}, epilogue(shape, axis, dtype):
                yield Problem(norm, *arrays, axis, options)
    for dtype in (np.float32, np.float64):
        arrays = [sample(s, dtype, 5) for s in ((16, 3, 32, 32), (16, 3, 3, 3), (16 * 256, 10))]
        yield Problem(net, *arrays, np.arange(16) % 10)


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
    # Some of them twice: the same arrays are read at once.
    checks = [problem.check for problem in problems()]
    jobs = [*checks, *checks[::4], *checks[-2:], change_threads, change_cache]
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
