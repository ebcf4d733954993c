"""`instnorm differences --layer ...`: every cell against the real classes, and the page."""

import importlib
import json

import pytest
from helpers import ROOT

from instnorm import cli
from instnorm.differences import NORMS
from instnorm.differences.render import INTRODUCTION_OF_NORMS, as_markdown
from instnorm.migrate.differences.frameworks import MindSpore, PyTorch

PAGE = ROOT / "docs" / "norms.md"
ROWS = [(name, row) for name, section in NORMS.items() for row in section.rows]

every_row = pytest.mark.parametrize(
    ("name", "row"), ROWS, ids=[f"{name} {row.topic}" for name, row in ROWS]
)


@every_row
@pytest.mark.torch
def test_pytorch_does_what_its_column_says(name, row):
    assert row.pytorch.check(PyTorch(name))


@every_row
@pytest.mark.mindspore
def test_mindspore_does_what_its_column_says(name, row):
    importlib.import_module("instnorm.bridge.mindspore")  # which settles NumPy
    assert row.mindspore.check(MindSpore(name))


@every_row
@pytest.mark.torch
def test_the_checks_can_fail(name, row):
    """What is said of MindSpore alone is not so of PyTorch."""
    if row.pytorch.text == row.mindspore.text or row.mindspore.text == "the same":
        return
    try:
        outcome = row.mindspore.check(PyTorch(name))
    except (TypeError, ValueError, KeyError, AttributeError, StopIteration):
        outcome = False
    assert not outcome


def test_the_family_is_there():
    assert set(NORMS) >= {"InstanceNorm1d", "InstanceNorm3d", "BatchNorm2d", "GroupNorm"}
    assert "epsilon` 1e-7" in " ".join(row.mindspore.text for row in NORMS["LayerNorm"].rows)


def test_the_page_is_what_the_program_prints():
    hint = "run: instnorm differences --layer others --format markdown > docs/norms.md"
    expected = as_markdown(list(NORMS.values()), INTRODUCTION_OF_NORMS)
    assert PAGE.read_text(encoding="utf-8") == expected, hint


@pytest.mark.parametrize("name", NORMS)
def test_the_command_prints_one_layer(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["differences", "--layer", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == name
    assert lines[2].split() == ["PyTorch", "MindSpore"]
    assert cli.main(["differences", "--layer", name, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["topic"] for row in rows] == [row.topic for row in NORMS[name].rows]
    assert all("instnorm" not in row for row in rows)


def test_the_command_prints_all_of_them(capsys):
    assert cli.main(["differences", "--layer", "others", "--format", "markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8")


def test_an_unknown_layer(capsys):
    assert cli.main(["differences", "--layer", "RMSNorm"]) == 2
    assert "argument --layer: invalid choice: 'RMSNorm'" in capsys.readouterr().err
