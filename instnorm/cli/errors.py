"""What commands raise in place of a traceback, and the check for optional packages."""

from __future__ import annotations

from importlib.util import find_spec

# The extra `demo`, by the names that are imported.
DEMO_PACKAGES = {
    "matplotlib": "matplotlib",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "tqdm": "tqdm",
}


class CommandError(Exception):
    """A message for the user, which ends the command.

    Parameters
    ----------
    message : str
        One line: the argument, what came and what was expected.
    status : int, default 2
        The exit status: 2 for bad input, 1 for a command that failed on good input.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def printable(text: str) -> str:
    r"""Return the text in one line that commands no terminal: names in files may be anything.

    Examples
    --------
    >>> print(printable("two\nlines"))
    two\nlines
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def check_demo_packages() -> None:
    """Refuse to start where an optional package is missing, with how to get it."""
    missing = [shown for name, shown in DEMO_PACKAGES.items() if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"this command needs {', '.join(missing)}, which cannot be found here: "
            'pip install "instnorm[demo]"',
            status=1,
        )
