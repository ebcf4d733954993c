"""An exception from a signal handler, at any moment, leaves nothing switched on or half done."""

import copy
import random
import signal
import threading

import numpy as np
import pytest
from numpy._core.multiarray import get_handler_name

import instnorm
from instnorm import memory

LARGE = (4, 8, 64, 64)


class InterruptedTestError(Exception):
    pass


def _interrupt(number, frame):
    raise InterruptedTestError


@pytest.fixture
def interrupts():
    """A function that calls another again and again until a signal breaks into it."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("only the main thread gets signals")
    before = signal.signal(signal.SIGALRM, _interrupt)
    rng = random.Random(0)

    def interrupt(call):
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-5, 2e-4))
            while True:
                call()
        except InterruptedTestError:
            pass

    yield interrupt
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def allocator():
    return get_handler_name()


def use_recycled_memory():
    with memory.recycled_memory():
        pass


def allocate():
    memory.empty(LARGE, np.float32)


def normalize():
    instnorm.instance_norm(np.ones(LARGE, np.float32))


def operate():
    instnorm.Tensor(np.ones(LARGE, np.float32)) + 1


@pytest.mark.parametrize(
    ("call", "times"),
    [(use_recycled_memory, 4000), (allocate, 2000), (normalize, 300), (operate, 300)],
)
def test_the_allocator_is_never_left_switched_on(call, times, interrupts):
    call()
    for i in range(times):
        interrupts(call)
        assert allocator() == "default_allocator", f"after {i + 1} interrupts"


def test_recycled_memory_may_be_nested_and_left_by_an_exception():
    with pytest.raises(ZeroDivisionError), memory.recycled_memory():  # noqa: PT012
        with memory.recycled_memory():
            assert allocator() == "instnorm cache"
        assert allocator() == "instnorm cache"
        raise ZeroDivisionError
    assert allocator() == "default_allocator"


def test_recycled_memory_in_use_cannot_be_entered_again():
    recycled = memory.recycled_memory()
    with recycled:
        with pytest.raises(RuntimeError, match="in use"), recycled:
            pass
        assert allocator() == "instnorm cache"
    assert allocator() == "default_allocator"
    with recycled:  # but after that it can
        assert allocator() == "instnorm cache"


def test_recycled_memory_that_is_dropped_is_left():
    # So is it where an exception comes after __enter__ and before the with block.
    memory.recycled_memory().__enter__()
    assert allocator() == "default_allocator"


def test_recycled_memory_is_never_copied():
    # A copy would switch back to the allocator of before a second time.
    with pytest.raises(TypeError, match="pickle"):
        copy.copy(memory.recycled_memory())
