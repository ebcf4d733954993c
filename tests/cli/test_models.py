"""Commands that are given models: what they run, what they print, and errors of one line."""

import json
import sys
import textwrap

import numpy as np
import pytest
from helpers.beside_torch import torch

from instnorm import checkpoints, cli

pytestmark = pytest.mark.torch

NETS = """
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(2, 2, 3), nn.InstanceNorm1d(2)
            self.act = nn.PReLU(2)


    class Net(nn.Module):
        def __init__(self, channels=2):
            super().__init__()
            self.blocks = nn.ModuleList([Block(), Block()])
            self.table = nn.Embedding(3, channels)


    class Wide(nn.Module):
        def __init__(self, channels):
            super().__init__()


    def make():
        return nn.Sequential(Net())


    def number():
        return 3


    def fail():
        raise ValueError("no\\nmodel")


    def leave():
        raise SystemExit(7)
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A file of models, in the folder that the command runs in."""
    path = tmp_path / "some_nets.py"
    path.write_text(textwrap.dedent(NETS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield path
    for name in [name for name in sys.modules if "some_nets" in name]:
        del sys.modules[name]


@pytest.fixture
def checkpoint(nets, tmp_path):
    """The state of the file's net."""
    sys.path.insert(0, str(tmp_path))
    import some_nets

    path = tmp_path / "in.pth"
    torch.save(some_nets.Net().state_dict(), path)
    return path


def assert_one_line(printed, *parts):
    assert printed.startswith("instnorm: error: ")
    assert printed.count("\n") == 1
    for part in parts:
        assert part in printed


# --- convert --model ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["some_nets:Net", "some_nets.py:Net"])
def test_a_model_tells_what_names_and_shapes_do_not(text, checkpoint, tmp_path, capsys):
    out = tmp_path / "out.ckpt"
    arguments = ["convert", str(checkpoint), str(out), "--to", "mindspore"]
    assert cli.main(arguments) == 2
    assert_one_line(capsys.readouterr().err, "blocks.0.act.weight", "table.weight", "--model")
    assert not out.exists()
    assert cli.main([*arguments, "--model", text]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert " blocks.1.act.weight -> blocks.1.act.w " in printed
    assert " blocks.0.conv.weight -> blocks.0.conv.weight (2, 2, 3) -> (2, 2, 1, 3) " in printed
    found = checkpoints.read(out).arrays
    assert {"table.embedding_table", "blocks.0.norm.gamma"} <= set(found)
    assert found["blocks.0.conv.weight"].shape == (2, 2, 1, 3)


def test_layers_may_be_told_one_by_one(checkpoint, tmp_path, capsys):
    out = tmp_path / "out.npz"
    layers = ["--layer", "*.act=PReLU", "--layer", "table=Embedding"]
    status = cli.main(["convert", str(checkpoint), str(out), "--to", "mindspore", *layers])
    assert status == 0
    printed = capsys.readouterr().out
    assert "  table          Embedding: told by layers, 'table'\n" in printed
    assert "layers that have no entries in PyTorch" in printed
    assert "blocks.0.act.w" in checkpoints.read(out).arrays


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model", "some_nets"], ["argument --model: expected MODULE:FACTORY", "'some_nets'"]),
        (["--model", ":Net"], ["expected MODULE:FACTORY"]),
        (["--model", "no_nets:Net"], ["ModuleNotFoundError: No module named 'no_nets'"]),
        (["--model", "no_nets.py:Net"], ["'no_nets.py': there is no such file"]),
        (["--model", "some_nets:Nets"], ["AttributeError", "'Nets'"]),
        (["--model", "some_nets:Wide"], ["TypeError", "channels"]),
        (["--model", "some_nets:number"], ["expected a module of PyTorch or MindSpore", "got int"]),
        (["--model", "some_nets:fail"], ["'some_nets:fail' failed (ValueError: no)"]),
        (["--model", "some_nets:leave"], ["(SystemExit: 7)"]),
        (["--model", "some_nets:make"], ["has no entries of the model's 0.blocks.0.conv"]),
        (["--model", "some_nets:Net"] * 2, ["model: there are two of one framework"]),
        (["--model", "some_nets:Net", "--norms", "x"], ["have no use beside model"]),
        (["--layer", "x"], ["argument --layer: expected NAME=CLASS, got 'x'"]),
        (["--layer", "x=Foo"], ["no layer of the table is called 'Foo'"]),
        (["--verify"], ["argument --verify: takes a model of PyTorch and one of MindSpore"]),
        (["--input", "2,3"], ["argument --input: has a use only with --verify"]),
        (["--input", "2,x"], ["argument --input: expected sizes such as 1,3,64,64"]),
        (["--input", "2:bool"], ["argument --input: expected sizes"]),
    ],
)
def test_bad_input_ends_in_one_line(arguments, parts, checkpoint, tmp_path, capsys):
    out = tmp_path / "out.ckpt"
    assert cli.main(["convert", str(checkpoint), str(out), "--to", "mindspore", *arguments]) == 2
    assert_one_line(capsys.readouterr().err, *parts)
    assert not out.exists()


def test_what_mindspore_will_not_find_is_named_and_has_a_status(tmp_path, capsys):
    source, out = tmp_path / "in.npz", tmp_path / "out.ckpt"
    np.savez(source, **{"c.weight_orig": np.ones((3, 2)), "c.weight_u": np.ones(3)})
    assert cli.main(["convert", str(source), str(out), "--to", "mindspore"]) == 3
    assert "not found: what MindSpore's model will look for" in capsys.readouterr().out
    assert out.exists()


# --- advise ---------------------------------------------------------------------------------


def test_advice_for_the_only_model_of_a_file(nets, capsys):
    nets.write_text(nets.read_text().replace("def make", "def make_more"))
    assert cli.main(["advise", str(nets)]) == 0
    printed = capsys.readouterr().out
    assert "blocks.0.norm: InstanceNorm1d(2, " in printed
    assert "  nn.InstanceNorm1d(2, momentum=0.9, affine=False)\n" in printed
    assert '  nn.Conv1d(2, 2, 3, pad_mode="valid", has_bias=True)\n' in printed


def test_advice_as_json(nets, capsys):
    assert cli.main(["advise", "--model", "some_nets:make", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows][:2] == ["0.blocks.0.conv", "0.blocks.0.norm"]
    assert all(row["mindspore"].startswith("nn.") for row in rows)


def test_a_model_that_is_there_is_taken(nets, capsys):
    nets.write_text(nets.read_text() + "\nnet = nn.Sequential(nn.ReLU())\n")
    assert cli.main(["advise", str(nets)]) == 0
    assert capsys.readouterr().out == "0: ReLU()\n  nn.ReLU()\n"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (("class Net", "class Net2(nn.ReLU): pass\n\n\nclass Net"), ["has 2 models", "Net2"]),
        (("import torch", "import torch\nraise OSError('x')"), ["failed (OSError: x)"]),
        (("import torch", "raise SystemExit(3)"), ["failed (SystemExit: 3)"]),
        (("import torch", "import torch !"), ["failed (SyntaxError:"]),
    ],
)
def test_files_without_one_model(change, parts, nets, capsys):
    nets.write_text(nets.read_text().replace(*change, 1))
    assert cli.main(["advise", str(nets)]) == 2
    assert_one_line(capsys.readouterr().err, str(nets), *parts)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "expected either FILE.py or --model"),
        (["some_nets.py", "--model", "some_nets:Net"], "expected either FILE.py or --model"),
        (["some_nets"], "expected a file of Python"),
        (["no_nets.py"], "'no_nets.py': there is no such file"),
    ],
)
def test_bad_arguments(arguments, part, nets, capsys):
    assert cli.main(["advise", *arguments]) == 2
    assert_one_line(capsys.readouterr().err, part)
