"""The house: which room may import which, the names that outlived a move, what the docs name."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import instnorm

PACKAGE = Path(instnorm.__file__).parent
ROOT = Path(__file__).parents[1]

# From the ground up; what stands on one line is one room, and imports within it are free.
# `instnorm` itself is the package as its users see it, for the rooms that are its users.
ROOMS = [
    ["_core", "_missing", "_special"],
    ["_layers"],
    ["_runtime"],
    ["arrays", "_layouts", "statistics"],
    ["autograd", "tensor", "_primitives", "creation", "dtypes", "cuda"],
    ["functional"],
    ["nn"],
    ["optim", "utils", "serialization", "inspection"],
    ["testing"],
    ["instnorm"],
    ["migrate", "convert", "checkpoints", "differences"],
    ["bridge"],
    ["demo"],
    ["cli", "__main__"],
]
FLOOR = {name: floor for floor, names in enumerate(ROOMS) for name in names}
# Rooms on whose floor nobody may build: each framework is imported by its bridge alone.
FRAMEWORKS = {"torch": "bridge/torch", "mindspore": "bridge/mindspore"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "instnorm" if parts == ("__init__",) else parts[0]


def imported(path):
    """Yield (line, module), with what is imported from a package as a module where it is one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports by a relative name"
            for alias in node.names:
                room = PACKAGE / alias.name
                inside = node.module == "instnorm" and (
                    room.is_dir()
                    or room.with_suffix(".py").exists()
                    or alias.name in ("_core", "_layers")
                )
                yield node.lineno, f"instnorm.{alias.name}" if inside else node.module


def needless(path, module):
    """What is wrong with this import, or None."""
    framework = module.partition(".")[0]
    if framework in FRAMEWORKS:
        home = FRAMEWORKS[framework]
        return None if path.is_relative_to(PACKAGE / home) else f"only {home} imports it"
    if framework != "instnorm":
        return None
    own, other = room_of(path), (module + ".instnorm").split(".")[1]
    if own == "instnorm" or FLOOR[other] <= FLOOR[own]:
        return None
    return f"{own} stands below {other}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_the_rooms_above_it_in_the_table(path):
    wrong = [
        f"{path}:{line}: import of {module}: {reason}"
        for line, module in imported(path)
        if (reason := needless(path, module))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_bridges_know_nothing_of_each_other():
    for path in (PACKAGE / "bridge" / "torch").rglob("*.py"):
        assert not any("bridge.mindspore" in module for _, module in imported(path))
    for path in (PACKAGE / "bridge" / "mindspore").rglob("*.py"):
        assert not any("bridge.torch" in module for _, module in imported(path))


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("convert", "migrate.layers", ["layer"]),
        ("convert", "migrate.state_dicts", ["Change", "Converted", "state_dict"]),
        ("convert", "migrate._flavours", ["Flavour", "RunningStats"]),
        (
            "checkpoints",
            "migrate.checkpoints",
            [
                *["DEFAULT_MAX_BYTES", "SUFFIXES", "Checkpoint", "CheckpointError"],
                *["dumps", "holds_metadata", "read"],
            ],
        ),
        (
            "differences",
            "migrate.differences",
            ["INSTNORM_MINDSPORE", "INSTNORM_PYTORCH", "SECTIONS", "Cell", "Row", "Section"],
        ),
        ("differences.render", "migrate.differences.render", ["as_json", "as_markdown", "as_text"]),
        ("functional", "functional.norm", ["instance_norm"]),
        ("functional", "arrays", ["ArgumentError"]),
        ("functional", "functional._inputs", ["Input", "as_tensor"]),
        ("functional", "functional.loss", ["Reduction"]),
    ],
)
def test_names_stay_importable_where_they_were(old, new, names):
    before = importlib.import_module(f"instnorm.{old}")
    now = importlib.import_module(f"instnorm.{new}")
    for name in names:
        assert getattr(before, name) is getattr(now, name)


@pytest.mark.parametrize("name", ["memory", "simd", "threads"])
def test_the_runtime_is_an_attribute_of_the_package_as_before(name):
    assert getattr(instnorm, name) is importlib.import_module(f"instnorm._runtime.{name}")


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_the_docs_name_are_there(name):
    named = re.findall(r"`([\w/.]+\.(?:py|pyx|pyi|pxi|h|hpp|md))`", (ROOT / name).read_text())
    assert len(named) > 20
    folders = (PACKAGE, ROOT / "tests", ROOT / "asv_bench", ROOT / "docs")
    paths = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    files = [path.as_posix() for path in paths]
    missing = [file for file in named if not any(f.endswith(f"/{file}") for f in files)]
    assert not missing
