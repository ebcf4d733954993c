"""Files of Tensors and state dicts: `save` and `load`, in the format of safetensors.

A flat dict from names to Tensors, as a state dict is, becomes a plain safetensors file, which
other programs read. Everything else that can be saved (dicts and lists within each other,
numbers, text) is described in the file's metadata, where its Tensors stand by their names.
Nothing in such a file is run when it is loaded.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from instnorm._layouts import Array
from instnorm.tensor import Tensor, check_device

__all__ = ["load", "save"]

_KEY = "instnorm"


def save(obj: Any, f: str | os.PathLike[str]) -> None:
    """Write Tensors, state dicts, or nested dicts and lists of these to a file.

    Parameters
    ----------
    obj : Tensor, ndarray, dict, list, tuple, number, str or None
        Keys are str or int; tuples come back as lists. The state dicts of Modules,
        optimizers and schedules will do, and dicts of them. Parameters come back as Tensors.
    f : path
        A file that is there is replaced, in one step.

    Raises
    ------
    TypeError
        If something else is in it.
    ModuleNotFoundError
        If safetensors is not installed.

    See Also
    --------
    load : the way back.

    Examples
    --------
    >>> import os, tempfile, instnorm
    >>> net = instnorm.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "net.safetensors")
    ...     instnorm.save({"net": net.state_dict(), "epoch": 3}, path)
    ...     state = instnorm.load(path)
    >>> net.load_state_dict(state["net"]), state["epoch"]
    (<All keys matched successfully>, 3)
    """
    dumps = _safetensors().numpy.save
    arrays: dict[str, Array] = {}
    form = _described(obj, "", arrays)
    flat = (
        isinstance(obj, dict)
        and list(arrays) == list(obj)
        and all(value == {"tensor": name} for name, value in form["dict"])
    )
    metadata = None if flat else {_KEY: json.dumps(form)}
    contents = dumps({name: np.array(a, order="C") for name, a in arrays.items()}, metadata)
    part = Path(f"{os.fspath(f)}.part")
    try:
        part.write_bytes(contents)
        part.replace(f)
    finally:
        part.unlink(missing_ok=True)


def load(
    f: str | os.PathLike[str], map_location: object = None, *, weights_only: bool = True
) -> Any:
    """Read what `save` wrote, or any other safetensors file.

    Parameters
    ----------
    f : path
    map_location : {None, 'cpu'}, optional
        For PyTorch's sake.
    weights_only : bool, default True
        For PyTorch's sake: no file makes this function run code.

    Returns
    -------
    Tensor, dict, list, number, str or None
        As it was saved, with arrays as Tensors; of another program's file, an OrderedDict from
        names to Tensors.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no safetensors file.
    ModuleNotFoundError
        If safetensors is not installed.
    """
    check_device(map_location)
    safetensors = _safetensors()
    contents = Path(f).read_bytes()
    try:
        entries = safetensors.deserialize(contents)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{os.fspath(f)} is no safetensors file: {error}") from error
    tensors = OrderedDict((name, _tensor(entry)) for name, entry in entries)
    # deserialize leaves the metadata out: they are in the file's JSON header, whose length the
    # first eight bytes hold.
    header = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")])
    metadata = header.get("__metadata__", {})
    return _rebuilt(json.loads(metadata[_KEY]), tensors) if _KEY in metadata else tensors


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "save and load need safetensors: pip install safetensors"
        ) from error
    return safetensors


def _tensor(entry: dict[str, Any]) -> Tensor:
    name = entry["dtype"]
    if name == "BF16":
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:  # such as F32, I64, U8, BOOL
        code = "?" if name == "BOOL" else f"{name[0].lower()}{int(name[1:]) // 8}"
        dtype = np.dtype(code)
    return Tensor(np.frombuffer(entry["data"], dtype).reshape(entry["shape"]))


def _described(obj: Any, name: str, arrays: dict[str, Array]) -> Any:
    """Return `obj` as JSON has it, once its arrays are put into `arrays` under their names."""
    if isinstance(obj, Tensor | np.ndarray):
        name = name or "tensor"
        arrays[name] = obj.data if isinstance(obj, Tensor) else Tensor(obj).data
        return {"tensor": name}
    if isinstance(obj, dict):
        for key in obj:
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise TypeError(f"keys must be str or int to be saved, got {key!r}")
        return {"dict": [[key, _described(obj[key], _below(name, key), arrays)] for key in obj]}
    if isinstance(obj, list | tuple):
        return [_described(entry, _below(name, i), arrays) for i, entry in enumerate(obj)]
    if isinstance(obj, np.generic):
        return obj.item()
    if obj is None or isinstance(obj, bool | int | float | str):
        return obj
    raise TypeError(
        f"{name or 'obj'} is a {type(obj).__name__}, which cannot be saved; expected Tensors, "
        "arrays, numbers, text, and dicts and lists of these"
    )


def _below(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _rebuilt(form: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(form, list):
        return [_rebuilt(entry, tensors) for entry in form]
    if not isinstance(form, dict):
        return form
    if "tensor" in form:
        return tensors[form["tensor"]]
    return {key: _rebuilt(value, tensors) for key, value in form["dict"]}
