"""What several test files share; pytest finds it by `pythonpath` in pyproject.toml.

`reference`: slow twins of the kernels. `problems`: inputs with their exact results.
`layouts`: an array in every memory layout. `tensors` and `beside_torch`: leaves, and how results
are compared. `composition` (imports MindSpore) and `ddp_worker` (a process of its own).
"""

import functools
import inspect
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


def looped(name, values):
    """As `pytest.mark.parametrize`, in one test: where cases are so many that pytest takes longest.

    A failure tells the case on its last line.
    """

    def decorate(test):
        @functools.wraps(test)
        def every(**others):
            for value in values:
                try:
                    test(**{name: value}, **others)
                except Exception as error:
                    error.args = (f"{error}\nwhere {name} is {value!r}",)
                    raise

        signature = inspect.signature(test)
        rest = [p for p in signature.parameters.values() if p.name != name]
        every.__signature__ = signature.replace(parameters=rest)
        return every

    return decorate
