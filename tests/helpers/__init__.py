"""What several test files share; pytest finds it by `pythonpath` in pyproject.toml.

`reference`: slow twins of the kernels. `problems`: inputs with their exact results.
`layouts`: an array in every memory layout. `tensors` and `beside_torch`: leaves, and how results
are compared. `composition` (imports MindSpore) and `ddp_worker` (a process of its own).
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent


def run_python(code, **environment):
    """What `code` prints in a new interpreter that can import these helpers."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=TESTS,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
