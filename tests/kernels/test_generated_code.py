"""The compiler keeps the kernels' vecs in registers: no hot loop stores one on the stack.

What made the kernels slow once was lanes that gcc kept on the stack for 256-bit registers, in
code that looked the same. Compilers change, so the machine code is looked at.
"""

import importlib.util
import platform
import re
import shutil

import pytest
from comparisons.machine_code import functions, innermost_loops

from instnorm._runtime import simd

# The loops over elements are in these functions, after inlining, of any dtype.
HOT = "_core_(block_(moments|products)|(normalize|differentiate)(_pixel)?|(sum|write)_blocks?)PK"
# A packed multiplication or fused multiply-add: what sums of squares and last passes have.
ARITHMETIC = re.compile(r"\bv?f?n?m(ul|add\d+|addsub\d+)p[sd]\b")
STACK_STORE = re.compile(r"\bv?mov(u|a|dqu|dqa)\w*\s+%[xyz]mm\d+,-?(0x[0-9a-f]+)?\((%rsp|%rbp)")
MOST_INSTRUCTIONS = 120

pytestmark = pytest.mark.skipif(
    shutil.which("objdump") is None or platform.machine() != "x86_64",
    reason="reads x86 code by objdump",
)


def hot_loops(level):
    spec = importlib.util.find_spec(simd._module_name("_core", level))
    for name, code in functions(spec.origin):
        # With an epilogue there is more to hold than an AVX2 processor has registers for.
        if re.search(HOT, name) and "no_epilogue" in name:
            for loop in innermost_loops(code):
                if len(loop) <= MOST_INSTRUCTIONS and any(map(ARITHMETIC.search, loop)):
                    yield name, loop


@pytest.mark.parametrize("level", list(simd.available()))
def test_no_hot_loop_keeps_a_vec_on_the_stack(level):
    loops = list(hot_loops(level))
    assert len(loops) > 10, "the hot loops were not found"
    spilt = []
    for name, loop in loops:
        stores = sum(STACK_STORE.search(instruction) is not None for instruction in loop)
        # Sums and squares of a bundle take all sixteen registers of the baseline, some of which
        # go to the stack. Elsewhere float32, Cython's first type, has room; for half precision,
        # and for the three sums of float64's backward pass, gcc 12 lacks a register or two.
        allowed = 16 if level == "baseline" else 0 if "_fuse_0_0_" in name else 3
        if stores > allowed:
            spilt.append(f"{name}:\n" + "\n".join(loop))
    assert not spilt, f"{len(spilt)} of {len(loops)} loops:\n" + "\n\n".join(spilt[:3])
