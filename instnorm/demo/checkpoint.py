"""Checkpoints: both nets in training, in one safetensors file that training can resume from.

The tensors are named ``<learner>/net/<parameter>``, ``<learner>/momentum/<parameter>``
and ``<learner>/history/<measure>``. One entry of the metadata holds the rest as JSON.
The same training gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from instnorm import nn
from instnorm._layouts import Array
from instnorm.demo.task import Learner

# All metadata under one key, as safetensors writes several in no fixed order.
METADATA_KEY = "instnorm.train"

# Far beyond what the tasks' nets and anybody's patience reach.
MAX_BYTES = 1 << 30
MAX_EPOCHS = 10**9

Arrays: TypeAlias = Mapping[str, Array]


class CheckpointError(ValueError):
    """A file that training cannot resume from."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What, besides the number of epochs, the result of training depends on.

    No generator has a state to save: what an epoch draws follows from the seed and
    the epoch's number.
    """

    task: str
    seed: int
    dtype: str
    lr: float
    momentum: float
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a file.

    Attributes
    ----------
    path : Path
    settings : Settings
    epochs : int
        How many are done.
    tensors : mapping from str to ndarray
    """

    path: Path
    settings: Settings
    epochs: int
    tensors: Arrays

    def error(self, problem: str) -> CheckpointError:
        """Make the error that says why training cannot resume from this file."""
        return _error(self.path, problem)


def dumps(settings: Settings, epochs: int, learners: list[Learner]) -> bytes:
    """Make the content of a checkpoint."""
    tensors: dict[str, Array] = {}
    for learner in learners:
        tensors |= _named(learner, "net", learner.net.state_dict())
        tensors |= _named(learner, "momentum", _momentum_buffers(learner))
        tensors |= _named(
            learner, "history", {name: np.array(h) for name, h in learner.history.items()}
        )
    state = {"epochs": epochs, "settings": dataclasses.asdict(settings)}
    return _serialized(tensors, {METADATA_KEY: json.dumps(state, sort_keys=True)})


def dumps_weights(net: nn.Module) -> bytes:
    """Make the content of a file that holds the net's state dict alone."""
    return _serialized(net.state_dict(), None)


def _serialized(tensors: Arrays, metadata: dict[str, str] | None) -> bytes:
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    content: bytes = save(contiguous, metadata)
    return content


def _named(learner: Learner, kind: str, arrays: Arrays) -> dict[str, Array]:
    return {_prefix(learner, kind) + name: array for name, array in arrays.items()}


def _prefix(learner: Learner, kind: str) -> str:
    return f"{learner.name.replace(' ', '_')}/{kind}/"


def _momentum_buffers(learner: Learner) -> Arrays:
    state = learner.optimizer.state_dict()["state"]
    names = [name for name, _ in learner.net.named_parameters()]
    return {names[number]: entry["momentum_buffer"] for number, entry in state.items()}


# --- reading ----------------------------------------------------------------------


def read(path: Path) -> Checkpoint:
    """Read a file that holds what `dumps` has made.

    Raises
    ------
    CheckpointError
        If there is no such file, or it is something else.
    """
    from safetensors import safe_open

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # which may have no end, or no beginning
            raise _error(path, "is no regular file")
        if status.st_size > MAX_BYTES:
            raise _error(path, f"has {status.st_size} bytes, more than any net's {MAX_BYTES}")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise _error(path, "there is no such file") from error
    except CheckpointError:
        raise
    # safetensors raises what it and NumPy do, an AttributeError for dtypes NumPy does not have.
    except Exception as error:
        raise _error(path, f"not a safetensors file ({error})") from error
    if METADATA_KEY not in metadata:
        raise _error(path, "holds no state of training, only tensors")
    try:
        settings, epochs = _parsed(metadata[METADATA_KEY])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise _error(path, f"its metadata cannot be read ({repr(error)[:300]})") from error
    return Checkpoint(path, settings, epochs, tensors)


def _parsed(text: str) -> tuple[Settings, int]:
    state = json.loads(text)
    epochs, settings = state["epochs"], Settings(**state["settings"])
    whole = (epochs, settings.seed, settings.batch_size)
    if not all(type(value) is int for value in whole) or min(epochs, settings.batch_size) < 1:
        raise ValueError(f"epochs, seed and batch_size are {whole}")
    if epochs > MAX_EPOCHS:
        raise ValueError(f"epochs are {epochs}, more than {MAX_EPOCHS}")
    if type(settings.task) is not str:
        raise TypeError(f"task is {settings.task!r}")
    if settings.seed < 0 or settings.dtype not in ("float32", "float64"):
        raise ValueError(f"seed is {settings.seed}, dtype is {settings.dtype!r}")
    rates = (settings.lr, settings.momentum)
    if not all(type(value) in (int, float) for value in rates):
        raise TypeError(f"lr and momentum are {rates}")
    if not (0 <= float(settings.lr) < math.inf and 0 <= settings.momentum < 1):
        raise ValueError(f"lr is {settings.lr}, momentum is {settings.momentum}")
    return settings, epochs


def _error(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{str(path)!r}: {problem}; expected a checkpoint that instnorm train has written"
    )


def restore(checkpoint: Checkpoint, learners: list[Learner]) -> None:
    """Bring learners, fresh ones of the checkpoint's settings, to where they were.

    Raises
    ------
    CheckpointError
        If the tensors are not those of the learners' nets.
    """
    expected = {
        name: array
        for learner in learners
        for kind in ("net", "momentum", "history")
        for name, array in _named(learner, kind, _template(learner, kind, checkpoint)).items()
    }
    _check_tensors(checkpoint, expected)
    for learner in learners:
        learner.net.load_state_dict(_taken(checkpoint, learner, "net"))
        buffers = _taken(checkpoint, learner, "momentum")
        state = learner.optimizer.state_dict()
        state["state"] = {
            number: {"momentum_buffer": buffers[name]}
            for number, (name, _) in enumerate(learner.net.named_parameters())
            if name in buffers
        }
        learner.optimizer.load_state_dict(state)
        history = _taken(checkpoint, learner, "history")
        learner.history = {name: history[name].tolist() for name in learner.history}


def _template(learner: Learner, kind: str, checkpoint: Checkpoint) -> Arrays:
    """Arrays of the names, shapes and dtypes that the checkpoint should have."""
    if kind == "net":
        return learner.net.state_dict()
    if kind == "history":
        # As many as the file claims, in the memory of one.
        claimed = np.broadcast_to(np.float64(0), checkpoint.epochs)
        return dict.fromkeys(learner.history, claimed)
    if checkpoint.settings.momentum == 0:
        return {}
    return {name: parameter.data for name, parameter in learner.net.named_parameters()}


def _check_tensors(checkpoint: Checkpoint, expected: Arrays) -> None:
    found = checkpoint.tensors
    if missing := sorted(expected.keys() - found.keys()):
        raise checkpoint.error(f"is of another net: it lacks {missing[0]}")
    if unknown := sorted(found.keys() - expected.keys()):
        raise checkpoint.error(f"is of another net: it holds {unknown[0]}, which this one lacks")
    for name, array in expected.items():
        came = found[name]
        if came.shape != array.shape or came.dtype != array.dtype:
            raise checkpoint.error(
                f"is of another net: {name} has shape {came.shape} and dtype {came.dtype}, "
                f"expected {array.shape} and {array.dtype}"
            )


def _taken(checkpoint: Checkpoint, learner: Learner, kind: str) -> Arrays:
    prefix = _prefix(learner, kind)
    return {
        name.removeprefix(prefix): array
        for name, array in checkpoint.tensors.items()
        if name.startswith(prefix)
    }
