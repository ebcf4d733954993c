"""Measure the nets, print the table and save it with the picture."""

import argparse
import os
from pathlib import Path

from .measure import measure
from .nets import NETS
from .report import picture, table

HEAD = """\
Time: median of interleaved runs, {threads} threads, the faster of both layouts. Peak: memory that
a first run takes beyond the net at rest. Error: against float64, of the output (largest, beside
the largest element) or of all gradients (in the 2-norm); in the layout timed, and contiguous.
"""


def main():
    parser = argparse.ArgumentParser(prog="python -m comparisons.models", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seconds", type=float, default=20, help="per net and task, of timing")
    parser.add_argument("--net", choices=NETS, action="append", help="all by default")
    options = parser.parse_args()

    results = []
    for net in options.net or NETS:
        print(f"measuring {net} ...", flush=True)
        results += measure(net, options.seconds)
    text = HEAD.format(threads=os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
    text += "\n" + table(results) + "\n"
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "models.md").write_text(text)
    picture(results, options.out / "models.png")


if __name__ == "__main__":
    main()
