"""Hot loops of a built module: which pass and dtype each belongs to, and what it moves."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from comparisons.machine_code import functions, innermost_loops, turns

# Functions of long_rows.pxi and moments.pxi that the compiler leaves, after inlining, by passes.
_FUNCTION = re.compile(
    r"__pyx_fuse_(\d)(?:_0)?__pyx_f_\d+instnorm_\d+_core_"
    r"(?:(?P<forward>block_moments|centred_sums|normalize)|block_products|product_sums|differentiate|backward_split_rows)P"
)
DTYPES = ("float32", "float64", "float16", "bfloat16")
_ITEMSIZE = (4, 8, 2, 2)
_BUNDLE = (32, 16, 32, 32)
# What sums of squares, or of products, and last passes have; pilots have not.
_ARITHMETIC = re.compile(r"v?f?n?m(ul|add\d+|addsub\d+|la)[ps\b]?[ds]?\b|fml[as]\b|fmul\b")

_X86_MEMORY = re.compile(
    r"(?P<offset>-?(?:0x[0-9a-f]+)?)"
    r"\((?P<base>%\w+)?(?:,(?P<index>%\w+)(?:,(?P<scale>\d))?)?\)"
)
_X86_MOVE = re.compile(r"(?P<name>add|sub)q?\s+\$(?P<by>-?0x[0-9a-f]+),\s*(?P<register>%r\w+)")
_X86_WIDTH = {"x": 16, "y": 32, "z": 64}
# Loads that widen and stores that narrow: memory has half of what the register has.
_X86_HALF = re.compile(r"v?(cvtph2ps|cvtps2ph|pmovzxwd|cvtps2pd|pmovdw)")
_ARM_WIDTH = {"q": 16, "d": 8, "s": 4, "h": 2}


class Loop(NamedTuple):
    """One innermost loop."""

    which: str  # pass and part
    dtype: str
    instructions: tuple[str, ...]
    elements: int  # of an array, in one turn
    loaded: int  # bytes, in one turn
    stored: int


def hot_loops(path: Path, objdump: str) -> Iterator[Loop]:
    """Yield the loops that take rows of more than a few hundred elements a bundle at a time."""
    for name, code in functions(path, objdump):
        found = _FUNCTION.search(name)
        if not found:
            continue
        kind, direction = int(found[1]), "forward" if found["forward"] else "backward"
        arrays = 1 if found["forward"] else 2
        # Where gcc asks in the loop whether to stream, the way that does not is taken.
        for instructions in (*innermost_loops(code), *turns(code, without="movnt")):
            loads, stores, streams = _traffic(instructions)
            loaded, stored = sum(n for _, n in loads), sum(n for _, n in stores)
            # What is in no register may be loaded twice.
            nbytes = stored or sum(n for _, n in set(loads)) // arrays
            elements = nbytes // _ITEMSIZE[kind]
            # Stores past the caches are bound by memory, and processors' models know little of it.
            arithmetic = any(map(_ARITHMETIC.match, instructions))
            whole = elements == _BUNDLE[kind] and loaded >= arrays * elements * _ITEMSIZE[kind]
            if whole and arithmetic and not streams:
                which = f"{direction}, {'last pass' if stored else 'sums'}"
                yield Loop(which, DTYPES[kind], tuple(instructions), elements, loaded, stored)


def _traffic(
    instructions: list[str],
) -> tuple[list[tuple[str, int]], list[tuple[str, int]], bool]:
    """(place, bytes) of each vector load and store, the stack left out; and whether any streams."""
    loads, stores, streams = [], [], False
    moved: dict[str, int] = {}  # registers, by how far within the turn
    for i, text in enumerate(instructions):
        if move := _X86_MOVE.match(text):
            by = int(move["by"], 16)
            by = (by - 2**64 if by >= 2**63 else by) * (1 if move["name"] == "add" else -1)
            moved[move["register"]] = moved.get(move["register"], 0) + by
        name, operands = (*text.split(None, 1), "")[:2]
        if "[" in operands:
            place, (nbytes, into) = str(i), _arm(name, operands)
        else:
            place, nbytes, into = _x86(name, operands, moved)
        if nbytes:
            (stores if into else loads).append((place, nbytes))
        streams = streams or "movnt" in name
    return loads, stores, streams


def _x86(name: str, operands: str, moved: dict[str, int]) -> tuple[str, int, bool]:
    memory = _X86_MEMORY.search(operands)
    register = re.search(r"%([xyz])mm", operands)
    if not memory or not register or memory["base"] in ("%rsp", "%rbp", "%rip"):
        return "", 0, False
    width = 0 if name.endswith(("ss", "sd")) else _X86_WIDTH[register[1]]
    into = operands.endswith(")")
    offset = int(memory["offset"] or "0", 16) + moved.get(memory["base"], 0)
    offset += moved.get(memory["index"], 0) * int(memory["scale"] or 1)
    place = f"{offset}({memory['base']},{memory['index']},{memory['scale']})"
    return place, width // 2 if _X86_HALF.match(name) else width, into


def _arm(name: str, operands: str) -> tuple[int, bool]:
    registers = re.findall(r"\b([qdsh])\d+\b", operands.partition("[")[0])
    if "[sp" in operands or not name.startswith(("ld", "st")):
        return 0, False
    return sum(_ARM_WIDTH[r] for r in registers), name.startswith("st")
