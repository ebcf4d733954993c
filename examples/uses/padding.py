"""Series of different lengths, padded to one: a mask keeps the padding out of the statistics.

Run it from the repository: python examples/uses/padding.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import instnorm

LENGTHS = np.array([60, 110, 200])

rng = np.random.default_rng(0)
time = np.arange(LENGTHS.max())
mask = time < LENGTHS[:, None]
series = 5 + np.sin(time / 9 + rng.uniform(0, 6, (3, 1))) + 0.2 * rng.standard_normal(mask.shape)
padded = np.where(mask, series, 0)[:, None]

plain = instnorm.instance_norm(padded)
masked = instnorm.instance_norm(padded, mask=mask)
for i, length in enumerate(LENGTHS):
    alone = instnorm.instance_norm(padded[i : i + 1, :, :length])
    same = np.array_equal(masked[i : i + 1, :, :length], alone)
    print(
        f"{length:3} of 200: standard deviation {plain[i, 0, :length].std():.2f} without the mask, "
        f"{masked[i, 0, :length].std():.2f} with it; the bits of the series alone: {same}"
    )

figure = Figure(figsize=(9, 2.8), layout="constrained")
for axes, (title, y) in zip(
    figure.subplots(1, 2, sharey=True),
    {"without a mask": plain, "with a mask": masked}.items(),
    strict=True,
):
    axes.plot(time, y[:, 0].T, linewidth=1)
    axes.set_title(title)
    axes.set_xlabel("time")
figure.savefig(Path(*sys.argv[1:2]) / "padding.png", dpi=90)
