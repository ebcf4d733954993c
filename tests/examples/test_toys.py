"""The toy tasks of docs/learn/tasks.md run, reduced to an epoch or two steps, and draw."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT

FOLDER = ROOT / "examples" / "toys"
REDUCED = {
    "series": ["--epochs", "1"],
    "style": ["--steps", "2"],
    "segmentation": ["--epochs", "1"],
}


def test_every_toy_task_is_run_here():
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(REDUCED)


@pytest.mark.parametrize("name", REDUCED)
def test_a_reduced_task_prints_its_table_and_draws_its_picture(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", FOLDER / f"{name}.py", *REDUCED[name], tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *_, last = done.stdout.strip().splitlines()
    assert len(re.findall(r"\d\.\d+", last)) >= 2
    assert (tmp_path / f"toys-{name}.png").stat().st_size > 5000


def test_the_page_shows_every_task():
    page = (ROOT / "docs" / "learn" / "tasks.md").read_text()
    for name in REDUCED:
        assert f"examples/toys/{name}.py" in page
        assert f"images/toys-{name}.png" in page
