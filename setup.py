"""What TOML cannot say: the compiled module at each SIMD level, its flags, and their probes."""

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from glob import glob
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

# No -march: `_core` must run on every processor of its architecture. Contraction to
# fused multiply-add is off, so that every level and every build gives the same bits.
FLAGS = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
# The kernels are C++ for the sake of their registers, which are templates.
CPP_FLAGS = ["-std=c++17"]

# The same source once more for wider registers; `_runtime/simd.py` chooses when it is imported.
X86_LEVELS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        *["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"],
        # Of the loops that are left to the compiler, all are short: wide registers slow them down.
        "-mprefer-vector-width=128",
    ],
}

# The modules that are compiled for each level.
BY_LEVEL = ["_core", "_layers"]

# What a compiled module is made of, besides its own source.
PARTS = [
    name
    for ending in ("pyx", "pxi", "h", "hpp")
    for name in glob(f"instnorm/**/*.{ending}", recursive=True)
]

EMPTY_PROGRAM = "int main(void) { return 0; }\n"
OPENMP_PROGRAM = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"


def compiles(program: str, flags: list[str]) -> bool:
    """Whether the C compiler makes an executable of a program with these flags."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(program)
        command = [*compiler.split(), *flags, str(source), "-o", str(Path(folder, "probe"))]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return False
    return True


def openmp_flags() -> list[str]:
    if os.environ.get("INSTNORM_NO_OPENMP"):
        return []
    if compiles(OPENMP_PROGRAM, ["-fopenmp"]):
        return ["-fopenmp"]
    print("instnorm: no OpenMP found; building single-threaded", file=sys.stderr)
    return []


def levels() -> dict[str, list[str]]:
    """The SIMD levels beyond the baseline that this compiler can build, with their flags."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return {}
    wanted = os.environ.get("INSTNORM_LEVELS", " ".join(X86_LEVELS)).split()  # "" for none
    return {n: f for n, f in X86_LEVELS.items() if n in wanted and compiles(EMPTY_PROGRAM, f)}


def extension(name: str, source: str, flags: list[str]) -> Extension:
    return Extension(
        f"instnorm.{name}",
        [source],
        include_dirs=[numpy.get_include()],
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
            ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),
        ],
        extra_compile_args=FLAGS + flags,
        extra_link_args=openmp,
        depends=PARTS,
    )


def wrapper_for(module: str, level: str) -> str:
    """A C++ file that is a module's under another module name."""
    folder = Path("build", "levels")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}_{level}.cpp"
    path.write_text(
        f'#define PyInit_{module} PyInit_{module}_{level}\n#include "../../instnorm/{module}.cpp"\n'
    )
    return str(path)


openmp = openmp_flags()
setup(
    # Each module takes a minute to compile, and pip passes no number of jobs on.
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
    ext_modules=[
        *cythonize(
            [
                *(extension(m, f"instnorm/{m}.pyx", CPP_FLAGS + openmp) for m in BY_LEVEL),
                extension("_runtime._cpu", "instnorm/_runtime/_cpu.pyx", []),
                extension("_runtime._memory", "instnorm/_runtime/_memory.pyx", []),
                extension("_special", "instnorm/_special.pyx", []),
            ]
        ),
        *(
            extension(f"{module}_{level}", wrapper_for(module, level), CPP_FLAGS + openmp + flags)
            for module in BY_LEVEL
            for level, flags in levels().items()
        ),
    ],
)
