"""`instnorm differences`: every cell against the layers it speaks of, and the page against both."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT

from instnorm import cli
from instnorm.differences import INSTNORM_MINDSPORE, INSTNORM_PYTORCH, SECTIONS
from instnorm.differences.render import as_json, as_markdown, as_text
from instnorm.migrate.differences.frameworks import MindSpore, PyTorch

PAGE = ROOT / "docs" / "differences.md"
ROWS = {row.topic: row for section in SECTIONS for row in section.rows}

every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)

# The rows of the published page, and what it leaves out.
PUBLISHED = "input num_features eps momentum affine track_running_stats gamma_init beta_init"
UNPUBLISHED = [
    "bias",
    "axes",
    "without batch",
    "one spatial element",
    "evaluation",
    "state of",
    "momentum as documented",
    "momentum as observed",
    "dtypes",
    "layout",
    "grad_output channels-last",
    "platforms",
    "announced change",
]


# --- the cells ----------------------------------------------------------------


@every_row
def test_pytorchs_flavour_does_what_its_column_says(row):
    assert row.nn_check is None or row.nn_check(INSTNORM_PYTORCH)


@every_row
def test_mindspores_flavour_does_what_its_column_says(row):
    assert row.nn_mindspore_check is None or row.nn_mindspore_check(INSTNORM_MINDSPORE)


@every_row
@pytest.mark.torch
def test_pytorch_does_what_its_column_says(row):
    assert row.pytorch.check is None or row.pytorch.check(PyTorch())


@every_row
@pytest.mark.mindspore
def test_mindspore_does_what_its_column_says(row):
    assert row.mindspore.check is None or row.mindspore.check(MindSpore())


@every_row
def test_nothing_is_left_unchecked_but_what_a_cpu_cannot_tell(row):
    assert row.pytorch.check or row.topic == "announced change"
    assert row.mindspore.check or row.topic in (
        "momentum as observed",
        "gradients where the batch is 1 and grad_output channels-last",
        "empty batch",
        "constant channel",
        "float32 at a mean of 100,000 standard deviations",
    )
    assert row.nn_check or row.topic == "announced change"
    assert row.nn_mindspore_check or row.topic == "empty batch"


@pytest.mark.parametrize(
    "topic", [topic for topic, row in ROWS.items() if row.pytorch.check and row.mindspore.check]
)
def test_the_checks_can_fail(topic):
    """Where the two frameworks differ, what is said of one is not so of the other's flavour."""
    row = ROWS[topic]
    outcomes = []
    for check, flavour in (
        (row.pytorch.check, INSTNORM_MINDSPORE),
        (row.mindspore.check, INSTNORM_PYTORCH),
    ):
        try:
            outcomes.append(check(flavour))
        except (TypeError, ValueError, KeyError, AttributeError):
            outcomes.append(False)
    assert not all(outcomes)


# --- the table ----------------------------------------------------------------


def test_all_rows_of_the_published_page_are_there_in_its_order():
    assert [row.topic.strip("`") for row in SECTIONS[0].rows] == PUBLISHED.split()


@pytest.mark.parametrize("topic", UNPUBLISHED)
def test_what_the_page_leaves_out_is_there(topic):
    assert any(topic in row.topic for row in SECTIONS[1].rows)


def test_the_page_is_what_the_program_prints():
    hint = "run: instnorm differences --format markdown > docs/differences.md"
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), hint


def test_json_has_all_rows():
    rows = json.loads(as_json())
    assert [row["topic"] for row in rows] == list(ROWS)
    for found in rows:
        row = ROWS[found["topic"]]
        assert found["pytorch"] == row.pytorch.text
        assert found["mindspore"] == row.mindspore.text
        assert found["instnorm"] == row.instnorm


@pytest.mark.parametrize("width", [1, 40, 85, 86, 100, 200])
def test_text_fits_the_terminal(width):
    lines = as_text(width).splitlines()
    assert max(map(len, lines)) <= max(width, 30)  # no word is broken off its line below that
    assert all(line == line.rstrip() for line in lines)
    words = set(" ".join(lines).split())
    for row in ROWS.values():
        assert set(row.mindspore.text.replace("`", "").split()) <= words


@pytest.mark.parametrize(("width", "columns"), [(86, True), (85, False)])
def test_a_narrow_terminal_gets_a_list(width, columns):
    lines = as_text(width).splitlines()
    assert (lines[1] == "  ".join(["-" * 20] * 4)) == columns
    assert ("  PyTorch: input" in lines) != columns


def test_the_table_has_columns_where_there_is_room():
    lines = as_text(100).splitlines()
    header = lines[2]
    first = lines[4]
    for title, cell in (("PyTorch", "input"), ("MindSpore", "x"), ("instnorm", "input in both")):
        assert first[header.index(title) :].startswith(cell)


def test_markdown_has_four_cells_in_every_line():
    tables = [line for line in as_markdown().splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {5}


# --- the command --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], lambda: as_text(100) + "\n"),
        (["--format", "text"], lambda: as_text(100) + "\n"),
        (["--format", "markdown"], as_markdown),
        (["--format", "json"], as_json),
    ],
)
def test_the_command_prints_it(arguments, expected, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["differences", *arguments]) == 0
    assert capsys.readouterr().out == expected()


def test_an_unknown_format(capsys):
    assert cli.main(["differences", "--format", "html"]) == 2
    assert "argument --format: invalid choice: 'html'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["differences"], ["info"]])
def test_a_reader_that_has_enough(arguments):
    with subprocess.Popen(
        [sys.executable, "-m", "instnorm", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == cli.BROKEN_PIPE
