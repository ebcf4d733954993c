"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from instnorm.cli.errors import CommandError


def prepare_folder(folder: Path) -> None:
    """Make the folder where it is missing, and find out whether files can be written there.

    Raises
    ------
    CommandError
        If they cannot; it names the argument --out.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error) from error


def write_whole(path: Path, content: bytes, argument: str = "--out") -> None:
    """Write a file under a temporary name beside its own, and move it there when complete.

    Raises
    ------
    CommandError
        If it cannot be written; it names the argument. The file is then as it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _not_writable(path, error, argument) from error
    finally:
        temporary.unlink(missing_ok=True)


def _not_writable(path: Path, error: OSError, argument: str = "--out") -> CommandError:
    return CommandError(
        f"argument {argument}: cannot write to {str(path)!r} ({error.strerror}), "
        "expected a folder that can be written to"
    )
