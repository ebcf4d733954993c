"""Models that users name on the command line: their own code, which is run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from instnorm.cli.errors import CommandError
from instnorm.migrate.models import framework_of

EXPECTED = "MODULE:FACTORY, such as nets:make_generator or nets.py:Generator"


def load_model(text: str, argument: str = "--model") -> Any:
    """Import a module and make the model that it names.

    Parameters
    ----------
    text : str
        ``module:name`` or ``path/to/file.py:name``. The name is of a model, or of something that
        returns one when it is called without arguments.
    argument : str
        What errors name.

    Raises
    ------
    CommandError
        If there is no such module or name, its code fails, or what it makes is no model.
    """
    source, colon, name = text.rpartition(":")
    if not colon or not source or not name:
        raise CommandError(f"argument {argument}: expected {EXPECTED}, got {text!r}")
    try:
        found: Any = load_module(source)
        for part in name.split("."):
            found = getattr(found, part)
        model = found if framework_of(found) else found()
    except CommandError:
        raise
    # It is the user's code: whatever it raises.
    except (Exception, SystemExit) as error:
        raise _failed(text, argument, error) from error
    if framework_of(model) is None:
        raise CommandError(
            f"argument {argument}: expected a module of PyTorch or MindSpore of {text!r}, "
            f"got {type(model).__name__}"
        )
    return model


def _failed(text: str, argument: str, error: BaseException) -> CommandError:
    reason = str(error).strip().partition("\n")[0][:300]
    return CommandError(f"argument {argument}: {text!r} failed ({type(error).__name__}: {reason})")


def load_module(source: str) -> ModuleType:
    """Import a module by its name, or a file; the folder that the command runs in is searched."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    is_file = source.endswith(".py")
    module = _from_file(Path(source)) if is_file else importlib.import_module(source)
    if sys.modules.get("mindspore") is not None:
        # MindSpore 2.10 and NumPy 2 are settled there, before the first operator.
        importlib.import_module("instnorm.bridge.mindspore")
    return module


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise CommandError(f"{str(path)!r}: there is no such file")
    # What it imports from beside it is found, as by python path/to/file.py.
    sys.path.insert(0, str(path.resolve().parent))
    name = f"_model_in_{path.stem}"  # so that a file model.py hides no module of that name
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{str(path)!r} cannot be imported, expected a file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
