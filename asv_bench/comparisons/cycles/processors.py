"""The processors that loops are looked at for, and what their first-level caches can do."""

from typing import NamedTuple


class Processor(NamedTuple):
    """One that llvm-mca knows, and the build of the kernels that runs there."""

    mcpu: str
    triple: str
    level: str
    # Most bytes that the first-level cache gives, and takes, in a cycle, in loads and stores of
    # the level's registers. From AMD's and Intel's optimization manuals and Arm's guide for the N1.
    load: int
    store: int


PROCESSORS = (
    Processor("znver3", "x86_64", "avx2", 64, 32),
    Processor("znver4", "x86_64", "avx2", 64, 32),
    Processor("znver4", "x86_64", "avx512", 64, 32),
    Processor("skylake-avx512", "x86_64", "avx2", 64, 32),
    Processor("skylake-avx512", "x86_64", "avx512", 128, 64),
    Processor("alderlake", "x86_64", "avx2", 96, 64),
    Processor("neoverse-n1", "aarch64", "baseline", 32, 16),
)
