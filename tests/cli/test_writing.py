"""Files that commands write: whole or not at all, as they were otherwise; and output that fails."""

import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

from instnorm import cli
from instnorm.cli import files
from instnorm.cli.errors import CommandError
from instnorm.cli.files import write_whole

OLD, NEW = b"old", b"new" * 1000


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a small file system with options, where the tests may do so."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            done = False
        if not done:
            pytest.skip("nothing can be mounted here")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- what becomes of the file ----------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 100, 240, 249, 255])
def test_every_legal_name_can_be_written(length, tmp_path):
    path = tmp_path / ("n" * length)
    write_whole(path, OLD)
    write_whole(path, NEW)
    assert path.read_bytes() == NEW
    assert os.listdir(tmp_path) == [path.name]


def test_a_name_that_is_too_long_is_told(tmp_path):
    with pytest.raises(CommandError, match=r"cannot write to .*n' \(File name too long\)"):
        write_whole(tmp_path / ("n" * 256), NEW)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("before", [0o600, 0o640, 0o644, 0o666, 0o444])
def test_the_mode_of_a_file_stays(before, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(OLD)
    path.chmod(before)
    write_whole(path, NEW)
    assert path.read_bytes() == NEW
    assert mode(path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_a_file_stays(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(OLD)
    os.chown(path, 1234, 2345)
    path.chmod(0o600)
    write_whole(path, NEW)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (1234, 2345, 0o600)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_of_a_new_file_follows_the_mask(mask, tmp_path):
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "a", NEW)
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == 0o666 & ~mask


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    link.symlink_to("there/target")
    for content in (OLD, NEW):  # at first it leads to nothing
        write_whole(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert os.listdir(tmp_path / "there") == ["target"]


def test_links_in_a_circle_are_told(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(CommandError, match="cannot write to"):
        write_whole(tmp_path / "a", NEW)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.timeout(20)
def test_a_pipe_is_written_to(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    write_whole(path, NEW)
    reader.join(timeout=10)
    assert got == [NEW]
    assert path.is_fifo()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("/dev/full"), "No space left on device"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_devices_and_folders_are_not_replaced(make, reason, tmp_path):
    make(tmp_path / "a")
    with pytest.raises(CommandError, match=reason):
        write_whole(tmp_path / "a", NEW)
    assert os.listdir(tmp_path) == ["a"]
    assert Path("/dev/full").is_char_device()


# --- what becomes of the temporary one -------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(mounted):
    folder = mounted("size=64k")
    write_whole(folder / "a", OLD)
    with pytest.raises(CommandError, match="No space left on device"):
        write_whole(folder / "a", bytes(10**6))
    assert (folder / "a").read_bytes() == OLD
    assert os.listdir(folder) == ["a"]


def test_a_read_only_file_system_is_told(mounted):
    folder = mounted("ro")
    with pytest.raises(CommandError, match=r"argument OUT: .* \(Read-only file system\)"):
        write_whole(folder / "a", NEW, argument="OUT")


def test_a_temporary_file_that_cannot_be_removed_hides_no_error(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "replace", fail)
    monkeypatch.setattr(files.os, "unlink", fail)
    with pytest.raises(CommandError, match="Input/output error"):
        write_whole(tmp_path / "a", NEW)


def test_an_interrupt_leaves_the_old_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    write_whole(tmp_path / "a", OLD)
    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", NEW)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == OLD


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    code = """
import os, sys
from pathlib import Path
from instnorm import cli
from instnorm.cli import files
def hang(*_):
    print("ready", flush=True)
    sys.stdin.read()
files.os.fsync = hang
files.write_whole(Path(sys.argv[1]), b"half")
"""
    path = tmp_path / "a"
    run = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (left,) = os.listdir(tmp_path)
        write_whole(path, NEW)  # does not touch what a living run is writing
        assert sorted(os.listdir(tmp_path)) == sorted([left, "a"])
        process.kill()
        process.wait()
    assert left in os.listdir(tmp_path)
    write_whole(path, OLD)
    assert os.listdir(tmp_path) == ["a"]


def test_only_files_of_its_own_are_removed(tmp_path):
    others = [".instnorm.tmp", "instnorm-0.tmp", ".a.123.tmp", ".instnorm-x.txt"]
    for name in others:
        (tmp_path / name).write_bytes(OLD)
    (tmp_path / ".instnorm-folder.tmp").mkdir()
    (tmp_path / ".instnorm-link.tmp").symlink_to("a")
    write_whole(tmp_path / "a", NEW)
    left = sorted([*others, ".instnorm-folder.tmp", ".instnorm-link.tmp", "a"])
    assert sorted(os.listdir(tmp_path)) == left


def test_many_runs_may_write_one_file(tmp_path):
    path = tmp_path / "a"
    wrong = []

    def write(content):
        for _ in range(50):
            try:
                write_whole(path, content)
            except CommandError as error:
                wrong.append(error)

    threads = [threading.Thread(target=write, args=(bytes([65 + i]) * 9999,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert os.listdir(tmp_path) == ["a"]
    assert len(set(path.read_bytes())) == 1


def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    write_whole(tmp_path / "a", NEW)
    assert os.listdir(tmp_path) == ["a"]


# --- output that fails ------------------------------------------------------------------------


def command(*arguments, redirect="", environment=None):
    words = " ".join([sys.executable, "-m", "instnorm", *arguments, redirect])
    return subprocess.run(
        ["sh", "-c", words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["info", "differences", "--version", "--help", "train --help"])
def test_a_full_output_is_told(words, unbuffered):
    done = command(
        *words.split(), redirect="> /dev/full", environment={"PYTHONUNBUFFERED": unbuffered}
    )
    assert done.returncode == 1
    assert done.stderr == "instnorm: error: cannot write the output (No space left on device)\n"


@pytest.mark.parametrize("arguments", [["info"], ["--version"], ["--help"]], ids=str)
@pytest.mark.parametrize("redirect", [">&-", ">&- 2>&-", "<&- >&-"])
def test_a_closed_output_is_no_trouble(arguments, redirect):
    done = command(*arguments, redirect=redirect)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("redirect", ["2>&-", "2> /dev/full", ">&- 2>&-"])
def test_an_error_that_nobody_can_read_still_has_its_status(redirect):
    done = command("info", "--what", redirect=redirect)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_file_that_fails_is_not_taken_for_the_output(monkeypatch, capsys):
    def fail(args):
        raise FileNotFoundError(2, "No such file or directory", "data.csv")

    monkeypatch.setattr(cli.info, "run", fail)
    assert cli.main(["info"]) == 1
    assert capsys.readouterr().err == (
        "instnorm: error: 'data.csv' failed (No such file or directory)\n"
    )


def test_an_output_of_few_letters_prints_all_names(tmp_path):
    source = tmp_path / "a.npz"

    np.savez(source, **{"caf\xe9.weight": np.ones(2), "caf\xe9.bias": np.ones(2)})
    arguments = [str(source), str(tmp_path / "b.npz"), "--to", "mindspore", "--norms", "'*'"]
    done = command(
        "convert", *arguments, environment={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9.gamma" in done.stdout


# --- Ctrl-C ------------------------------------------------------------------------------------


def test_an_interrupt_during_imports_is_told_in_a_line(tmp_path):
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [Path(sys.executable).with_name("instnorm"), "info"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "instnorm: interrupted\n"


@pytest.mark.parametrize("place", ["a finalizer", "a callback of a weak reference"])
def test_an_interrupt_that_python_drops_comes_again(place):
    code = f"""
import sys, types, weakref
import _instnorm_command

def interrupted(*_):
    raise KeyboardInterrupt

class Dropped:
    if {place!r} == "a finalizer":
        __del__ = interrupted

def command():
    dropped = Dropped()
    reference = weakref.ref(dropped, interrupted if {place!r} != "a finalizer" else None)
    del dropped
    for _ in range(10**7):
        pass
    return 0

sys.modules["instnorm.cli"] = types.SimpleNamespace(main=command)
sys.exit(_instnorm_command.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "instnorm: interrupted\n")


def test_an_error_that_python_drops_is_still_told():
    code = """
import sys, types
import _instnorm_command

class Bad:
    def __del__(self):
        raise ValueError("dropped")

sys.modules["instnorm.cli"] = types.SimpleNamespace(main=lambda: Bad() and 0)
sys.exit(_instnorm_command.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "ValueError: dropped" in done.stderr
