"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

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

    A file that is there keeps its mode and owner, and a link its place: what it leads to is
    written. Pipes and devices are written to.

    Raises
    ------
    CommandError
        If it cannot be written; it names the argument. The file is then as it was before.
    """
    try:
        target = Path(os.path.realpath(path))
        try:
            before = target.stat()
        except FileNotFoundError:
            before = None
        if before is not None and not stat.S_ISREG(before.st_mode):
            target.write_bytes(content)
        else:
            _replace(target, content, before)
    except OSError as error:
        raise _not_writable(path, error, argument) from error


def _replace(target: Path, content: bytes, before: os.stat_result | None) -> None:
    _remove_left_over(target.parent)
    file, temporary = _temporary(target.parent)
    try:
        with file:
            if before is not None:
                with contextlib.suppress(OSError):  # only root may give a file away
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):  # where it was moved there is none
            os.unlink(temporary)


_PREFIX, _SUFFIX = ".instnorm-", ".tmp"


def _temporary(folder: Path) -> tuple[BinaryIO, Path]:
    """Create a file, with the mode that new files have, and lock it while it is open."""
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        file = path.open("xb")
        with contextlib.suppress(OSError):  # a file system may have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return file, path
        file.close()  # another run took it for left over before it was locked


def _remove_left_over(folder: Path) -> None:
    """Remove the temporary files of runs that were killed: those that nobody has locked."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            named_so = entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)
            if named_so and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


def _not_writable(path: Path, error: OSError, argument: str = "--out") -> CommandError:
    return CommandError(
        f"argument {argument}: cannot write to {str(path)!r} ({error.strerror or error}), "
        "expected a folder that can be written to"
    )
