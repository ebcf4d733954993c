"""Checkpoint files of both frameworks, as named arrays: read them, and serialize for writing.

safetensors, NumPy's ``.npz``, PyTorch's ``.pt`` and ``.pth``, and MindSpore's ``.ckpt``,
which is a protobuf message and so needs no MindSpore. What a format needs beyond NumPy
is imported only when it is used: all but PyTorch is in the extra `convert`.

Files may come from strangers: SECURITY.md says what is promised of them.
"""

from __future__ import annotations

import binascii
import importlib
import io
import json
import math
import stat
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from instnorm._layouts import Array

__all__ = [
    "DEFAULT_MAX_BYTES",
    "SUFFIXES",
    "Checkpoint",
    "CheckpointError",
    "dumps",
    "holds_metadata",
    "read",
]

#: What `read` takes in unless told otherwise: 2 GiB, beyond which no .ckpt goes either.
DEFAULT_MAX_BYTES = 2 << 30


class CheckpointError(ValueError):
    """A file that cannot be read, or arrays that a format cannot hold."""


class Checkpoint(NamedTuple):
    """The content of a file.

    Attributes
    ----------
    arrays : dict from str to ndarray
    metadata : dict from str to str
        Notes that go with the arrays: those of safetensors, or strings in a ``.ckpt``.
    """

    arrays: dict[str, Array]
    metadata: dict[str, str]


def read(path: Path, *, key: str | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> Checkpoint:
    """Read a checkpoint file; the suffix tells its format.

    A ``.ckpt`` that PyTorch (Lightning) has written is read as PyTorch's. No file can make
    this run code: a pickle of anything but tensors is refused.

    Parameters
    ----------
    path : Path
    key : str, optional
        For PyTorch's files that hold more than one state dict: the name of the one to
        read.
    max_bytes : int, default 2 GiB
        Most bytes that the file, what it inflates to, and its arrays may take each. A file
        that claims more is refused before memory is taken for it.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        If the file cannot be read or claims more than `max_bytes`, or a package that this
        takes is missing.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from instnorm import checkpoints
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "state.npz")
    ...     _ = path.write_bytes(checkpoints.dumps(path, {"weight": np.ones(2)}))
    ...     checkpoints.read(path)
    Checkpoint(arrays={'weight': array([1., 1.])}, metadata={})
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int | np.integer):
        raise TypeError(f"max_bytes must be an integer, got {type(max_bytes).__name__}")
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
    read_format = _format(path).read
    try:
        content = _content(path, max_bytes)
        if path.suffix != ".safetensors" and _is_archive(content):
            _check_archive(content, max_bytes)
            if path.suffix == ".ckpt":
                read_format = _read_torch
        if read_format is not _read_torch and key is not None:
            raise CheckpointError("a key has a use only for PyTorch's files")
        checkpoint = read_format(content, key) if key is not None else read_format(content)
        _check_claims(checkpoint.arrays, max_bytes)
    except CheckpointError as error:
        raise CheckpointError(f"{str(path)!r}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    # A file that nobody foresaw may make a reader raise anything.
    except Exception as error:
        raise CheckpointError(f"{str(path)!r} cannot be read ({_reason(error)})") from error
    return checkpoint


def _content(path: Path, max_bytes: int) -> bytes:
    """Read a regular file: others may have no end, or wait for somebody to write to them."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError("is no regular file")
    _check_claim("", status.st_size, max_bytes)
    with path.open("rb") as file:
        return file.read(status.st_size)


def _is_archive(content: bytes) -> bool:
    return content[:4] == b"PK\3\4" or zipfile.is_zipfile(io.BytesIO(content))


def _check_archive(content: bytes, max_bytes: int) -> None:
    """Refuse a zip archive that says it inflates beyond the limit.

    PyTorch has a reader of archives of its own. It finds the same directory where what is
    listed here begins with the file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise CheckpointError(f"not a whole zip archive ({error})") from error
    if members and min(info.header_offset for info in members) != 0:
        raise CheckpointError("not a whole zip archive (it does not begin with the file)")
    _check_claim("", sum(info.file_size for info in members), max_bytes)


def _check_claims(arrays: Mapping[str, Array], max_bytes: int) -> None:
    """Refuse arrays that are larger than the memory they have come in, by strides of zero."""
    total = 0
    for name, array in arrays.items():
        total += array.nbytes
        _check_claim(f"{name} ", array.nbytes, max_bytes)
    _check_claim("", total, max_bytes)


def _check_claim(name: str, claimed: int, max_bytes: int) -> None:
    if claimed > max_bytes:
        raise CheckpointError(
            f"{name}claims {claimed} bytes, more than max_bytes={max_bytes} allows (--max-bytes)"
        )


def dumps(
    path: Path,
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
    *,
    flavour: Literal["mindspore", "pytorch"] | None = None,
) -> bytes:
    """Make the content of a checkpoint file; the suffix of `path` tells its format.

    Parameters
    ----------
    path : Path
    arrays : mapping from str to ndarray
    metadata : mapping from str to str, optional
        Kept in safetensors and ``.ckpt``; the other formats have no place for it.
    flavour : {'mindspore', 'pytorch'}, optional
        What the entry ``format`` in the metadata of safetensors says, ms or pt.

    Returns
    -------
    bytes

    Raises
    ------
    CheckpointError
        If the format cannot hold an array's dtype or name, or a package that this takes
        is missing.
    """
    dump_format = _format(path).dumps
    kept = dict(metadata or {})
    if path.suffix == ".safetensors" and flavour is not None:
        kept["format"] = {"mindspore": "ms", "pytorch": "pt"}[flavour]
    plain = {name: _in_order(np.asarray(array), "=") for name, array in arrays.items()}
    try:
        for name, array in plain.items():
            if array.dtype.hasobject:
                raise CheckpointError(f"a checkpoint cannot hold {name}, of dtype {array.dtype}")
        return dump_format(plain, kept)
    except CheckpointError as error:
        raise CheckpointError(f"{str(path)!r}: {error}") from error
    # Such as a name that the format has no letters for.
    except Exception as error:
        raise CheckpointError(f"{str(path)!r} cannot be written ({_reason(error)})") from error


def holds_metadata(path: Path) -> bool:
    """Whether the file's format has a place for metadata."""
    return path.suffix in (".safetensors", ".ckpt")


# --- safetensors ------------------------------------------------------------------

_SAFETENSORS_DTYPES = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BOOL": "bool",
    "BF16": "bfloat16",
}


def _read_safetensors(content: bytes) -> Checkpoint:
    safetensors = _imported("safetensors")
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"not a safetensors file ({error})") from error
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise CheckpointError(f"{name} has dtype {entry['dtype']}, which NumPy does not have")
        dtype = _dtype(_SAFETENSORS_DTYPES[entry["dtype"]])
        arrays[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return Checkpoint(arrays, _safetensors_metadata(content))


def _safetensors_metadata(content: bytes) -> dict[str, str]:
    # safetensors.deserialize() leaves the metadata out. They are in the file's JSON header, whose
    # length the first eight bytes hold.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = sorted(header.get("__metadata__", {}).items())
    # Not `format`, the framework that wrote the file, and `crc_num`, the file's check sum.
    return {name: text for name, text in metadata if name not in ("format", "crc_num")}


def _dump_safetensors(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    _imported("safetensors")
    save = importlib.import_module("safetensors.numpy").save
    for name, array in arrays.items():
        if array.dtype.name not in _SAFETENSORS_DTYPES.values():
            raise CheckpointError(f"safetensors cannot hold {name}, of dtype {array.dtype}")
    contiguous = {name: np.array(array, order="C") for name, array in arrays.items()}
    content: bytes = save(contiguous, dict(sorted(metadata.items())) or None)
    return content


# --- NumPy ------------------------------------------------------------------------

# numpy.save writes ml_dtypes' bfloat16 as raw data of two bytes.
_TWO_BYTES = np.dtype("V2")


def _read_npz(content: bytes) -> Checkpoint:
    arrays: dict[str, Array] = {}
    where = ""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                where = f"{name}: "
                if name in arrays:
                    raise CheckpointError("there are two of the name")
                arrays[name] = _from_member(archive, info)
    # zipfile, zlib and NumPy raise whatever they stumble over.
    except Exception as error:
        raise CheckpointError(f"not an .npz file of arrays ({where}{_reason(error)})") from error
    return Checkpoint(arrays, {})


def _from_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Read an array, once its shape is known to be no larger than its data."""
    if not info.filename.endswith(".npy"):
        raise CheckpointError(f"{info.filename} is no array, whose name ends in .npy")
    npy = np.lib.format
    with archive.open(info) as member:
        version = npy.read_magic(member)
        if version > (2, 0):
            raise CheckpointError(f"of version {version}, expected at most (2, 0)")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(member)
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed > info.file_size:
        raise CheckpointError(
            f"claims {claimed} bytes by its shape {shape}, and comes in {info.file_size}"
        )
    with archive.open(info) as member:
        array: Array = npy.read_array(member, allow_pickle=False)
    return array.view(_dtype("bfloat16")) if dtype == _TWO_BYTES else array


def _dump_npz(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # numpy.savez refuses the name "file"
        for name, array in arrays.items():
            if "\0" in name:
                raise CheckpointError(f"an .npz cannot hold {name!r}, a name with a null in it")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return file.getvalue()


# --- PyTorch ----------------------------------------------------------------------


def _read_torch(content: bytes, key: str | None = None) -> Checkpoint:
    torch = _imported("torch")
    _check_pickles(content)
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # Any exception: torch.load passes on what the unpickler or the archive raises.
    except Exception as error:
        raise CheckpointError(
            f"not a PyTorch file of tensors alone ({_reason(error)}); expected what "
            "torch.save(model.state_dict(), path) writes"
        ) from error
    state = _state(torch, loaded, key)
    return Checkpoint({name: _from_torch(torch, name, t) for name, t in state.items()}, {})


def _check_pickles(content: bytes) -> None:
    """Refuse a bytearray: PyTorch's unpickler makes one of any size, and no state dict has one."""
    pickles = [content]
    if _is_archive(content):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".pkl")]
            pickles = [archive.read(info) for info in members]
    # The one way in which PyTorch's unpickler takes a name: two lines, the module's before it.
    if any(b"\nbytearray\n" in pickle for pickle in pickles):
        raise CheckpointError("holds a bytearray, expected tensors alone")


def _state(torch: Any, loaded: Any, key: str | None) -> Mapping[str, Any]:
    """Find the state dict in what the file holds."""
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"holds {type(loaded).__name__}, expected a state dict")
    found = loaded if key is None else loaded.get(key)
    if isinstance(found, Mapping) and all(isinstance(v, torch.Tensor) for v in found.values()):
        for name in found:
            if not isinstance(name, str):
                raise CheckpointError(
                    f"has a key that is {type(name).__name__}, expected names of entries, str"
                )
        return found
    states = [
        _shown(name)
        for name, value in loaded.items()
        if isinstance(value, Mapping)
        and value
        and all(isinstance(v, torch.Tensor) for v in value.values())
    ]
    asked = "" if key is None else f"no state dict by the name of {key!r}, but "
    choice = f"name the state dict by key= (--key), of {states[:_MOST_SHOWN]}"
    raise CheckpointError(
        f"holds {asked}{_listed(loaded)}; {choice if states else 'no state dict'}"
    )


def _from_torch(torch: Any, name: str, tensor: Any) -> Array:
    try:
        if tensor.dtype == torch.bfloat16:
            bits: Array = tensor.view(torch.int16).numpy(force=True)
            return bits.view(_dtype("bfloat16"))
        array: Array = tensor.numpy(force=True)
    # A sparse, a quantized, or whatever kind of tensor PyTorch will have.
    except Exception as error:
        raise CheckpointError(f"{name} cannot be an array ({_reason(error)})") from error
    return array


def _dump_torch(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    torch = _imported("torch")
    state = {}
    for name, array in arrays.items():
        is_bfloat16 = array.dtype.name == "bfloat16"
        try:
            tensor = torch.from_numpy((array.view(np.int16) if is_bfloat16 else array).copy())
        except TypeError as error:
            raise CheckpointError(
                f"a PyTorch file cannot hold {name}, of dtype {array.dtype}"
            ) from error
        state[name] = tensor.view(torch.bfloat16) if is_bfloat16 else tensor
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


# --- MindSpore --------------------------------------------------------------------

_MINDSPORE_DTYPES = {
    **{f"Float{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"Int{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "Bool": "bool",
    "BFloat16": "bfloat16",
}
# A file ends in this and ten bytes where it was saved with crc_check=True.
_CRC_MARK, _CRC_SIZE = b"crc_num", 17
# A larger array comes in several entries of one name.
_SLICE = 1 << 29


def _read_ckpt(content: bytes) -> Checkpoint:
    message = _checkpoint_message()()
    try:
        message.ParseFromString(_without_crc(content))
    except _imported("google.protobuf.message", "protobuf").DecodeError as error:
        raise CheckpointError(
            f"not a MindSpore checkpoint, or an encrypted one ({error})"
        ) from error
    if not message.value:
        raise CheckpointError("holds nothing")
    tensors: dict[str, Any] = {}
    parts: dict[str, list[bytes]] = {}
    for value in message.value:
        if isinstance(value.tag, bytes):  # what protobuf makes of text that is not UTF-8
            raise CheckpointError(f"{value.tag!r} is a name that is no text")
        if not value.HasField("tensor"):
            raise CheckpointError(f"{value.tag} is a hash table, expected tensors alone")
        tensors[value.tag] = value.tensor
        parts.setdefault(value.tag, []).append(value.tensor.tensor_content)
    arrays, metadata = {}, {}
    for name, tensor in tensors.items():
        data = b"".join(parts[name])
        if tensor.tensor_type == "str":
            try:
                metadata[name] = data.decode("utf-32-le")
            except UnicodeDecodeError as error:
                raise CheckpointError(f"{name} is no text ({error})") from error
        else:
            arrays[name] = _from_tensor(name, tensor, data)
    return Checkpoint(arrays, metadata)


def _without_crc(content: bytes) -> bytes:
    if content[-_CRC_SIZE:-10] != _CRC_MARK:
        return content
    message, crc = content[:-_CRC_SIZE], int.from_bytes(content[-10:], "big")
    if binascii.crc32(message) != crc:
        raise CheckpointError("its check sum is wrong: the file is damaged")
    return message


def _from_tensor(name: str, tensor: Any, data: bytes) -> Array:
    if tensor.tensor_type not in _MINDSPORE_DTYPES:
        raise CheckpointError(f"{name} has dtype {tensor.tensor_type}, which NumPy does not have")
    dtype = _dtype(_MINDSPORE_DTYPES[tensor.tensor_type])
    if len(data) % dtype.itemsize:
        raise CheckpointError(f"{name} has {len(data)} bytes, expected whole {dtype} values")
    array = _in_order(np.frombuffer(data, dtype.newbyteorder("<")), "=")
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0:
        raise CheckpointError(f"{name} has dimensions {shape}, expected none below 0")
    if shape == (0,) and array.size == 1:
        shape = ()  # MindSpore 1 wrote scalars so
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise CheckpointError(f"{name} has {array.size} values for shape {shape}") from error


def _dump_ckpt(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    types = {dtype: theirs for theirs, dtype in _MINDSPORE_DTYPES.items()}
    for name, array in arrays.items():
        if array.dtype.name not in types:
            raise CheckpointError(f"a .ckpt cannot hold {name}, of dtype {array.dtype}")
        if array.size == 0:
            raise CheckpointError(f"a .ckpt cannot hold {name}, which is empty")
    message = _checkpoint_message()()

    def add(name: str, dims: tuple[int, ...], tensor_type: str, data: bytes) -> None:
        tensor = {"dims": dims, "tensor_type": tensor_type, "tensor_content": data}
        message.value.add(tag=name, tensor=tensor)

    for name, array in arrays.items():
        data = _in_order(array, "<").tobytes()
        for start in range(0, len(data), _SLICE):
            add(name, array.shape, types[array.dtype.name], data[start : start + _SLICE])
    for name, text in metadata.items():
        add(name, (0,), "str", text.encode("utf-32-le"))
    content: bytes = message.SerializeToString()
    return content


def _checkpoint_message() -> Any:
    """Make the class of the message, in a pool apart from that of MindSpore."""
    descriptor_pb2 = _imported("google.protobuf.descriptor_pb2", "protobuf")
    descriptor_pool = _imported("google.protobuf.descriptor_pool", "protobuf")
    message_factory = _imported("google.protobuf.message_factory", "protobuf")
    kind = descriptor_pb2.FieldDescriptorProto
    required, repeated, optional = kind.LABEL_REQUIRED, kind.LABEL_REPEATED, kind.LABEL_OPTIONAL
    file = descriptor_pb2.FileDescriptorProto(name="checkpoint.proto", syntax="proto2")

    def add(
        message: Any, name: str, number: int, label: int, type: int, of: str | None = None
    ) -> None:
        message.field.add(name=name, number=number, label=label, type=type, type_name=of)

    checkpoint = file.message_type.add(name="Checkpoint")
    add(checkpoint, "value", 1, repeated, kind.TYPE_MESSAGE, ".Checkpoint.Value")
    value = checkpoint.nested_type.add(name="Value")
    add(value, "tag", 1, required, kind.TYPE_STRING)
    add(value, "tensor", 2, optional, kind.TYPE_MESSAGE, ".TensorProto")
    tensor = file.message_type.add(name="TensorProto")
    add(tensor, "dims", 1, repeated, kind.TYPE_INT64)
    add(tensor, "tensor_type", 2, required, kind.TYPE_STRING)
    add(tensor, "tensor_content", 3, required, kind.TYPE_BYTES)

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Checkpoint"))


# --- what the formats share -------------------------------------------------------


class _Format(NamedTuple):
    read: Callable[..., Checkpoint]
    dumps: Callable[[Mapping[str, Array], Mapping[str, str]], bytes]


_FORMATS = {
    ".safetensors": _Format(_read_safetensors, _dump_safetensors),
    ".npz": _Format(_read_npz, _dump_npz),
    ".pt": _Format(_read_torch, _dump_torch),
    ".pth": _Format(_read_torch, _dump_torch),
    ".ckpt": _Format(_read_ckpt, _dump_ckpt),
}
SUFFIXES = tuple(_FORMATS)


def _format(path: Path) -> _Format:
    if path.suffix not in _FORMATS:
        raise CheckpointError(
            f"{str(path)!r} has suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}"
        )
    return _FORMATS[path.suffix]


def _in_order(array: Array, byte_order: Literal["=", "<"]) -> Array:
    """Return the array, or a copy of the same values in this order of bytes: "=" is native."""
    return array.astype(array.dtype.newbyteorder(byte_order), copy=False)


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(_imported("ml_dtypes").bfloat16 if name == "bfloat16" else name)


_MOST_SHOWN = 10


def _listed(names: Iterable[Any]) -> str:
    """Join the first names; there may be any number, of any kind."""
    shown = [_shown(name) for name in names]
    more = [f"and {len(shown) - _MOST_SHOWN} more"] if len(shown) > _MOST_SHOWN else []
    return ", ".join(shown[:_MOST_SHOWN] + more)


def _shown(name: Any) -> str:
    # The text of a nested tuple can be exponentially longer than the file.
    return name[:100] if isinstance(name, str) else f"a key that is {type(name).__name__}"


def _reason(error: Exception) -> str:
    """The first line of what went wrong."""
    text = str(error).partition("\n")[0][:300]
    return text if isinstance(error, CheckpointError) else text or type(error).__name__


def _imported(module: str, package: str | None = None) -> Any:
    """Import what a format or dtype needs, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = package or module
        how = "torch" if package == "torch" else '"instnorm[convert]"'
        raise CheckpointError(
            f"this takes {package}, which cannot be found here: pip install {how}"
        ) from error
