"""A style net in PyTorch over a photograph in tiles, with seams, and without by `Statistics`.

The net first learns to paint one photograph in the style of another, which is what random filters
see there on average (Ustyuzhaninov et al. 2016).

Run it from the repository: python examples/uses/torch_tiles.py [FOLDER]
Needs PyTorch: pip install instnorm[torch]
"""

import contextlib
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import nn
from torch.nn import functional as F

from instnorm.bridge.torch import collect_statistics, convert, converted, fixed_statistics

STEPS = 200
CROP = 96
TILE = 128
MARGIN = 16  # a tile is painted with what its convolutions see around it


def photograph(name):
    return torch.tensor(load_sample_image(name)[:384]).permute(2, 0, 1)[None] / 255


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def block(channels, to, stride=1):
    conv = nn.Conv2d(channels, to, 3, stride, padding=1, padding_mode="reflect")
    return conv, nn.InstanceNorm2d(to, affine=True), nn.ReLU()


torch.manual_seed(0)
net = nn.Sequential(
    *block(3, 16),
    *block(16, 32, stride=2),
    *(Residual(*block(32, 32), *block(32, 32)) for _ in range(2)),
    nn.Upsample(scale_factor=2),
    *block(32, 16),
    nn.Conv2d(16, 3, 3, padding=1, padding_mode="reflect"),
    nn.Sigmoid(),
)
convert(net, fuse_activation=True)

# --- the style ------------------------------------------------------------------------------

filters = [torch.randn(32, 3, 5, 5) / 8 for _ in range(3)]


def seen(image):
    """How random filters at three scales go together on average, wherever in the image."""
    for scale, weight in zip((2, 4, 8), filters, strict=True):
        features = F.relu(F.conv2d(F.avg_pool2d(image, scale) - 0.5, weight)).flatten(2)
        yield features @ features.mT / features.shape[2]


def grey(image):
    return F.avg_pool2d(image, 2).mean(1)


photo, style = photograph("china.jpg"), list(seen(photograph("flower.jpg")))
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
for _ in range(STEPS):
    top, left = (int(torch.randint(n - CROP, ())) for n in photo.shape[2:])
    crop = photo[..., top : top + CROP, left : left + CROP]
    painted = net(crop)
    loss = 10 * F.mse_loss(grey(painted), grey(crop))
    for now, then in zip(seen(painted), style, strict=True):
        loss = loss + F.mse_loss(now, then) / then.square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()

# --- the photograph, in tiles ---------------------------------------------------------------

height, width = photo.shape[2:]
corners = [(top, left) for top in range(0, height, TILE) for left in range(0, width, TILE)]


def in_tiles():
    """What the net makes of each tile with its margins, put together without them."""
    result = torch.empty_like(photo)
    for top, left in corners:
        above, before = max(top - MARGIN, 0), max(left - MARGIN, 0)
        tile = photo[..., above : top + TILE + MARGIN, before : left + TILE + MARGIN]
        inner = slice(top - above, top - above + TILE), slice(left - before, left - before + TILE)
        result[..., top : top + TILE, left : left + TILE] = net(tile)[(..., *inner)]
    return result


with torch.inference_mode():
    whole = net(photo)
    apart = in_tiles()
    statistics = None
    for _ in converted(net):  # each round makes one more norm exact
        fixed = fixed_statistics(net, statistics) if statistics else contextlib.nullcontext()
        with fixed, collect_statistics(net) as collected:
            for top, left in corners:
                net(photo[..., top : top + TILE, left : left + TILE])
        statistics = collected
    with fixed_statistics(net, statistics):
        seamless = in_tiles()

for name, image in {"tile by tile": apart, "by the statistics of the whole": seamless}.items():
    off = (image - whole).abs()
    print(f"{name}: {off.mean():.1e} off on average, {off.max():.1e} at most")

figure = Figure(figsize=(12, 2.7), layout="constrained")
panels = {"photograph": photo, "tile by tile": apart, "by collected statistics": seamless}
for axes, (title, image) in zip(figure.subplots(1, 3), panels.items(), strict=True):
    axes.imshow(image[0].permute(1, 2, 0).numpy())
    axes.set_title(title)
    axes.set_axis_off()
figure.savefig(Path(*sys.argv[1:2]) / "torch_tiles.png", dpi=90)
