"""The cache of array memory: recycled where it pays, bounded, and invisible otherwise."""

import threading

import numpy as np
import pytest
from helpers import run_python

import instnorm
from instnorm._runtime import _memory, memory

LARGE = (4, 8, 64, 64)  # 512 KiB of float32


@pytest.fixture(autouse=True)
def _fresh_cache():
    limit = instnorm.get_cache_limit()
    instnorm.empty_cache()
    yield
    instnorm.set_cache_limit(limit)
    instnorm.empty_cache()


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_of_a_dead_result_is_used_again():
    x = np.random.default_rng(0).random(LARGE, dtype=np.float32)
    y = instnorm.instance_norm(x)
    before = address(y)
    del y
    assert _memory.get_cached() > 0
    assert address(instnorm.instance_norm(x)) == before


def test_living_results_never_share_memory():
    x = np.random.default_rng(0).random(LARGE, dtype=np.float32)
    results = [instnorm.instance_norm(x * k) for k in range(1, 6)]
    expected = results[0].copy()
    for i, a in enumerate(results):
        assert all(not np.shares_memory(a, b) for b in results[i + 1 :])
    np.testing.assert_array_equal(results[0], expected)


def test_operations_on_tensors_recycle_too():
    a = instnorm.Tensor(np.ones(LARGE, np.float32))
    b = a + 1
    before = address(b.data)
    del b
    assert address((a * 2).data) == before


def test_blocks_begin_lines_but_not_where_numpys_begin_in_a_page():
    x = np.random.default_rng(0).random(LARGE, dtype=np.float32)
    results = [instnorm.instance_norm(x) for _ in range(6)]
    places = {address(y) % 4096 for y in results}
    assert len(places) == 3
    assert all(place % 64 == 0 and 1024 <= place < 4096 for place in places)


def test_a_zeroed_array_from_recycled_memory_is_zero():
    with memory.recycled_memory():
        np.full(LARGE, 7.0)
        assert not np.zeros(LARGE).any()


def test_growing_and_shrinking_an_array_in_place_keeps_its_values():
    with memory.recycled_memory():
        a = np.arange(100_000.0)
        a.resize(300_000, refcheck=False)
        a.resize(10, refcheck=False)
    np.testing.assert_array_equal(a, np.arange(10.0))


def test_an_array_that_becomes_far_smaller_gives_its_memory_back():
    with memory.recycled_memory():
        a = np.arange(2.0**17)
        a.resize(10, refcheck=False)
    assert _memory.get_cached() >= 2**20
    np.testing.assert_array_equal(a, np.arange(10.0))
    with memory.recycled_memory():
        b = np.arange(2.0**17)
    before = address(b)
    b.resize(2**17 - 2**10, refcheck=False)  # little would be gained by moving
    assert address(b) == before


def test_the_limit_bounds_the_cache():
    instnorm.set_cache_limit(2**20)
    x = np.zeros(LARGE, np.float32)
    del x
    kept = [instnorm.instance_norm(np.ones(LARGE, np.float32)) for _ in range(8)]
    del kept
    assert 0 < _memory.get_cached() <= 2**20


def test_a_full_cache_gives_up_what_waited_longest():
    instnorm.set_cache_limit(2**20)
    sizes = (2**18, 3 * 2**16, 3 * 2**17, 2**17, 7 * 2**16)  # the last three fit together
    for size in sizes:
        with memory.recycled_memory():
            array = np.empty(size, np.uint8)
        del array
    assert _memory.get_cached() == sum(sizes[2:])
    with memory.recycled_memory():
        kept = [np.empty(size, np.uint8) for size in sizes[2:]]
    assert _memory.get_cached() == 0
    assert len(kept) == 3


def test_a_smaller_limit_keeps_what_fits():
    with memory.recycled_memory():
        a, b = np.empty(2**20, np.uint8), np.empty(2**17, np.uint8)
    del a, b
    instnorm.set_cache_limit(2**19)
    assert _memory.get_cached() == 2**17


def test_any_order_of_frees_and_uses_keeps_count():
    rng = np.random.default_rng(0)
    instnorm.set_cache_limit(2**21)
    living = []
    for _ in range(3000):
        if living and rng.random() < 0.5:
            array, value = living.pop(int(rng.integers(len(living))))
            assert (array == value).all()
            del array
        else:
            with memory.recycled_memory():
                array = np.empty(int(rng.integers(2**16, 2**18)), np.uint8)
            array[:] = value = len(living) % 251
            living.append((array, value))
        assert _memory.get_cached() <= 2**21
    living.clear()
    instnorm.empty_cache()
    assert _memory.get_cached() == 0


def test_limit_zero_switches_the_cache_off():
    instnorm.set_cache_limit(0)
    y = instnorm.instance_norm(np.ones(LARGE, np.float32))
    del y
    assert _memory.get_cached() == 0


def test_empty_cache_returns_everything():
    y = instnorm.instance_norm(np.ones(LARGE, np.float32))
    del y
    instnorm.empty_cache()
    assert _memory.get_cached() == 0


@pytest.mark.parametrize("size", [65535, 65536, 65537, 73728, 73729, 1_000_003, 33_554_433])
def test_blocks_of_odd_sizes_hold_what_is_written(size):
    with memory.recycled_memory():
        a = np.empty(size, np.uint8)
        b = np.empty(size, np.uint8)
    a[:], b[:] = 1, 2
    assert a.min() == a.max() == 1
    assert b.min() == b.max() == 2


def test_threads_can_allocate_and_free_at_once():
    x = np.random.default_rng(0).random(LARGE, dtype=np.float32)
    expected, wrong = instnorm.instance_norm(x), []

    def work():
        for _ in range(30):
            if not np.array_equal(instnorm.instance_norm(x), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.parametrize("value", [-1, 2**63, 10**400, 1.5, "1", True, None])
def test_a_bad_limit_is_refused(value):
    error = ValueError if type(value) is int else TypeError
    with pytest.raises(error, match="nbytes must"):
        instnorm.set_cache_limit(value)


def test_the_environment_sets_the_limit():
    code = "import instnorm; print(instnorm.get_cache_limit())"
    assert run_python(code, INSTNORM_CACHE_BYTES="12345").strip() == "12345"


@pytest.mark.parametrize("text", ["-1", "1.5", "²", "9" * 19, "9" * 5000])
def test_a_bad_limit_in_the_environment_is_refused(text, monkeypatch):
    monkeypatch.setenv("INSTNORM_CACHE_BYTES", text)
    with pytest.raises(ImportError, match=r"INSTNORM_CACHE_BYTES is .*, expected a number"):
        memory.limit_from_environment()
