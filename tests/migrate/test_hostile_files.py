"""Files from strangers: an error of one line that names the file and the entry, and nothing worse.

A new kind of bad file becomes a case of `BAD`: a suffix, what writes the file, and what the error
says.
"""

import inspect
import io
import os
import re
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers.beside_torch import torch

from instnorm import checkpoints, cli
from instnorm.checkpoints import CheckpointError
from instnorm.migrate.checkpoints import _checkpoint_message

pytestmark = pytest.mark.torch

NORM = {"norm.weight": np.ones(3, np.float32), "norm.bias": np.zeros(3, np.float32)}
HUGE = 2**40


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def header(shape, descr="<f4"):
    """The beginning of an .npy file that claims a shape."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(*members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as zipped:
        for name, content in members:
            zipped.writestr(name, content)
    return file.getvalue()


def marked(content, offset_in_local, offset_in_central, value):
    """A zip archive of one member with two bytes of its headers changed in both places."""
    changed = bytearray(content)
    for signature, offset in ((b"PK\3\4", offset_in_local), (b"PK\1\2", offset_in_central)):
        place = changed.index(signature) + offset
        changed[place : place + 2] = struct.pack("<H", value)
    return bytes(changed)


def encrypted():
    return marked(archive(("a.npy", npy(np.ones(3)))), 6, 8, 1)


def oddly_compressed():
    return marked(archive(("a.npy", npy(np.ones(3)))), 8, 10, 97)


def corrupt():
    content = bytearray(archive(("a.npy", npy(np.ones(300))), method=zipfile.ZIP_DEFLATED))
    content[60:70] = b"\xff" * 10
    return bytes(content)


def bomb(claimed, name):
    """A small archive of one array of zeros that takes a lot of memory."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped,
        zipped.open(name, "w", force_zip64=True) as member,
    ):
        member.write(header((claimed,), "|u1"))
        for _ in range(claimed >> 24):
            member.write(bytes(1 << 24))
    return file.getvalue()


def lying(claimed=6 << 30):
    """An archive whose directory claims more than there is, without the work of compressing it."""
    content = bytearray(archive(("a.npy", header((claimed,), "|u1") + bytes(64))))
    place = content.index(b"PK\1\2")
    content[place + 24 : place + 28] = struct.pack("<I", (1 << 32) - 2)
    return bytes(content)


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def with_pickle(pickle):
    """What torch.save writes, with another pickle in it, compressed."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"a": torch.ones(3)}))) as source,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as changed,
    ):
        for info in source.infolist():
            is_pickle = info.filename.endswith("data.pkl")
            changed.writestr(info.filename, pickle if is_pickle else source.read(info))
    return file.getvalue()


# bytearray(3 << 30), which PyTorch's unpickler makes.
SWOLLEN_PICKLE = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\xc0\x00\x85R."


def message(*values):
    built = _checkpoint_message()()
    for tag, tensor in values:
        built.value.add(tag=tag, tensor=tensor)
    return built.SerializeToString()


def tensor(dims, data=bytes(12), tensor_type="Float32"):
    return {"dims": dims, "tensor_type": tensor_type, "tensor_content": data}


def safetensors(text, data=b""):
    return struct.pack("<Q", len(text)) + text + data


BAD = {
    "an .npy file": (".npz", lambda: npy(np.ones(3)), "not an .npz file"),
    "a member that is no array": (".npz", lambda: archive(("a.npy", b"text")), "a: "),
    "a member of another kind": (".npz", lambda: archive(("a.txt", b"text")), "a.txt is no array"),
    "an empty member": (".npz", lambda: archive(("a.npy", b"")), "a: "),
    "a cut array": (".npz", lambda: archive(("a.npy", npy(np.ones(9))[:-8])), "a: EOF"),
    "a shape of 2^40": (".npz", lambda: archive(("a.npy", header((HUGE,)))), "a: claims"),
    "a shape of 10^23": (".npz", lambda: archive(("a.npy", header((10**23,)))), "a: claims"),
    "a negative shape": (".npz", lambda: archive(("a.npy", header((-1,)))), "a: "),
    "a shape of nothing": (
        ".npz",
        lambda: archive(("a.npy", header((10**23, 0)))),
        "a: ",
    ),
    "objects": (".npz", lambda: archive(("a.npy", header((2,), "|O") + bytes(16))), "a: "),
    "a deep header": (".npz", lambda: archive(("a.npy", header("(" * 9000))), "a: "),
    "two of one name": (
        ".npz",
        lambda: archive(("a.npy", npy(np.ones(1))), ("a", b"")),
        "a: there are two",
    ),
    "encryption": (".npz", encrypted, "a: "),
    "odd compression": (".npz", oddly_compressed, "a: "),
    "bytes that cannot be inflated": (".npz", corrupt, "a: "),
    "a claim of 4 GB in the directory": (".npz", lying, "claims 4294967294 bytes"),
    "no archive": (".npz", lambda: b"PK\3\4" + bytes(40), "not a whole zip archive"),
    "a tensor of 2^40 in 4 bytes": (
        ".pt",
        lambda: saved({"a": torch.ones(1).expand(HUGE)}),
        "a claims 4398046511104 bytes",
    ),
    "a .pt that claims 4 GB": (".pt", lying, "claims 4294967294 bytes"),
    "a number as a name": (".pt", lambda: saved({1: torch.ones(3)}), "a key that is int"),
    "a tuple as a name": (".pt", lambda: saved({(1, 2): torch.ones(3)}), "a key that is tuple"),
    "None as a name": (".pt", lambda: saved({None: torch.ones(3)}), "a key that is NoneType"),
    "keys of many kinds": (".pt", lambda: saved({1: 2, None: 3}), "no state dict"),
    "a list": (".pt", lambda: saved([torch.ones(3)]), "holds list"),
    "a sparse tensor": (".pt", lambda: saved({"a": torch.eye(3).to_sparse()}), "a cannot be"),
    "a sparse bfloat16": (
        ".pt",
        lambda: saved({"a": torch.eye(3).bfloat16().to_sparse()}),
        "a cannot be",
    ),
    "a tensor without memory": (".pt", lambda: saved({"a": torch.ones(3, device="meta")}), "a "),
    "a cut .pt": (".pt", lambda: saved({"a": torch.ones(3)})[:-30], "not a whole zip archive"),
    "a hidden archive": (
        ".pt",
        lambda: saved({"a": torch.ones(3)}) + saved({"a": torch.ones(3)}),
        "not a whole zip archive",
    ),
    "no pickle": (".pt", lambda: b"\x80\x02\x8a" * 9, "not a PyTorch file"),
    "a pickle that swells": (".pt", lambda: with_pickle(SWOLLEN_PICKLE), "holds a bytearray"),
    "an old pickle that swells": (".pth", lambda: SWOLLEN_PICKLE, "holds a bytearray"),
    "a pickle of code": (
        ".pt",
        lambda: with_pickle(b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."),
        "not a PyTorch file",
    ),
    "a deep pickle": (
        ".pt",
        lambda: with_pickle(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."),
        "holds list",
    ),
    "a negative dimension": (".ckpt", lambda: message(("a", tensor([-1]))), "a has dimensions"),
    "negative dimensions": (".ckpt", lambda: message(("a", tensor([-1, -3]))), "a has dimensions"),
    "dimensions of 2^120": (".ckpt", lambda: message(("a", tensor([HUGE] * 3))), "a has 3 values"),
    "dimensions of nothing": (".ckpt", lambda: message(("a", tensor([2**62, 0, 8], b""))), "a "),
    "half a value": (".ckpt", lambda: message(("a", tensor([3], bytes(11)))), "a has 11 bytes"),
    "an unknown dtype": (".ckpt", lambda: message(("a", tensor([3], tensor_type="x"))), "a has"),
    "text that is none": (
        ".ckpt",
        lambda: message(("a", tensor([0], b"\xff" * 8, "str"))),
        "a is no text",
    ),
    "a name that is no text": (
        ".ckpt",
        lambda: message(("abc", tensor([3]))).replace(b"abc", b"a\xffc"),
        "b'a\\xffc' is a name",
    ),
    "other bytes": (".ckpt", lambda: b"\xff" * 40, "not a MindSpore checkpoint"),
    "a header of 2^60": (".safetensors", lambda: struct.pack("<Q", 2**60), "not a safetensors"),
    "deep JSON": (".safetensors", lambda: safetensors(b"[" * 10**5), "not a safetensors"),
    "data beyond the end": (
        ".safetensors",
        lambda: safetensors(b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'),
        "not a safetensors",
    ),
    "a shape of 2^80": (
        ".safetensors",
        lambda: safetensors(
            b'{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,0]}}'
        ),
        "not a safetensors",
    ),
}


def convert(source, out, *arguments):
    return cli.main(["convert", str(source), str(out), "--to", "mindspore", *arguments])


def assert_one_line(printed, *parts):
    assert printed.startswith("instnorm: error: ")
    assert printed.count("\n") == 1
    assert len(printed) < 1000
    for part in parts:
        assert part in printed


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_by_name(kind, tmp_path, capsys):
    suffix, make, problem = BAD[kind]
    path = tmp_path / f"state{suffix}"
    path.write_bytes(make())
    with pytest.raises(CheckpointError, match=re.escape(repr(str(path)))) as raised:
        checkpoints.read(path)
    assert problem in str(raised.value)
    assert convert(path, tmp_path / "out.npz", "--norms", "*") == 2
    assert_one_line(capsys.readouterr().err, str(path), problem)
    assert os.listdir(tmp_path) == [path.name]


# --- the limit -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "member"), [(".npz", "a.npy"), (".pt", "archive/data/0")])
def test_an_archive_that_inflates_beyond_the_limit_is_not_inflated(
    suffix, member, tmp_path, capsys
):
    path = tmp_path / f"state{suffix}"
    path.write_bytes(bomb(1 << 28, member))
    assert path.stat().st_size < 1 << 22
    with pytest.raises(CheckpointError, match=r"claims \d+ bytes, .* max_bytes=268435455 allows"):
        checkpoints.read(path, max_bytes=(1 << 28) - 1)
    assert convert(path, tmp_path / "out.npz", "--max-bytes", "1000000") == 2
    assert_one_line(capsys.readouterr().err, str(path), "--max-bytes")


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_the_limit_holds_in_every_format(suffix, tmp_path):
    path = tmp_path / f"state{suffix}"
    path.write_bytes(checkpoints.dumps(path, NORM))
    size = path.stat().st_size
    assert checkpoints.read(path, max_bytes=size + 1000).arrays.keys() == NORM.keys()
    for limit in (1, 23, size - 1):
        with pytest.raises(CheckpointError, match=f"max_bytes={limit} allows"):
            checkpoints.read(path, max_bytes=limit)


def test_what_a_tensor_claims_by_a_stride_of_zero_counts(tmp_path):
    path = tmp_path / "state.pt"
    path.write_bytes(saved({"a": torch.ones(1).expand(10**6)}))
    with pytest.raises(CheckpointError, match=r"a claims 4000000 bytes, .* max_bytes=3999999"):
        checkpoints.read(path, max_bytes=3999999)
    assert checkpoints.read(path, max_bytes=4000000).arrays["a"].shape == (10**6,)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "1", None])
def test_a_bad_limit_is_refused(limit, tmp_path):
    error = ValueError if type(limit) is int else TypeError
    with pytest.raises(error, match="max_bytes must be"):
        checkpoints.read(tmp_path / "a.npz", max_bytes=limit)


def test_the_limit_has_a_default_and_help(capsys):
    assert checkpoints.DEFAULT_MAX_BYTES == 2 << 30
    assert inspect.signature(checkpoints.read).parameters["max_bytes"].default == 2 << 30
    with pytest.raises(SystemExit):
        cli.main(["convert", "--help"])
    assert "--max-bytes" in capsys.readouterr().out


def test_a_large_sparse_file_is_not_read(tmp_path):
    path = tmp_path / "state.npz"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(CheckpointError, match=r"state.npz': claims 4398046511104 bytes"):
        checkpoints.read(path)


@pytest.mark.timeout(10)
def test_what_is_no_regular_file_is_not_opened(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "endless.pt").symlink_to("/dev/zero")
    (tmp_path / "folder.ckpt").mkdir()
    for name in ("pipe.npz", "endless.pt", "folder.ckpt"):
        assert convert(tmp_path / name, tmp_path / "out.npz") == 2
        assert_one_line(capsys.readouterr().err, name, "no regular file")


# --- what can be read and not be converted or written ------------------------------------------

ODD = {
    "strings": np.array(["a", "b", "c"]),
    "bytes": np.array([b"a", b"b", b"c"]),
    "datetimes": np.array([1, 2, 3], "M8[s]"),
    "timedeltas": np.array([1, 2, 3], "m8[s]"),
    "longdoubles": np.ones(3, np.longdouble),
    "records": np.zeros(3, "i4,f4"),
    "raw": np.zeros(3, "V7"),
}


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("kind", ODD)
def test_arrays_that_a_format_cannot_hold(kind, suffix, tmp_path, capsys):
    source, out = tmp_path / "state.npz", tmp_path / f"out{suffix}"
    np.savez(source, odd=ODD[kind])
    assert convert(source, out) == 2
    assert_one_line(capsys.readouterr().err, str(out), "cannot hold odd, of dtype")
    assert not out.exists()


@pytest.mark.parametrize("kind", ODD)
def test_arrays_of_other_kinds_in_place_of_a_norms(kind, tmp_path, capsys):
    source, out = tmp_path / "state.npz", tmp_path / "out.npz"
    names = ("weight", "bias", "running_mean", "running_var")
    np.savez(source, **{f"norm.{name}": ODD[kind] for name in names})
    status = convert(source, out, "--norms", "*")
    printed = capsys.readouterr().err
    assert status == (0 if kind == "longdoubles" else 2) or "running statistics" in printed
    if status:
        assert_one_line(printed, str(source))


def test_arrays_of_objects_are_refused_in_every_format():
    for suffix in checkpoints.SUFFIXES:
        with pytest.raises(CheckpointError, match="cannot hold a, of dtype object"):
            checkpoints.dumps(tmp := Path(f"out{suffix}"), {"a": np.array([{}])})
        assert not tmp.exists()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "caf\xe9", "\u202e", "x" * 5000])
def test_names_are_printed_in_one_line_that_commands_no_terminal(name, tmp_path, capsys):
    source, out = tmp_path / "state.npz", tmp_path / "out.npz"
    state = {f"{name}.weight": np.ones(3), f"{name}.bias": np.ones(3)}
    source.write_bytes(checkpoints.dumps(source, state))
    assert convert(source, out, "--norms", "nothing") == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "\x1b" not in printed.err
    assert convert(source, out, "--norms", "*") == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 9
    assert "\x1b" not in printed.out
    assert "\u202e" not in printed.out
    assert ("caf\xe9" in name) == ("caf\xe9.gamma" in printed.out)


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_names_that_no_file_can_hold(suffix, tmp_path, capsys):
    source, out = tmp_path / "state.pt", tmp_path / f"out{suffix}"
    torch.save({"a\ud800": torch.ones(3)}, source)
    if convert(source, out):
        assert_one_line(capsys.readouterr().err, str(out))
    else:
        assert list(checkpoints.read(out).arrays) == ["a\ud800"]
        capsys.readouterr()


def test_good_files_are_still_read(tmp_path):
    state = {
        "a": np.ones((2, 0)),
        "b": np.array(3, np.int64),
        "c": np.ones(2, ml_dtypes.bfloat16),
        "d/e": np.asfortranarray(np.ones((2, 3))),
    }
    for suffix in (".npz", ".pt", ".safetensors"):
        path = tmp_path / f"state{suffix}"
        path.write_bytes(checkpoints.dumps(path, state))
        read = checkpoints.read(path).arrays
        assert {name: (a.shape, a.dtype) for name, a in read.items()} == {
            name: (a.shape, a.dtype) for name, a in state.items()
        }
    compressed = tmp_path / "compressed.npz"
    np.savez_compressed(compressed, a=np.arange(1000), b=np.array(["x"]))
    np.testing.assert_array_equal(checkpoints.read(compressed).arrays["a"], np.arange(1000))


@pytest.mark.timeout(100)
@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_damaged_files_are_read_or_refused(suffix, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / f"state{suffix}"
    state = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, ml_dtypes.bfloat16)}
    good = checkpoints.dumps(path, state, {"note": "x"})
    refused = taken = 0
    for _ in range(400):
        content = bytearray(good)
        for place in rng.integers(len(content), size=rng.integers(1, 4)):
            content[place] = rng.choice([0, 1, 127, 128, 255, content[place] ^ 4])
        if rng.random() < 0.2:
            del content[rng.integers(len(content)) :]
        path.write_bytes(content)
        try:
            checkpoints.read(path, max_bytes=10**6)
        except CheckpointError as error:
            refused += str(path) in str(error)
        else:
            taken += 1
    assert refused + taken == 400
    assert refused > 20
