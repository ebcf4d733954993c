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
from benchmarks import common, floor, interleaved, worker
from comparisons.peers import __main__ as command
from comparisons.peers import peer, run, table
from helpers import ROOT, reference

from instnorm._runtime import simd

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


def test_asv_can_start_workers(tmp_path):
    # asv imports the package in a way that a process started from a benchmark does not share.
    name = r"RatioToFloor.track_forward\('\(32,512,7,7\)', 1, 'contiguous', 'baseline'\)"
    options = ["--python=same", "--quick", "--dry-run", "--show-stderr", "--bench", name]
    run_there("asv", "machine", "--yes", HOME=str(tmp_path))
    done = run_there("asv", "run", *options, HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "track_forward" in done.stdout
    assert "failed" not in done.stdout


@pytest.mark.parametrize(("cls", "name"), [*benchmarks()])
def test_each_benchmark_runs(cls, name, restore_threads):
    values = [values[0] for values in getattr(cls, "params", ())]
    benchmark = cls()
    if hasattr(benchmark, "setup"):
        benchmark.setup(*values)
    result = getattr(benchmark, name)(*values)
    if hasattr(benchmark, "teardown"):
        benchmark.teardown(*values)
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


def test_a_function_may_keep_the_time_itself(monkeypatch):
    class Kept:
        calls = 0

        def mean_seconds(self, calls):
            self.calls += calls
            return 0.001

    kept = Kept()
    monkeypatch.setattr(interleaved.time, "sleep", lambda seconds: None)
    assert interleaved.seconds_per_call({"kept": kept}, rounds=2, turn=0.01) == {
        "kept": [0.001] * 2
    }
    assert kept.calls == 4 + 2 * (3 + 10)


@pytest.mark.parametrize("layout", common.LAYOUTS)
@pytest.mark.parametrize("dtype", common.DTYPES)
def test_arrays_lie_at_different_places_of_a_page(layout, dtype):
    inputs = common.Inputs((2, 3, 5, 7), dtype, layout)
    memory = {"x": inputs.x, "grad_output": inputs.grad_output}
    memory |= {name: common.placed((70,), np.float64, name) for name in ("y", "grad_input")}
    assert {n: a.ctypes.data % common.PAGE for n, a in memory.items()} == common.PLACES
    assert all(place % 64 == 0 for place in common.PLACES.values())
    places = sorted([0, *common.PLACES.values(), common.PAGE])
    assert min(np.diff(places)) >= 448
    assert np.shares_memory(floor._flat(inputs.x), inputs.x)


@pytest.mark.parametrize("layout", common.LAYOUTS)
@pytest.mark.parametrize("dtype", common.DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_floor_moves_every_byte_once(layout, dtype, threads, monkeypatch):
    inputs = common.Inputs((2, 3, 5, 7), dtype, layout)
    kept, placed = {}, common.placed

    def remembered(shape, dtype, name):
        kept[name] = placed(shape, dtype, name)
        return kept[name]

    monkeypatch.setattr(floor, "placed", remembered)
    x, grad_output = floor._flat(inputs.x), floor._flat(inputs.grad_output)
    for direction in ("forward", "forward+backward"):
        ways = floor.floors(inputs, threads, direction)
        assert len(ways) == min(threads, 2)
        for way in ways.values():
            for array in kept.values():
                array.fill(0)
            way()
            np.testing.assert_array_equal(kept["y"], x)
            added = x + grad_output if direction == "forward+backward" else 0 * x
            np.testing.assert_array_equal(kept["grad_input"], added)
            parts = floor._shares(x, len(way._work))
            assert sum(part.size for part in parts) == x.size
            assert {part.ctypes.data % 64 for part in parts} == {0}


def test_a_team_shares_each_piece_of_work():
    team, done = floor.Team(3), []
    for calls in (1, 4):
        done.clear()
        assert team.mean_seconds([lambda i=i: done.append(i) for i in range(3)], calls) > 0
        assert Counter(done) == dict.fromkeys(range(3), calls)


def test_a_worker_starts_with_its_environment_and_reports_errors(monkeypatch):
    monkeypatch.setenv("INSTNORM_SIMD", "")
    # `os` stands in for an object: its functions are what is asked for.
    there = worker.Worker(import_module, "os", environment={"INSTNORM_SIMD": "baseline"})
    there.ready()
    assert os.environ["INSTNORM_SIMD"] == ""
    assert there.ask("getenv", "INSTNORM_SIMD") == "baseline"
    with pytest.raises(RuntimeError, match=r"(?s)import_module of \('os',\).*FileNotFoundError"):
        there.ask("listdir", "/no/such/folder")
    assert there.ask("getpid") == there._process.pid  # and it goes on
    there.close()
    assert not there._process.is_alive()

    there = worker.Worker(import_module, "no_such_module")
    with pytest.raises(RuntimeError, match="No module named 'no_such_module'"):
        there.ready()
    there.close()


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
    monkeypatch.setattr(run, "OTHERS", ("numpy", "missing"))
    runner = run.Runner(["numpy", "missing"], levels=(), threads=1, rounds=1, turn=0.001)
    runner._peers.append(Doubled())
    runner.shape((2, 3, 4, 5), ["float32"], ["contiguous"])
    results = runner.results
    notes = "\n".join(table.notes(results))
    assert "! wrong: numba, (2,3,4,5) forward, contiguous, float32: off by 1.0e+00" in notes
    assert "- left out: missing: comparisons.peers.missing_peers is not installed" in notes
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


def test_the_promises_of_each_level():
    small, large, late = (1, 3, 2, 2), (1, 32, 2**18), (1, 32, 2**20)
    both, group_norm = "forward+backward", "torch-group_norm"
    measurements = [
        measurement(limit, 2.0 if (limit, direction) == ("floor", both) else 1.0, shape, direction)
        for shape in (small, large, late, table.SHORT_ROWS)
        for direction in ("forward", both)
        for limit in ("copy", "floor")
    ]
    measurements += [
        measurement("instnorm-avx2", 100.0, small),
        measurement("instnorm-avx2", 1.5, large),
        measurement("instnorm-avx2", 9.0, late),  # 128 MiB: no promise
        measurement("instnorm-avx2", 3.0, large, both),
        measurement("instnorm-avx2", 3.6, large, both, "channels-last"),
        measurement("instnorm-avx2", 0.6, large, dtype="bfloat16"),
        measurement("instnorm-avx2", 1.7, table.SHORT_ROWS),
        measurement("instnorm-baseline", 0.5, large),
        measurement("instnorm-layer", 2e-6, small),
        measurement("torch-instance_norm", 5e-5, small, error=1.0),
        measurement("numpy", 0.75, large),
        measurement(group_norm, 1.2, large, dtype="bfloat16"),
        measurement(group_norm, 3.0, large, both),
    ]
    settings = {"processor": "Some CPU", "caches": "L1d 48K", "threads": 2}
    settings["levels"] = ["avx512", "avx2", "baseline"]
    lines = list(table.summary(run.Results(settings, measurements, [])))
    name = "(1,32,262144)"
    rows = "rows of 1,024 and more, 1 to 64 MiB: geometric mean"
    assert lines == [
        "Some CPU; L1d 48K; 2 threads",
        "avx2:",
        f"  forward / floor, {rows} 1.50, worst 1.50 at {name} (promise 1.15, worst 1.5)",
        f"  forward+backward / floor, {rows} 1.50, worst 1.50 at {name} (promise 1.25, worst 1.5)",
        "  forward / floor, (32,512,7,7): 1.70 (promise 1.8)",
        "  channels-last / contiguous, forward+backward, float32, 32 channels and more: "
        f"geometric mean 1.20, worst 1.20 at {name} (promise 1.15, worst 1.3)",
        "  bfloat16 / float32, forward, 8 MiB of float32 and more: "
        f"geometric mean 0.40, worst 0.40 at {name} (promise 0.6)",
        "  ours / PyTorch group_norm, forward, bfloat16: "
        f"geometric mean 0.50, worst 0.50 at {name} (promise: worst 1)",
        "  ours / PyTorch group_norm, forward+backward, float32: "
        f"geometric mean 1.00, worst 1.00 at {name}",
        "  cases in which a peer is faster: 1 of 7 (promise 0)",
        f"    {name} forward, contiguous, float32: NumPy 0.50 of our time",
        "baseline:",
        f"  forward / floor, {rows} 0.50, worst 0.50 at {name} (promise 1.15, worst 1.5)",
        "  cases in which a peer is faster: 0 of 1 (promise 0)",
        "layer, (1,3,2,2) forward, float32: 2 us, 1/25.0 of PyTorch's 50 us",
    ]


@pytest.mark.torch
def test_the_command(tmp_path):
    names = ["instnorm", "instnorm-layer", "torch-instance_norm", "torch-group_norm", "jax"]
    done = run_there(
        *("comparisons.peers", "--quick", "--only", "2,3,4,5", "--out", tmp_path, "--threads", 1),
        *("--dtype", "float32", "bfloat16", "--peers", *names, "numpy", "openvino"),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    saved = json.loads((tmp_path / "peers.json").read_text())
    levels = [*simd.available()]
    assert saved["settings"]["levels"] == levels
    # JAX and OpenVINO are not in the tests' environment; where they are, they count.
    measured = {m["peer"] for m in saved["measurements"]} | {m["peer"] for m in saved["left_out"]}
    ours = {f"instnorm-{level}" for level in levels}
    assert measured == {"copy", "floor", "numpy", "openvino", *names[1:], *ours}
    assert not any(m["wrong"] for m in saved["measurements"])
    rows = [line for line in done.stdout.splitlines() if line.startswith("(2,3,4,5)")]
    assert len(rows) == 2 * 2 * 2  # passes, layouts, dtypes
    for dtype in ("float32", "bfloat16"):
        assert (tmp_path / f"peers-{dtype}.png").stat().st_size > 10_000
    floors = [m for m in saved["measurements"] if m["peer"] == "floor"]
    assert {m["direction"] for m in floors} == {"forward", "forward+backward"}


def test_one_level_is_measured_alone_and_is_the_one_that_runs(tmp_path):
    done = run_there(
        *("comparisons.peers", "--quick", "--only", "2,3,4,5", "--out", tmp_path, "--threads", 1),
        *("--simd", "baseline", "--peers", "instnorm", "--layout", "contiguous"),
    )
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "peers.json").read_text())
    assert {m["peer"] for m in saved["measurements"]} == {"copy", "floor", "instnorm-baseline"}


def test_what_is_timed_by_default():
    full, quick, named = (
        command.parsed(text.split())
        for text in ("", "--quick", "--quick --peers numpy --dtype float64")
    )
    assert full.peers == [*command.NAMES]
    assert full.dtype == ["float32", "bfloat16"]
    assert not full.everywhere
    assert {*full.peers} - {*quick.peers} == {*command.LEFT_OUT_IF_QUICK}
    assert quick.dtype == ["float32"]
    assert (named.peers, named.dtype, named.everywhere) == (["numpy"], ["float64"], True)
    runner = run.Runner([], (), 1, 1, 0.001, everywhere=False)
    runner._peers = [
        SimpleNamespace(name=n) for n in ("instnorm-avx2", "torch-group_norm", "numpy")
    ]
    cases = [peer.Case((2, 3, 4), dtype, "contiguous") for dtype in ("float32", "bfloat16")]
    takes_part = [[runner._takes_part(p, case) for p in runner._peers] for case in cases]
    assert takes_part == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "3,4"], "expected N,C and 1 to 3 more sizes, got '3,4'"),
        (["--shapes", "a,b,c"], "expected N,C and 1 to 3 more sizes, got 'a,b,c'"),
        (["--peers", "tensorflow"], "invalid choice: 'tensorflow'"),
        (["--threads", "9999"], "argument --threads: got 9999, expected at most"),
        (["--threads", "0"], "argument --threads: got 0, expected at least 1"),
        (["--simd", "sse9"], "invalid choice: 'sse9'"),
        (["--rounds", "0"], "argument --rounds: got 0, expected at least 1"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, message, tmp_path):
    done = run_there("comparisons.peers", *arguments, "--out", tmp_path / "out")
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
