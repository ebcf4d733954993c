"""The benchmarks run, and the instruments that they and `make peers` measure with are right."""

import json
import os
import subprocess
import sys
from collections import Counter
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import common, copying, interleaved
from helpers import ROOT, reference
from peers import peer, run, table

ASV_BENCH = ROOT / "asv_bench"


def run_there(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ASV_BENCH,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


# --- the benchmarks that asv tracks -------------------------------------------------------


def benchmarks():
    for path in sorted((ASV_BENCH / "benchmarks").glob("[!_]*.py")):
        module = import_module(f"benchmarks.{path.stem}")
        for cls in vars(module).values():
            if not isinstance(cls, type) or cls.__module__ != module.__name__:
                continue
            for name in dir(cls):
                if name.startswith(("time_", "peakmem_", "track_")) and cls.__name__[0] != "_":
                    yield pytest.param(cls, name, id=f"{path.stem}.{cls.__name__}.{name}")


def test_asv_accepts_the_suite(tmp_path):
    # In a home of its own, so that asv neither finds nor leaves anything about this machine.
    done = run_there("asv", "check", "--python=same", HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


@pytest.mark.parametrize(("cls", "name"), [*benchmarks()])
def test_each_benchmark_runs(cls, name, restore_threads):
    values = [values[0] for values in getattr(cls, "params", ())]
    benchmark = cls()
    if hasattr(benchmark, "setup"):
        benchmark.setup(*values)
    result = getattr(benchmark, name)(*values)
    if name.startswith("track_"):
        assert 0 < result < np.inf


@pytest.mark.parametrize("name", [*common.DTYPES])
def test_layouts_hold_the_same_values(name):
    contiguous, last = (common.Inputs((2, 3, 4, 5), name, layout) for layout in common.LAYOUTS)
    assert contiguous.x.dtype == last.grad_output.dtype == common.dtype_named(name)
    assert contiguous.x.flags.c_contiguous
    assert np.moveaxis(last.x, 1, -1).flags.c_contiguous
    np.testing.assert_array_equal(contiguous.x, last.x)
    np.testing.assert_array_equal(contiguous.grad_output, last.grad_output)


# --- what they measure with ---------------------------------------------------------------


def test_turns_and_their_times(monkeypatch):
    now, order = [0.0], []
    clock = SimpleNamespace(perf_counter=lambda: now[0], sleep=lambda seconds: None)
    monkeypatch.setattr(interleaved, "time", clock)

    def lasting(name, seconds):
        def function():
            order.append(name)
            now[0] += seconds

        return function

    functions = {"fast": lasting("fast", 0.001), "slow": lasting("slow", 5.0)}
    seconds = interleaved.seconds_per_call(functions, rounds=6, turn=0.01)
    assert {name: len(values) for name, values in seconds.items()} == {"fast": 6, "slow": 6}
    assert interleaved.medians(seconds) == pytest.approx({"fast": 0.001, "slow": 5.0})
    # One call to see how long it takes, three more where that is short; then the rounds.
    assert Counter(order) == {"fast": 4 + 6 * (3 + 10), "slow": 1 + 6}
    turns = [name for name, before in zip(order, ["", *order], strict=False) if name != before]
    assert len(turns) > 4


@pytest.mark.parametrize("layout", common.LAYOUTS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_copy_copies_every_byte_once(layout, threads, monkeypatch):
    x = common.Inputs((2, 3, 5, 7), layout=layout).x
    ways = copying.copies(x, threads)
    assert len(ways) == min(threads, 2)
    copyto, written = np.copyto, []

    def recorded(target, source):
        copyto(target, source)
        written.append((target.ctypes.data, target.nbytes, source.copy()))

    monkeypatch.setattr(np, "copyto", recorded)
    for way in ways.values():
        written.clear()
        way()
        written.sort(key=lambda part: part[0])
        starts, sizes, parts = zip(*written, strict=True)
        assert list(np.diff(starts)) == list(sizes[:-1])
        np.testing.assert_array_equal(np.concatenate(parts), x.ravel(order="K"))


# --- instnorm and its peers side by side --------------------------------------------------


def test_the_exact_result_is_the_references():
    case = peer.Case((2, 3, 4, 5), "float64", "channels-last")
    y = reference.forward(case.x, case.weight, case.bias)
    right = (y, *reference.backward(case.grad_output, case.x, case.weight))
    assert peer.error(peer.exact(case), right) < 1e-14


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda y: y, 0),
        (lambda y: y + 0.5 * np.abs(y).max() * (y == y.max()), 0.5),
        (lambda y: np.where(y == y.max(), np.nan, y), np.inf),
        (lambda y: y[:, :2], np.inf),
    ],
)
def test_errors_are_found(spoil, expected):
    right = np.linspace(-3, 2, 24).reshape(2, 3, 4)
    assert peer.error((right, spoil(right)), (right, right)) == pytest.approx(expected)


class Doubled(peer.Peer):
    name = label = "numba"

    def forward(self, case):
        return lambda: (2 * peer.exact(case)[0],)

    def training(self, case):
        raise peer.NotSupportedError("no gradients here")


def test_what_is_wrong_or_missing_is_named(monkeypatch):
    monkeypatch.setattr(run, "FAMILIES", ("numpy", "missing"))
    runner = run.Runner(["numpy", "missing"], threads=1, rounds=1, turn=0.001)
    runner._peers.append(Doubled())
    runner.shape((2, 3, 4, 5), ["float32"], ["contiguous"])
    results = runner.results
    notes = "\n".join(table.notes(results))
    assert "! wrong: numba, (2,3,4,5) forward, contiguous, float32: off by 1.0e+00" in notes
    assert "- left out: missing: peers.missing_peers is not installed" in notes
    assert "- left out: numba: no gradients here" in notes
    assert [m.peer for m in results.measurements if m.wrong] == ["numba"]
    forward, training = table.table(results).splitlines()[2:]
    assert forward.split()[-2].endswith("!")
    assert training.split()[-2] == "-"


def measurement(name, seconds, shape=(1, 2**18), direction="forward", layout="contiguous", **more):
    fields = {"dtype": "float32", "low": seconds, "high": seconds, **more}
    return run.Measurement(
        name, shape, layout=layout, direction=direction, seconds=seconds, **fields
    )


def test_the_figures_to_aim_at():
    small, large = (1, 3, 2, 2), (1, 32, 2**16)
    both = "forward+backward"
    measurements = []
    for shape in (small, large):
        for direction in ("forward", both):
            measurements.append(measurement("copy", 1.0, shape, direction, layout=""))
    measurements += [
        measurement("instnorm", 100.0, small),
        measurement("instnorm", 1.5, large),
        measurement("instnorm", 3.0, large, both),
        measurement("instnorm", 3.6, large, both, "channels-last"),
        measurement("instnorm-layer", 2e-6, small),
        measurement("torch-instance_norm", 5e-5, small, error=1.0),
        measurement("torch-instance_norm", 21.0, large, both),
        measurement("numpy", 0.75, large),
    ]
    lines = list(table.summary(run.Results({}, measurements, [])))
    name = "(1,32,65536)"
    assert lines == [
        "instnorm, contiguous, float32:",
        "  forward / copy, inputs of 1 MiB and more: "
        f"geometric mean 1.50, worst 1.50 at {name} (goal 1.25)",
        "  forward+backward / copy, inputs of 1 MiB and more: "
        f"geometric mean 3.00, worst 3.00 at {name} (goal 2.8)",
        "  PyTorch instance_norm / instnorm, forward+backward: "
        f"geometric mean 7.00, worst 7.00 at {name} (goal 6)",
        "  cases in which a peer is faster: 1 (goal 0)",
        f"    {name} forward: NumPy 0.50 of our time",
        "instnorm, channels-last, float32:",
        "  forward+backward / copy, inputs of 1 MiB and more: "
        f"geometric mean 3.60, worst 3.60 at {name} (goal 2.8)",
        "  cases in which a peer is faster: 0 (goal 0)",
        "layer, (1,3,2,2) forward, float32: 2 us, 1/25.0 of PyTorch's 50 us (goal 1/8)",
        "channels-last / contiguous, forward+backward, float32, 32 channels and more: "
        f"geometric mean 1.20, worst 1.20 at {name} (goal 1.3)",
    ]


@pytest.mark.torch
def test_the_command(tmp_path):
    names = ["instnorm", "instnorm-layer", "torch-instance_norm", "torch-group_norm", "jax"]
    done = run_there(
        *("peers", "--quick", "--shapes", "2,3,4,5", "--out", tmp_path, "--threads", 1),
        *("--dtype", "float32", "bfloat16", "--peers", *names, "numpy"),
    )
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "peers.json").read_text())
    # JAX is not in the tests' environment; where it is, it counts.
    measured = {m["peer"] for m in saved["measurements"]} | {m["peer"] for m in saved["left_out"]}
    assert measured == {"copy", "torch-copy", "numpy", *names}
    assert not any(m["wrong"] for m in saved["measurements"])
    rows = [line for line in done.stdout.splitlines() if line.startswith("(2,3,4,5)")]
    assert len(rows) == 2 * 2 * 2  # passes, layouts, dtypes
    for dtype in ("float32", "bfloat16"):
        assert (tmp_path / f"peers-{dtype}.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "3,4"], "expected N,C and 1 to 3 more sizes, got '3,4'"),
        (["--shapes", "a,b,c"], "expected N,C and 1 to 3 more sizes, got 'a,b,c'"),
        (["--peers", "tensorflow"], "invalid choice: 'tensorflow'"),
        (["--threads", "9999"], "argument --threads: got 9999, expected at most"),
        (["--threads", "0"], "argument --threads: got 0, expected at least 1"),
        (["--rounds", "0"], "argument --rounds: got 0, expected at least 1"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, message, tmp_path):
    done = run_there("peers", *arguments, "--out", tmp_path / "out")
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
