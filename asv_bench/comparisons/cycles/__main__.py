"""Print docs/cycles.md: llvm-mca's cycles an element of the hot loops, beside what caches allow.

Looks at the modules that are built in place: those for x86 by `make test`, and the one for AArch64
by `make test-aarch64`, or at those in the folder that `--modules` names. Needs LLVM 18 or newer
(before, its Neoverse N1 was a Cortex-A57), whose tools it finds by `--llvm`, a suffix of their
names.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from comparisons.cycles.loops import DTYPES, Loop, hot_loops
from comparisons.cycles.processors import PROCESSORS, Processor

PACKAGE = Path(__file__).parents[3] / "instnorm"
TURNS = 1000

INTRODUCTION = """\
# Cycles an element

What LLVM's models of processors say of the kernels' hot loops, for processors that need not be at
hand. `make cycles` prints this page: it takes the loops over long rows from the machine code of
the modules that are built in place, and `llvm-mca` runs each for {turns} turns, with all that it
reads in the first-level cache. The compiler was gcc {compiler}.

A cell has cycles an element: **what the loop takes**, then what its loads take at least, and what
its stores do, at the most bytes that the first-level cache gives and takes in a cycle. A loop that
takes what one of these does cannot be made faster by other arithmetic. "sums" are those of
squares, or of products, of one block; "last pass" writes the result, into the caches: where the
loop itself asks whether to write past them, the question is a part of it.

What this cannot say: how fast memory beyond the first-level cache is, which bounds all large
arrays, and at which clock the processor runs. LLVM's models leave out forwarding of stores, loads
that cross cache lines, and the front end; where a loop takes less than its loads, the model of
LLVM is more generous than the manual. `-`: no loop that takes whole registers was found, since
the compiler keeps some on the stack, or goes number by number (float16 on AArch64).
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m comparisons.cycles", description=__doc__)
    parser.add_argument("--llvm", default="", metavar="SUFFIX", help="as in llvm-mca-19: -19")
    parser.add_argument("--modules", type=Path, default=PACKAGE, metavar="DIR")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    args = parser.parse_args(argv)
    print(INTRODUCTION.format(turns=TURNS, compiler=_compiler(args.modules)))
    for dtype in args.dtype:
        rows = {
            processor: _cells(processor, dtype, args.modules, args.llvm) for processor in PROCESSORS
        }
        names = sorted({name for cells in rows.values() for name in cells})
        print(f"## {dtype}\n\n| processor | level | {' | '.join(names)} |")
        print("| --- " * (len(names) + 2) + "|")
        for processor, cells in rows.items():
            found = " | ".join(cells.get(name, "-") for name in names)
            print(f"| {processor.mcpu} | {_level(processor)} | {found} |")
        print(flush=True)
    return 0


def _level(processor: Processor) -> str:
    return "neon" if processor.triple == "aarch64" else processor.level


def _module(processor: Processor, folder: Path) -> Path:
    name = "_core" if processor.level == "baseline" else f"_core_{processor.level}"
    found = sorted(folder.glob(f"{name}.*{processor.triple}*.so"))
    if not found:
        sys.exit(f"no {name} for {processor.triple} in {folder}: make test, make test-aarch64")
    return found[0]


def _compiler(folder: Path) -> str:
    """The compiler, as it signs what it makes."""
    content = _module(PROCESSORS[0], folder).read_bytes()
    found = re.search(rb"(GCC: \([^)]*\) [\d.]+|clang version [\d.]+)", content)
    return found[1].decode().removeprefix("GCC: ") if found else "an unknown compiler"


def _cells(processor: Processor, dtype: str, folder: Path, llvm: str) -> dict[str, str]:
    """For each kind of loop, its numbers; the shortest counts, of several copies."""
    loops: dict[str, Loop] = {}
    for loop in hot_loops(_module(processor, folder), f"llvm-objdump{llvm}"):
        known = loops.get(loop.which)
        if loop.dtype == dtype and (not known or len(loop.instructions) < len(known.instructions)):
            loops[loop.which] = loop
    return {name: _numbers(processor, loop, llvm) for name, loop in loops.items()}


def _numbers(processor: Processor, loop: Loop, llvm: str) -> str:
    cycles = _cycles(processor, loop.instructions, llvm) / loop.elements
    load = loop.loaded / processor.load / loop.elements
    store = loop.stored / processor.store / loop.elements
    return f"**{cycles:.3f}** {load:.3f} {store:.3f}"


def _cycles(processor: Processor, instructions: Sequence[str], llvm: str) -> float:
    """Cycles for each turn of the loop."""
    *body, jump = instructions
    lines = [re.sub(r"\b0x[0-9a-f]+(?=\(%rip\))", "symbol", text) for text in body]
    # The loop's own jump leads to its beginning; those out of it are never taken.
    lines = ["again:", *(_to_label(text, "after") for text in lines), _to_label(jump, "again")]
    done = subprocess.run(
        [
            f"llvm-mca{llvm}", f"--mtriple={processor.triple}", f"--mcpu={processor.mcpu}",
            f"--iterations={TURNS}",
        ],
        input="\n".join([*lines, "after:", ""]),
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stderr}\nof the loop\n" + "\n".join(lines))
    return int(re.search(r"^Total Cycles:\s+(\d+)", done.stdout, re.MULTILINE)[1]) / TURNS


def _to_label(text: str, label: str) -> str:
    return re.sub(
        r"^((?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)\s+(?:\S+, )*)0x[0-9a-f]+$", rf"\1{label}", text
    )


if __name__ == "__main__":
    sys.exit(main())
