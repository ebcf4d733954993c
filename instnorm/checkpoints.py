"""Checkpoint files of both frameworks, as named arrays: read them, and serialize for writing.

safetensors, NumPy's ``.npz``, PyTorch's ``.pt`` and ``.pth``, and MindSpore's ``.ckpt``,
which is a protobuf message and so needs no MindSpore. What a format needs beyond NumPy
is imported only when it is used: all but PyTorch is in the extra `convert`.
"""

from __future__ import annotations

import binascii
import importlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["SUFFIXES", "Checkpoint", "CheckpointError", "dumps", "read"]

Array: TypeAlias = npt.NDArray[Any]


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


def read(path: Path, *, key: str | None = None) -> Checkpoint:
    """Read a checkpoint file; the suffix tells its format.

    A ``.ckpt`` that PyTorch (Lightning) has written is read as PyTorch's.

    Parameters
    ----------
    path : Path
    key : str, optional
        For PyTorch's files that hold more than one state dict: the name of the one to
        read.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        If the file cannot be read, or a package that this takes is missing.

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
    read_format = _format(path).read
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    if path.suffix == ".ckpt" and zipfile.is_zipfile(io.BytesIO(content)):
        read_format = _read_torch
    try:
        if read_format is _read_torch:
            return _read_torch(content, key)
        if key is not None:
            raise CheckpointError("a key has a use only for PyTorch's files")
        return read_format(content)
    except CheckpointError as error:
        raise CheckpointError(f"{str(path)!r}: {error}") from error


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
        If the format cannot hold an array's dtype, or a package that this takes is
        missing.
    """
    kept = dict(metadata or {})
    if path.suffix == ".safetensors" and flavour is not None:
        kept["format"] = {"mindspore": "ms", "pytorch": "pt"}[flavour]
    plain = {name: _in_order(np.asarray(array), "=") for name, array in arrays.items()}
    return _format(path).dumps(plain, kept)


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
    # The length of a JSON header, and the header: deserialize() leaves the metadata out.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = sorted(header.get("__metadata__", {}).items())
    # Those two speak of the file itself: the framework that wrote it, and its check sum.
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

# How NumPy stores bfloat16, whose name it does not know.
_TWO_BYTES = np.dtype("V2")


def _read_npz(content: bytes) -> Checkpoint:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"not an .npz file of arrays ({error})") from error
    for name, array in arrays.items():
        if array.dtype == _TWO_BYTES:
            arrays[name] = array.view(_dtype("bfloat16"))
    return Checkpoint(arrays, {})


def _dump_npz(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # savez takes no array by the name of "file"
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return file.getvalue()


# --- PyTorch ----------------------------------------------------------------------


def _read_torch(content: bytes, key: str | None) -> Checkpoint:
    torch = _imported("torch")
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # torch.load raises whatever the unpickler or the archive raises.
    except Exception as error:
        first = str(error).split("\n", 1)[0]
        raise CheckpointError(
            f"not a PyTorch file of tensors alone ({first}); expected what "
            "torch.save(model.state_dict(), path) writes"
        ) from error
    state = _state(torch, loaded, key)
    return Checkpoint({name: _from_torch(torch, name, t) for name, t in state.items()}, {})


def _state(torch: Any, loaded: Any, key: str | None) -> Mapping[str, Any]:
    """Find the state dict in what the file holds."""
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"holds {type(loaded).__name__}, expected a state dict")
    found = loaded if key is None else loaded.get(key)
    if isinstance(found, Mapping) and all(isinstance(v, torch.Tensor) for v in found.values()):
        return found
    states = [
        str(name)
        for name, value in loaded.items()
        if isinstance(value, Mapping)
        and value
        and all(isinstance(v, torch.Tensor) for v in value.values())
    ]
    asked = "" if key is None else f"no state dict by the name of {key!r}, but "
    raise CheckpointError(
        f"holds {asked}{', '.join(map(str, loaded))}; "
        + (f"name the state dict by key= (--key), of {states}" if states else "no state dict")
    )


def _from_torch(torch: Any, name: str, tensor: Any) -> Array:
    if tensor.dtype == torch.bfloat16:
        bits: Array = tensor.view(torch.int16).numpy(force=True)
        return bits.view(_dtype("bfloat16"))
    try:
        array: Array = tensor.numpy(force=True)
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(f"{name} cannot be an array ({error})") from error
    return array


def _dump_torch(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    torch = _imported("torch")
    state = {}
    for name, array in arrays.items():
        if array.dtype.name == "bfloat16":
            tensor = torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(array.copy())
        state[name] = tensor
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
        if not value.HasField("tensor"):
            raise CheckpointError(f"{value.tag} is a hash table, expected tensors alone")
        tensors[value.tag] = value.tensor
        parts.setdefault(value.tag, []).append(value.tensor.tensor_content)
    arrays, metadata = {}, {}
    for name, tensor in tensors.items():
        data = b"".join(parts[name])
        if tensor.tensor_type == "str":
            metadata[name] = data.decode("utf-32-le")
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
    array = _in_order(np.frombuffer(data, dtype.newbyteorder("<")), "=")
    shape = tuple(tensor.dims)
    if shape == (0,) and array.size == 1:
        shape = ()  # so did MindSpore 1 write a scalar
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
