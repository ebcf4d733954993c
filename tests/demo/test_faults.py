"""Trainings that are killed, interrupted or out of space at any moment: nothing is lost or half."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT
from safetensors.numpy import load_file

EPOCHS = 6
CHECKPOINT = "digits-checkpoint.safetensors"
# Compared in the end; pictures and the table tell of the time that was taken.
RESULTS = ("digits-with-norm.safetensors", "digits-without-norm.safetensors")


def command(folder, *arguments):
    options = ["--epochs", str(EPOCHS), "--batch-size", "300", "--out", str(folder)]
    return [sys.executable, "-m", "instnorm", "train", *options, *arguments]


def resuming(folder):
    checkpoint = folder / CHECKPOINT
    return command(folder, *(["--resume", str(checkpoint)] if checkpoint.exists() else []))


def run_to_the_end(arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    begin = time.monotonic()
    run_to_the_end(command(folder))
    return {name: (folder / name).read_bytes() for name in RESULTS}, time.monotonic() - begin


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_ended_at_any_moment_resumes_to_the_same_bytes(
    number, uninterrupted, tmp_path
):
    expected, seconds = uninterrupted
    rng = random.Random(number)
    for _ in range(int(os.environ.get("INSTNORM_KILLS", "8"))):
        process = subprocess.Popen(
            resuming(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
        )
        time.sleep(rng.uniform(0.1, 1.0) * seconds)
        process.send_signal(number)
        error = process.communicate(timeout=120)[1]
        assert process.returncode in (0, 130, -number), error
        if (tmp_path / CHECKPOINT).exists():
            load_file(tmp_path / CHECKPOINT)  # whole
        others = {path.name for path in tmp_path.iterdir() if path.suffix != ".tmp"}
        assert others <= {CHECKPOINT, *RESULTS, "digits-curves.png", "digits-predictions.png"}
        left_over = [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
        assert len(left_over) <= (number != signal.SIGINT)
    run_to_the_end(resuming(tmp_path))
    assert {name: (tmp_path / name).read_bytes() for name in RESULTS} == expected
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_training_ends_in_a_line_where_the_disk_is_full(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=420k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        # Room for a checkpoint, but not for two: the first one stays.
        first = command(folder)
        first[first.index("--epochs") + 1] = "1"
        subprocess.run(first, capture_output=True, cwd=ROOT)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        (folder / "filler").write_bytes(bytes(free(folder)))
        done = subprocess.run(resuming(folder), capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 2, done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("instnorm: error: argument --out: cannot write to")
        assert "No space left on device" in last
        assert "Traceback" not in done.stderr
        assert CHECKPOINT in before
        after = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "filler"}
        assert after == before
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
