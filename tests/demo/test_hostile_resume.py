"""Checkpoints of training that nobody's training has written: one line, no traceback, no wait."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save

from instnorm import cli
from instnorm.demo import checkpoint

SETTINGS = {
    "task": "digits",
    "seed": 0,
    "dtype": "float32",
    "lr": 0.1,
    "momentum": 0.9,
    "batch_size": 8,
}


def state(epochs="1", **settings):
    """The metadata, of values in JSON."""
    values = {name: json.dumps(value) for name, value in SETTINGS.items()} | settings
    inner = ", ".join(f'"{name}": {value}' for name, value in values.items())
    return f'{{"epochs": {epochs}, "settings": {{{inner}}}}}'


DEEP = "[" * 10**5 + "]" * 10**5

BAD = {
    "a task that is a list": state(task="[]"),
    "a task that is an object": state(task="{}"),
    "no task": state(task="null"),
    "an unknown task": state(task='"x"'),
    "a rate of 10^400": state(lr="1" + "0" * 400),
    "a rate of 1e400": state(lr="1e400"),
    "a rate of NaN": state(lr="NaN"),
    "a rate that is text": state(lr='"0.1"'),
    "a rate that is true": state(lr="true"),
    "a momentum that is a list": state(momentum="[0.5]"),
    "a momentum of 10^400": state(momentum="1" + "0" * 400),
    "a dtype that is a list": state(dtype="[]"),
    "a seed of 10^5000": state(seed="1" + "0" * 5000),
    "a seed that is true": state(seed="true"),
    "a seed that is a fraction": state(seed="0.5"),
    "batches of 10^30": state(batch_size="1" + "0" * 30),
    "10^12 epochs": state(epochs=str(10**12)),
    "10^30 epochs": state(epochs=str(10**30)),
    "2^30 epochs": state(epochs=str(2**30)),
    "epochs that are a list": state(epochs="[]"),
    "deep JSON": DEEP,
    "deep settings": state(task=DEEP),
    "a list": "[]",
    "null": "null",
    "settings that are a list": '{"epochs": 1, "settings": [1]}',
    "unknown settings": state(more="1"),
    "no JSON": "x",
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_checkpoint_ends_in_one_line(kind, tmp_path, capsys):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(save({"a": np.ones(1)}, {checkpoint.METADATA_KEY: BAD[kind]}))
    out = tmp_path / "out"
    arguments = ["train", "--resume", str(path), "--out", str(out), "--epochs", str(10**13)]
    assert cli.main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("instnorm: error: ")
    assert printed.count("\n") == 1
    assert len(printed) < 1000
    assert str(path) in printed or "--batch-size" in printed
    assert not out.exists()


@pytest.mark.timeout(10)
def test_a_checkpoint_must_be_a_regular_file_of_a_size_that_nets_have(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("pipe", "folder", "sparse"):
        assert cli.main(["train", "--resume", str(tmp_path / name)]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert name in printed


@pytest.mark.parametrize(
    "argument", ["--epochs", "--batch-size", "--seed", "--lr", "--momentum", "--threads"]
)
@pytest.mark.parametrize("text", ["9" * 5000, "1e999", "\ud800", "", "0x10", "-0", "²"])
def test_numbers_that_are_none(argument, text, tmp_path, capsys):
    status = cli.main(["train", argument, text, "--resume", str(tmp_path / "none")])
    assert status == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "dtype", ["F8_E4M3", "F8_E5M2", "BF16", "C64", "F4", "F8_E8M0", "U16", "X"]
)
def test_tensors_of_any_dtype(dtype, tmp_path, capsys):
    size = {"C64": 8, "BF16": 2, "U16": 2}.get(dtype, 1)
    text = json.dumps({"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(2 * size))
    for arguments in (
        ["train", "--resume", str(path)],
        ["convert", str(path), str(tmp_path / "a.ckpt"), "--to", "pytorch", "--norms", "x"],
    ):
        assert cli.main(arguments) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert str(path) in printed
