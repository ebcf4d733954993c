"""Train toy nets here and in PyTorch, print the table and save it with the picture."""

import argparse
import os
from pathlib import Path

from .job import LIBRARIES
from .measure import measure
from .nets import TOYS
from .report import picture, summary, table

HEAD = """\
A training step with SGD and momentum, {dtype}, {threads} threads: the least of interleaved rounds,
by {clock} time; load {load:.1f} before the run. Peak: memory that {steps} steps take beyond the net
at rest. Difference: the largest of the losses of {steps} steps, relative to PyTorch's. Of PyTorch:
its own losses beside those of its float64. Smooth: difference, of the net with SiLU and averages in
place of ReLU and maxima, whose gradients jump where rounding takes an element across a kink.
"""


def main():
    parser = argparse.ArgumentParser(prog="python -m comparisons.toys", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--net", choices=TOYS, action="append", help="all by default")
    parser.add_argument("--batch-size", type=int, action="append", help="by default 1, 8, 32, 128")
    parser.add_argument("--seconds", type=float, default=3, help="per net and batch size")
    parser.add_argument("--steps", type=int, default=50, help="whose losses are compared")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well")
    options = parser.parse_args()

    head = HEAD.format(load=os.getloadavg()[0], **vars(options))
    libraries = [name for name in LIBRARIES if options.compile or name != "torch.compile"]
    results = []
    for net in options.net or TOYS:
        for batch_size in options.batch_size or (1, 8, 32, 128):
            results += measure(net, batch_size, libraries, options)
            print(table(results[-1:]).splitlines()[-1], flush=True)
    text = f"{head}\n{table(results)}\n\n{summary(results)}\n"
    print("\n" + text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "toys.md").write_text(text)
    picture(results, options.out / "toys.png")


if __name__ == "__main__":
    main()
