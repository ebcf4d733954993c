"""Time instnorm and its peers side by side: `python -m comparisons.peers`, from asv_bench/."""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

NAMES = (
    "instnorm",
    "instnorm-layer",
    "torch-instance_norm",
    "torch-group_norm",
    "torch-compile",
    "jax",
    "onnxruntime",
    "openvino",
    "numpy",
    "numba",
)
LEVELS = ("avx512", "avx2", "baseline")
# These take longest: one compiles for each case, the other is slow.
LEFT_OUT_IF_QUICK = ("torch-compile", "numpy")


def parsed(arguments):
    parser = argparse.ArgumentParser(
        "python -m comparisons.peers", description=__doc__.partition(":")[0]
    )
    parser.add_argument(
        "--only",
        "--shapes",
        dest="shapes",
        nargs="+",
        type=shape,
        metavar="SHAPE",
        help="such as 32,512,7,7; by default, the nine of benchmarks/common.py",
    )
    parser.add_argument(
        "--simd",
        nargs="+",
        choices=LEVELS,
        help="levels of instnorm, a column for each; by default, all that this machine has",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=NAMES,
        metavar="PEER",
        help=f"of {', '.join(NAMES)}, in all dtypes; the floor is always timed. By default all, "
        "in float32, and in other dtypes instnorm and PyTorch's functions",
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=("float32", "float64", "float16", "bfloat16"),
        help="by default, float32 and bfloat16",
    )
    parser.add_argument(
        "--layout",
        nargs="+",
        default=["contiguous", "channels-last"],
        choices=("contiguous", "channels-last"),
    )
    parser.add_argument("--threads", type=count, help="by default, one for each processor")
    parser.add_argument("--rounds", type=count, default=9)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a first impression, below three minutes: 3 short rounds, and by default float32 "
        f"alone, without {' and '.join(LEFT_OUT_IF_QUICK)}",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("peers-results"), help="folder to write to"
    )
    args = parser.parse_args(arguments)
    args.everywhere = args.peers is not None
    args.peers = args.peers or [n for n in NAMES if not (args.quick and n in LEFT_OUT_IF_QUICK)]
    args.dtype = args.dtype or (["float32"] if args.quick else ["float32", "bfloat16"])
    return args


def levels(asked):
    """The SIMD levels to measure: those asked for, or all that are built and run here."""
    from instnorm._runtime import simd

    available = list(simd.available())
    for level in asked or ():
        if level not in available:
            sys.exit(f"argument --simd: got {level}, expected of {', '.join(available)}")
    return tuple(level for level in available if not asked or level in asked)


def shape(text):
    sizes = text.strip("()").split(",")
    if not 3 <= len(sizes) <= 5 or not all(size.strip().isdigit() for size in sizes):
        raise argparse.ArgumentTypeError(f"expected N,C and 1 to 3 more sizes, got {text!r}")
    return tuple(map(int, sizes))


def count(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected at least 1")
    return int(text)


def allow_threads(threads):
    """Give every library the same processors; to be called before any of them is imported."""
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        threads = threads or len(processors)
        if threads > len(processors):
            sys.exit(f"argument --threads: got {threads}, expected at most {len(processors)}")
        os.sched_setaffinity(0, processors[:threads])
    else:
        threads = threads or os.cpu_count() or 1
    # NPROC sets the size of JAX's thread pool.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC"):
        os.environ[name] = str(threads)
    return threads


def main(arguments=None):
    args = parsed(arguments)
    threads = allow_threads(args.threads)

    chosen = levels(args.simd)
    from benchmarks.common import SHAPES

    from instnorm.cli.info import report

    from . import picture, table
    from .run import Runner

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0
    if load > 0.3:
        print(f"other programs run here (load {load:.1f}): times will be unsteady", file=sys.stderr)
    started = time.monotonic()
    rounds, turn = (3, 0.005) if args.quick else (args.rounds, 0.015)
    runner = Runner(args.peers, chosen, threads, rounds, turn, args.everywhere)
    results = runner.results
    results.settings.update(
        load=load,
        platform=platform.platform(),
        python=platform.python_version(),
        processor=report()["processor"],
        caches=report()["caches"],
    )
    for one in args.shapes or SHAPES:
        print(f"{table.shape_name(one)} ...", file=sys.stderr, flush=True)
        runner.shape(one, args.dtype, args.layout)

    print(table.table(results), "", *table.notes(results), "", sep="\n")
    print(*table.summary(results), sep="\n")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "peers.json").write_text(json.dumps(results.as_json(), indent=1) + "\n")
    for dtype in args.dtype:
        picture.save(results, dtype, args.out / f"peers-{dtype}.png")
    print(f"\n{args.out.resolve()}: peers.json and pictures; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
