"""Every SIMD level passes; any number of threads gives the same bits; forks stay alive."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from helpers import ROOT, TESTS

import instnorm
from instnorm import _core
from instnorm._runtime import simd

KERNEL_TESTS = TESTS / "kernels" / "test_kernels.py"


def test_only_the_chosen_kernels_are_loaded():
    code = (
        "import sys, instnorm\n"
        "from instnorm._runtime import simd\n"
        "list(simd.available())\n"
        "print(*(name for name in sys.modules if name.startswith('instnorm._core')))\n"
        "print(*(simd._module('_core', level).__name__ for level in simd.available()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = [simd._module_name("_core", level) for level in simd.available()]
    chosen = simd._module_name("_core", simd.level)
    assert done.stdout.splitlines() == [chosen, " ".join(names)]


@pytest.mark.parametrize("level", [name for name in simd.available() if name != simd.level])
def test_the_tests_of_the_kernels_pass_at_every_level(level):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(KERNEL_TESTS)],
        env={**os.environ, "INSTNORM_SIMD": level},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout


def test_the_widest_level_is_the_default():
    code = "from instnorm._runtime import simd; print(simd.level)"
    env = {k: v for k, v in os.environ.items() if k != "INSTNORM_SIMD"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == next(simd.available())


def test_an_unknown_level_is_refused():
    code = "import instnorm"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "INSTNORM_SIMD": "sse9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "INSTNORM_SIMD is 'sse9', expected one of avx512, avx2, baseline" in done.stderr


def test_openmp_is_on_where_the_compiler_has_it(tmp_path):
    if os.environ.get("INSTNORM_NO_OPENMP"):
        pytest.skip("INSTNORM_NO_OPENMP asks for a serial build")
    source = tmp_path / "probe.c"
    source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    command = [*compiler, "-fopenmp", str(source), "-o", str(tmp_path / "probe")]
    if not shutil.which(compiler[0]) or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the compiler has no OpenMP")
    assert _core.HAS_OPENMP


@pytest.mark.parametrize("shape", [(1, 3, 700, 701), (5, 7, 113, 113), (3, 40, 4099)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_number_of_threads_changes_no_bit(shape, dtype):
    rng = np.random.default_rng(1)
    x, g = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    w = rng.standard_normal(shape[1])
    before, digests = instnorm.get_num_threads(), set()
    try:
        for n in (1, 2, 3, 4, 7):
            instnorm.set_num_threads(n)
            y, mean, rstd = instnorm.instance_norm(x, w, w, return_stats=True)
            grads = instnorm.instance_norm_backward(g, x, w, mean=mean, rstd=rstd)
            whole = b"".join(a.tobytes() for a in (y, mean, rstd, *grads))
            digests.add(hashlib.sha256(whole).hexdigest())
    finally:
        instnorm.set_num_threads(before)
    assert len(digests) == 1


def test_a_sample_is_normalized_the_same_in_any_batch():
    x = np.random.default_rng(2).standard_normal((9, 5, 7, 7), dtype=np.float32)
    whole = instnorm.instance_norm(x)
    for n in range(9):
        np.testing.assert_array_equal(instnorm.instance_norm(x[n : n + 1]), whole[n : n + 1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_finishes():
    x = np.random.default_rng(3).random((4, 8, 256, 256), dtype=np.float32)
    before = instnorm.get_num_threads()
    instnorm.set_num_threads(2)
    expected = instnorm.instance_norm(x)
    pid = os.fork()
    if pid == 0:
        same = np.array_equal(instnorm.instance_norm(x), expected)
        os._exit(0 if same and instnorm.get_num_threads() == 1 else 1)
    instnorm.set_num_threads(before)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_a_bad_number_of_threads_is_refused(n, error):
    with pytest.raises(error, match="n must be"):
        instnorm.set_num_threads(n)


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("2,4", 2), ("", None), ("x", None)])
def test_omp_num_threads_is_honoured(monkeypatch, value, expected):
    from instnorm._runtime.threads import default_num_threads

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    otherwise = default_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert default_num_threads() == (otherwise if expected is None else expected)


def test_affinity_is_honoured(monkeypatch):
    from instnorm._runtime.threads import default_num_threads

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert default_num_threads() == 1
