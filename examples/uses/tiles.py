"""A photograph that is normalized in tiles, by each tile's statistics and by those of the whole.

Run it from the repository: python examples/uses/tiles.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

import instnorm

SIZE = 107

photograph = load_sample_image("china.jpg").transpose(2, 0, 1)[None].astype(np.float32)
height, width = photograph.shape[2:]
places = [
    (slice(top, top + SIZE), slice(left, left + SIZE))
    for top in range(0, height, SIZE)
    for left in range(0, width, SIZE)
]

statistics = instnorm.Statistics()
for rows, columns in places:
    statistics.update(photograph[:, :, rows, columns])


def in_tiles(**options):
    result = np.empty_like(photograph)
    for rows, columns in places:
        tile = photograph[:, :, rows, columns]
        result[:, :, rows, columns] = instnorm.instance_norm(tile, **options)
    return result


whole = instnorm.instance_norm(photograph)
apart = in_tiles()
seamless = in_tiles(mean=statistics.mean, var=statistics.var)
print(f"largest difference from the whole, tile by tile:  {np.abs(apart - whole).max():.1e}")
print(f"largest difference from the whole, by Statistics: {np.abs(seamless - whole).max():.1e}")

figure = Figure(figsize=(12, 2.9), layout="constrained")
panels = {"photograph": photograph, "tile by tile": apart, "by Statistics": seamless}
for axes, (title, image) in zip(figure.subplots(1, 3), panels.items(), strict=True):
    low, high = np.percentile(image, [1, 99])
    axes.imshow(np.clip((image[0].transpose(1, 2, 0) - low) / (high - low), 0, 1))
    axes.set_title(title)
    axes.set_axis_off()
figure.savefig(Path(*sys.argv[1:2]) / "tiles.png", dpi=90)
