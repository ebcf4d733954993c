"""Files that were whole once and changed since: read as some state, or refused in one line.

The files are small, so that most bytes of them are of formats rather than of values; where an
archive has checksums, its members are changed and zipped again as well. What is found becomes a
case of `tests/migrate/test_hostile_files.py` or `tests/demo/test_hostile_resume.py`.
"""

import contextlib
import functools
import io
import os
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.problems import BFLOAT16
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instnorm import checkpoints, cli
from instnorm.checkpoints import CheckpointError
from instnorm.demo import checkpoint as training_checkpoint

some = settings(
    max_examples=int(os.environ.get("INSTNORM_FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = [pytest.mark.torch, pytest.mark.timeout(3600)]

LIMIT = 1 << 20
STATE = {
    "norm.weight": np.linspace(0, 1, 3, dtype=np.float32),
    "norm.bias": np.zeros(3, np.float32),
    "half": np.ones((2, 2), BFLOAT16),
    "steps": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float16),
}


@functools.cache
def whole(suffix):
    if suffix == "train":
        return trained()
    left_out = {".npz": "half", ".ckpt": "empty"}.get(suffix)  # what the format cannot hold
    arrays = {name: array for name, array in STATE.items() if name != left_out}
    return checkpoints.dumps(Path("state" + suffix), arrays)


@functools.cache
def trained():
    """A checkpoint of `instnorm train` of the first epoch."""
    from instnorm.demo import training

    settings_ = training_checkpoint.Settings(
        task="digits", seed=0, dtype="float32", lr=0.1, momentum=0.9, batch_size=64
    )
    task = training.TASKS["digits"](np.dtype(np.float32))
    learners = [training.learner(task, settings_, norm) for norm in (True, False)]
    return training_checkpoint.dumps(settings_, 0, learners)


# --- changes --------------------------------------------------------------------------------

numbers = st.sampled_from(
    [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1]
)
pieces = st.sampled_from(
    [b"", b"\0", b"\xff" * 8, b"[" * 200, b"{" * 50, b"1" * 400, b"-1", b"1e400", b"NaN", b"null",
     b'"', b"\\u0000", b"\n", b"PK\3\4", b"..", b"/etc/passwd", b"\x80\x02", b"(", b"t", b"R", b"."]
)  # fmt: skip


@st.composite
def changes(draw):
    """A function of bytes: a few cuts, overwritten numbers, inserted and repeated pieces."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "number", "insert", "cut", "repeat", "end", "digit"]),
                st.floats(0, 1, exclude_max=True),
                st.integers(1, 40),
                numbers,
                pieces,
            ),
            min_size=1,
            max_size=4,
        )
    )

    def change(content):
        data = bytearray(content)
        for kind, place, length, number, piece in steps:
            at = int(place * len(data)) if data else 0
            if kind == "flip" and data:
                data[at] ^= 1 << (length % 8)
            elif kind == "number":
                size = 1 << (length % 4)
                data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
            elif kind == "insert":
                data[at:at] = piece
            elif kind == "cut":
                del data[at : at + length]
            elif kind == "repeat":
                data[at:at] = data[at : at + length] * (1 + length % 5)
            elif kind == "end":
                del data[at:]
            else:  # one of the numbers in a text
                found = list(re.finditer(rb"\d+", data))
                if found:
                    span = found[int(place * len(found))].span()
                    data[slice(*span)] = str(number).encode()
        return bytes(data)

    return change


def zipped_again(content, change, which):
    """The archive with one member changed, and checksums that are right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, "w") as target:
        infos = source.infolist()
        for i, info in enumerate(infos):
            member = source.read(info)
            target.writestr(info.filename, change(member) if i == which % len(infos) else member)
    return file.getvalue()


def assert_read_or_refused(path, read):
    """It is a state of arrays within the limit, or one line that names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused = None
        try:
            arrays = read(path)
        except (CheckpointError, training_checkpoint.CheckpointError) as error:
            arrays, refused = {}, str(error)
    if refused is not None:
        assert "\n" not in refused
        assert len(refused) < 1000
        assert str(path) in refused
    for name, array in arrays.items():
        assert isinstance(name, str)
        assert isinstance(array, np.ndarray)
        assert array.nbytes <= LIMIT


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
@some
@given(change=changes(), inside=st.booleans(), which=st.integers(0, 20))
def test_a_changed_file_is_read_or_refused(suffix, change, inside, which, tmp_path_factory):
    content = whole(suffix)
    if inside and zipfile.is_zipfile(io.BytesIO(content)):
        changed = zipped_again(content, change, which)
    else:
        changed = change(content)
    path = tmp_path_factory.getbasetemp() / f"changed{suffix}"
    path.write_bytes(changed)
    assert_read_or_refused(path, lambda p: checkpoints.read(p, max_bytes=LIMIT).arrays)


@some
@given(change=changes())
def test_a_changed_checkpoint_of_training_is_read_or_refused(change, tmp_path_factory):
    content = whole("train")
    length = 8 + int.from_bytes(content[:8], "little")
    # The header alone, or all: what it says is checked, what the tensors hold is the net's affair.
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    header = change(content[8:length])
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[length:])
    assert_read_or_refused(path, lambda p: training_checkpoint.read(p).tensors)


# --- arguments of the command line ----------------------------------------------------------

words = st.sampled_from(
    ["convert", "differences", "info", "--to", "mindspore", "pytorch", "--norms", "*", "[", "norm",
     "--others", "--running-stats", "keep", "drop", "--max-bytes", "0", "-1", "1e9", "9" * 400,
     "--key", "state", "--format", "json", "markdown", "text", "--version", "--", "-", "", "\0",
     "\n", "\u202e", "é" * 300, "--out", "a" * 300, "--help", "-h", "--bogus", "--to=mindspore",
     "--epochs", "--resume", "--lr", "nan", "--threads", "--dtype"]
)  # fmt: skip


@some
@given(
    arguments=st.lists(words | st.sampled_from(["IN", "OUT"]), max_size=9), odd=st.text(max_size=5)
)
def test_any_arguments_end_in_a_status(arguments, odd, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    source = folder / "fuzz-in.npz"
    source.write_bytes(whole(".npz"))
    paths = {"IN": str(source), "OUT": str(folder / f"fuzz-out{odd.encode().hex()}.npz")}
    arguments = [paths.get(word, word) for word in arguments] + ([odd] if odd else [])
    out, err = io.StringIO(), io.StringIO()
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = cli.main(arguments)
            except SystemExit as done:  # --help and --version
                status = done.code or 0
    finally:
        os.chdir(before)
    assert status in (0, 1, 2)
    if status and arguments:
        assert err.getvalue().count("\n") == 1, err.getvalue()
        assert err.getvalue().startswith("instnorm: error: ")
