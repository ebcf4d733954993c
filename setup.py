"""What TOML cannot say: the compiled module, its compiler flags, the OpenMP probe."""

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

# No -march: the module must run on every processor of its architecture. Contraction to
# fused multiply-add is off, so that every build gives the same bits.
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]

PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"


def openmp_flags() -> list[str]:
    """The compiler's OpenMP flags, or none where a test program does not build with them."""
    if os.environ.get("INSTNORM_NO_OPENMP"):
        return []
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(PROBE)
        command = [*compiler.split(), "-fopenmp", str(source), "-o", str(Path(folder, "probe"))]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"instnorm: building without OpenMP, single-threaded ({error})", file=sys.stderr)
            return []
    return ["-fopenmp"]


openmp = openmp_flags()
core = Extension(
    "instnorm._core",
    ["instnorm/_core.pyx"],
    include_dirs=[numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    extra_compile_args=FLAGS + openmp,
    extra_link_args=openmp,
)
setup(ext_modules=cythonize([core]))
