"""The command line: what it writes, that it can go on, and that bad input ends in one line."""

import contextlib
import io
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from instnorm import cli

RESULTS = {
    "digits-checkpoint.safetensors",
    "digits-curves.png",
    "digits-predictions.png",
    "digits-with-norm.safetensors",
    "digits-without-norm.safetensors",
}


def train(folder, *arguments):
    return cli.main(["train", "--out", str(folder), *map(str, arguments)])


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    assert train(folder, "--epochs", 1) == 0
    return folder


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The same once more, and what it prints."""
    folder = tmp_path_factory.mktemp("again")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert train(folder, "--epochs", 1) == 0
    return folder, printed.getvalue()


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    assert train(folder, "--epochs", 2) == 0
    return folder


def test_results_are_written_whole(one_epoch):
    assert {path.name for path in one_epoch.iterdir()} == RESULTS
    for path in one_epoch.glob("*.png"):
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG")
        assert data.endswith(b"IEND\xaeB`\x82")


def test_the_table_tells_accuracy_and_movement(again):
    _, printed = again
    rows = {line[:22].strip(): re.findall(r"\d+\.\d", line) for line in printed.splitlines()}
    assert 0 < float(rows["accuracy, plain"][0]) <= 100
    assert float(rows["accuracy, shifted"][0]) > float(rows["accuracy, shifted"][1])
    assert "gamma moved from 1 by" in printed
    assert "beta moved from 0 by" in printed


def test_the_saved_weights_are_the_nets(one_epoch):
    with_norm = load_file(one_epoch / "digits-with-norm.safetensors")
    without = load_file(one_epoch / "digits-without-norm.safetensors")
    assert set(without) < set(with_norm)
    assert any((with_norm[name] != 1).any() for name in set(with_norm) - set(without))


def test_the_same_seed_gives_the_same_bytes(one_epoch, again):
    folder, _ = again
    for name in RESULTS:
        assert (folder / name).read_bytes() == (one_epoch / name).read_bytes(), name


def test_another_seed_gives_other_weights(one_epoch, tmp_path):
    assert train(tmp_path, "--epochs", 1, "--seed", 1) == 0
    name = "digits-with-norm.safetensors"
    assert (tmp_path / name).read_bytes() != (one_epoch / name).read_bytes()


def test_one_epoch_and_one_more_are_two(one_epoch, two_epochs, tmp_path):
    checkpoint = one_epoch / "digits-checkpoint.safetensors"
    assert train(tmp_path, "--epochs", 2, "--resume", checkpoint) == 0
    for name in RESULTS:
        assert (tmp_path / name).read_bytes() == (two_epochs / name).read_bytes(), name


def test_float64_trains_in_float64(tmp_path):
    assert train(tmp_path, "--epochs", 1, "--dtype", "float64") == 0
    saved = load_file(tmp_path / "digits-with-norm.safetensors")
    assert {array.dtype for array in saved.values()} == {np.dtype(np.float64)}


def test_photographs(tmp_path):
    assert train(tmp_path, "--task", "photo", "--epochs", 1) == 0
    assert (tmp_path / "photo-pictures.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "foo"], r"argument --task: invalid choice: 'foo'"),
        (["--lr", "nan"], r"argument --lr: expected a finite number of at least 0, got 'nan'"),
        (["--lr", "-1"], r"argument --lr: expected .*, got '-1'"),
        (["--momentum", "2"], r"argument --momentum: expected .*, got '2'"),
        (["--epochs", "0"], r"argument --epochs: expected an integer of at least 1, got '0'"),
        (["--batch-size", "0"], r"argument --batch-size: expected .*, got '0'"),
        (["--batch-size", "9999"], r"argument --batch-size: got 9999, expected at most the 1347"),
        (["--threads", "0"], r"argument --threads: expected .*, got '0'"),
        (["--seed", "-1"], r"argument --seed: expected .*, got '-1'"),
        (["--dtype", "int8"], r"argument --dtype: invalid choice: 'int8'"),
        (["--resume", "/nowhere/at.all"], r"argument --resume: .*there is no such file"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, message, tmp_path, capsys):
    try:
        status = train(tmp_path / "out", *arguments)
    except SystemExit as stop:  # argparse's way
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert re.search(message, error.splitlines()[-1])
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_is_told_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert train(tmp_path / "file", "--epochs", 1) == 2
    assert re.search(r"argument --out: cannot write to .*file", capsys.readouterr().err)
    assert (tmp_path / "file").read_text() == "not a folder"


def damaged(kind, source, folder):
    target = folder / f"{kind}.safetensors"
    if kind == "text":
        target.write_text("hello")
    elif kind == "cut":
        target.write_bytes(source.read_bytes()[:-100])
    elif kind == "weights":
        return source.with_name("digits-with-norm.safetensors")
    elif kind == "shape":
        tensors = load_file(source)
        name = max(tensors, key=lambda key: tensors[key].size)
        tensors[name] = tensors[name][..., :-1].copy()
        with safe_open(source, "numpy") as file:
            save_file(tensors, target, metadata=file.metadata())
    return target


@pytest.mark.parametrize("kind", ["text", "cut", "weights", "shape"])
def test_a_checkpoint_that_does_not_fit(kind, one_epoch, tmp_path, capsys):
    checkpoint = damaged(kind, one_epoch / "digits-checkpoint.safetensors", tmp_path)
    assert train(tmp_path / "out", "--epochs", 2, "--resume", checkpoint) == 2
    error = capsys.readouterr().err
    assert "argument --resume" in error
    assert "Traceback" not in error


def test_a_checkpoint_of_another_task(one_epoch, tmp_path, capsys):
    checkpoint = one_epoch / "digits-checkpoint.safetensors"
    assert train(tmp_path, "--task", "photo", "--resume", checkpoint) == 2
    assert "was trained with --task digits" in capsys.readouterr().err


def interrupted(process):
    """Interrupt as a person does, who presses Ctrl-C again where nothing happens.

    Python drops an interrupt that arrives while it runs a finalizer.
    """
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=20)[1]
    process.kill()
    return process.communicate()[1]


def test_interrupting_leaves_whole_files_and_no_traceback(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "instnorm", "train", "--epochs", "500", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.1)
    error = interrupted(process)
    assert process.returncode == 130
    assert "interrupted" in error
    assert "Traceback" not in error
    assert {path.name for path in tmp_path.iterdir()} == {"digits-checkpoint.safetensors"}
    assert load_file(tmp_path / "digits-checkpoint.safetensors")


def test_a_missing_package_is_named(monkeypatch, tmp_path, capsys):
    from instnorm.cli import errors

    find = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "tqdm" else find(name))
    assert train(tmp_path, "--epochs", 1) == 1
    assert 'needs tqdm, which cannot be found here: pip install "instnorm[demo]"' in (
        capsys.readouterr().err
    )


def test_info_tells_what_runs(capsys):
    import instnorm
    from instnorm._runtime import simd

    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"^threads +{instnorm.get_num_threads()}$", printed, flags=re.MULTILINE)
    assert re.search(r"^OpenMP +yes$", printed, flags=re.MULTILINE)
    assert re.search(rf"^SIMD +{simd.level}, {simd.reason}$", printed, flags=re.MULTILINE)
    levels = ", ".join(simd.available())
    assert re.search(rf"^available +{levels}$", printed, flags=re.MULTILINE)


def test_info_tells_the_data_caches(monkeypatch, tmp_path):
    from instnorm.cli import info

    caches = (("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "1280K"))
    for number, texts in enumerate(caches):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in zip(("level", "type", "size"), texts, strict=True):
            (folder / name).write_text(text + "\n")
    monkeypatch.setattr(info, "CACHES", tmp_path)
    assert info.report()["caches"] == "L1d 48K, L2 1280K"
    monkeypatch.setattr(info, "CACHES", tmp_path / "nowhere")
    assert info.report()["caches"] == "unknown"


def test_python_m_instnorm_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "instnorm", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: instnorm ")
