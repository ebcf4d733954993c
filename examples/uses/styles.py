"""Four tints, each a class of one conditional instance norm, and mixtures of them.

A net of two pointwise convolutions learns to give a photograph the tint that its label asks for:
all it has to tell the tints apart is the norm's scale and shift for each class.

Run it from the repository: python examples/uses/styles.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

import instnorm
from instnorm import nn

TINTS = {
    "plain": np.eye(3),
    "sepia": np.array([[0.39, 0.77, 0.19], [0.35, 0.69, 0.17], [0.27, 0.53, 0.13]]),
    "night": np.array([[0.1, 0.1, 0.1], [0.1, 0.3, 0.1], [0.3, 0.3, 0.6]]),
    "negative": -np.eye(3),
}


class Tinter(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 24, 1)
        self.norm = nn.ConditionalInstanceNorm2d(24, len(TINTS))
        self.leave = nn.Conv2d(24, 3, 1)

    def forward(self, x, label):
        return self.leave(instnorm.functional.relu(self.norm(self.enter(x), label)))


instnorm.manual_seed(0)
photograph = load_sample_image("flower.jpg").transpose(2, 0, 1)[None].astype(np.float32) / 255
small = np.ascontiguousarray(photograph[:, :, ::8, ::8])
targets = np.stack([np.tensordot(m, small[0], 1) + (m.sum() < 0) for m in TINTS.values()])

net = Tinter()
optimizer = instnorm.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
label = np.arange(len(TINTS))
batch = np.repeat(small, len(TINTS), axis=0)
for step in range(401):
    optimizer.zero_grad()
    loss = instnorm.functional.mse_loss(net(batch, label), targets.astype(np.float32))
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step:3}: mean squared error {loss.item():.4f}")

shares = [*np.eye(4).tolist(), [0, 0.5, 0.5, 0], [0.5, 0, 0, 0.5]]
titles = [*TINTS, "sepia + night", "plain + negative"]
figure = Figure(figsize=(12, 1.9), layout="constrained")
with instnorm.no_grad():
    images = net(np.repeat(photograph[:, :, ::2, ::2], 6, axis=0), np.array(shares, np.float32))
for axes, title, image in zip(figure.subplots(1, 6), titles, images.numpy(), strict=True):
    axes.imshow(np.clip(image.transpose(1, 2, 0), 0, 1))
    axes.set_title(title)
    axes.set_axis_off()
figure.savefig(Path(*sys.argv[1:2]) / "styles.png", dpi=90)
