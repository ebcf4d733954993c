"""What follows a norm in the same pass, beside the plain norm: a table for each SIMD level."""

import argparse
import math
import os
import platform

from benchmarks import uses
from benchmarks.common import LAYOUTS, set_threads
from benchmarks.interleaved import medians, seconds_per_call
from benchmarks.worker import Worker

from instnorm._runtime import simd


class Level:
    """Measures at the SIMD level that its process was started with."""

    def __init__(self, threads, rounds):
        set_threads(threads)
        self._rounds = rounds

    def ratios(self, shape, layout, task):
        found = uses.variants(shape, layout)
        functions = {name: getattr(passes, task) for name, passes in found.items()}
        seconds = medians(seconds_per_call(functions, self._rounds))
        return {name: value / seconds["plain"] for name, value in seconds.items()}


def main():
    parser = argparse.ArgumentParser(prog="python -m comparisons.uses", description=__doc__)
    parser.add_argument("--simd", nargs="+", choices=[*simd.available()], default=None)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(
        f"Times the plain norm's time, float32, {options.threads} threads, {platform.processor()}"
    )
    for level in options.simd or [*simd.available()]:
        worker = Worker(
            Level, options.threads, options.rounds, environment={"INSTNORM_SIMD": level}
        )
        worker.ready()
        for layout in LAYOUTS:
            for task in ("forward", "both"):
                rows = {
                    name: worker.ask("ratios", shape, layout, task)
                    for name, shape in uses.SHAPES.items()
                }
                print_table(f"{level}, {layout}, {task}", rows)
        worker.close()


def print_table(title, rows):
    columns = [name for name in next(iter(rows.values())) if name != "plain"]
    print(f"\n{title:34}", *(f"{name:>14}" for name in columns))
    for name, ratios in rows.items():
        print(f"{name:34}", *(f"{ratios[column]:14.2f}" for column in columns))
    means = [math.prod(r[c] for r in rows.values()) ** (1 / len(rows)) for c in columns]
    print(f"{'geometric mean':34}", *(f"{mean:14.2f}" for mean in means), flush=True)


if __name__ == "__main__":
    main()
