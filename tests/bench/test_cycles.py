"""`make cycles` finds the hot loops in machine code, and what they load and store."""

import importlib.util
import platform
import shutil
from pathlib import Path

import pytest
from comparisons.cycles import loops

from instnorm._runtime import simd

KINDS = {
    f"{direction}, {part}"
    for direction in ("forward", "backward")
    for part in ("sums", "last pass")
}


@pytest.mark.skipif(
    shutil.which("objdump") is None or platform.machine() != "x86_64",
    reason="reads x86 code by objdump",
)
@pytest.mark.parametrize("level", [name for name in simd.available() if name != "baseline"])
def test_every_pass_has_a_loop_of_whole_bundles(level):
    spec = importlib.util.find_spec(simd._module_name("_core", level))
    found = list(loops.hot_loops(Path(spec.origin), "objdump"))
    for dtype, elements, itemsize in (("float32", 32, 4), ("float64", 16, 8)):
        of_dtype = [loop for loop in found if loop.dtype == dtype]
        # gcc 12 keeps some of float64's loops less plain.
        assert dtype == "float64" or {loop.which for loop in of_dtype} == KINDS
        for loop in of_dtype:
            assert loop.elements == elements
            nbytes = elements * itemsize
            assert loop.stored == (nbytes if "last pass" in loop.which else 0)
            assert loop.loaded >= nbytes * (2 if "backward" in loop.which else 1)


@pytest.mark.parametrize(
    ("instruction", "loaded", "stored"),
    [
        ("vmovups\t0x20(%rdi,%rax,4), %ymm5", 32, 0),
        ("vsubps -0x40(%rdi),%zmm1,%zmm2", 64, 0),
        ("movups\t%xmm0, (%rdx)", 0, 16),
        ("vcvtph2ps\t(%rdi), %ymm0", 16, 0),
        ("vcvtps2ph\t$0x4, %zmm0, 0x20(%rdx)", 0, 32),
        ("vmovups\t%ymm0, 0x40(%rsp)", 0, 0),
        ("vmovsd\t(%rdi), %xmm0", 0, 0),
        ("addq\t$0x20, (%rdi)", 0, 0),
        ("ldp\tq13, q12, [x1, #0x20]", 32, 0),
        ("str\td1, [x0], #0x8", 0, 8),
        ("str\tq1, [sp, #0x10]", 0, 0),
    ],
)
def test_bytes_of_an_instruction(instruction, loaded, stored):
    loads, stores, _ = loops._traffic([instruction])
    assert (sum(n for _, n in loads), sum(n for _, n in stores)) == (loaded, stored)


@pytest.mark.parametrize("move", ["sub\t$0xffffffffffffff80,%rax", "addq\t$0x80, %rax"])
def test_a_place_is_the_same_once_its_register_has_moved(move):
    turn = ["vmovups (%rax),%ymm1", move, "vmovups -0x80(%rax),%ymm2", "vmovups (%rax),%ymm3"]
    places = [place for place, _ in loops._traffic(turn)[0]]
    assert places[0] == places[1] != places[2]
