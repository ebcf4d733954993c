# cython: language_level=3
"""What the processor can do, in a module that has no kernel.

Loading a module that was built for a wider level may already run its instructions, so
`simd` asks here before it loads any.
"""

cdef extern from "cpu.h":
    bint instnorm_runs_avx2() nogil
    bint instnorm_runs_avx512() nogil


def cpu_supports(str level):
    """Whether the processor, and the operating system, run code of a SIMD level."""
    if level == "avx512":
        return instnorm_runs_avx512()
    if level == "avx2":
        return instnorm_runs_avx2()
    return level == "baseline"
