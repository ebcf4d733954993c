"""Peak memory of a training step of convolution - norm - leaky ReLU: plain, fused, in place.

Run it from the repository: python examples/uses/memory.py [FOLDER]
"""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import instnorm
from instnorm import nn

WAYS = ("plain", "fused", "in place")
CHANNELS, SIZE = 16, 96


def block(way):
    convolution = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
    if way == "plain":
        return [convolution, nn.InstanceNorm2d(CHANNELS, affine=True), nn.LeakyReLU(0.01)]
    norm = nn.InstanceNorm2d(
        CHANNELS, affine=True, activation="leaky_relu", inplace=way == "in place"
    )
    return [convolution, norm]


def peak(way, depth):
    """MiB that NumPy's arrays take at most in a training step, beyond the net."""
    instnorm.manual_seed(0)
    net = nn.Sequential(*(layer for _ in range(depth) for layer in block(way)))
    x = np.random.default_rng(0).random((2, CHANNELS, SIZE, SIZE), np.float32)
    tracemalloc.start()
    loss = (net(x) ** 2).mean()
    loss.backward()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20, loss.item()


instnorm.set_cache_limit(0)  # recycled memory is not traced
depths = [1, 2, 4, 6, 8, 10]
peaks = {way: [peak(way, depth)[0] for depth in depths] for way in WAYS}
for way in WAYS:
    share = peaks[way][-1] / peaks["plain"][-1]
    print(f"ten blocks, {way + ':':9} {peaks[way][-1]:6.1f} MiB, {share:.2f} of plain")

figure = Figure(figsize=(5, 3), layout="constrained")
axes = figure.subplots()
for way in WAYS:
    axes.plot(depths, peaks[way], "o-", label=way)
axes.set_xlabel("blocks")
axes.set_ylabel("MiB, peak of a training step")
axes.legend(frameon=False)
figure.savefig(Path(*sys.argv[1:2]) / "memory.png", dpi=90)
