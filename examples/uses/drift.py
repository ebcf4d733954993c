"""A series whose level and scale drift: a small forecaster with RevIN and without.

Run it from the repository: python examples/uses/drift.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import instnorm
from instnorm import nn

PAST, FUTURE, TRAINED = 64, 16, 1200

rng = np.random.default_rng(0)
time = np.arange(2400)
level, scale = 0.004 * time, 1 + time / 600
series = level + scale * (np.sin(time / 8) + 0.1 * rng.standard_normal(len(time)))
windows = np.lib.stride_tricks.sliding_window_view(series, PAST + FUTURE).astype(np.float32)
windows = windows[:, :, None]  # (N, L, C)


class Forecaster(nn.Module):
    def __init__(self, reversible):
        super().__init__()
        self.norm = nn.RevIN(1) if reversible else None
        self.net = nn.Sequential(nn.Linear(PAST, 32), nn.Tanh(), nn.Linear(32, FUTURE))

    def forward(self, past):
        if self.norm is not None:
            past = self.norm(past, "norm")
        future = self.net(past.transpose(1, 2)).transpose(1, 2)
        return future if self.norm is None else self.norm(future, "denorm")


def trained(reversible):
    instnorm.manual_seed(0)
    net = Forecaster(reversible)
    optimizer = instnorm.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    order = np.random.default_rng(1)
    for _ in range(600):
        batch = windows[order.integers(0, TRAINED, 64)]
        optimizer.zero_grad()
        past = instnorm.tensor(batch[:, :PAST])
        loss = instnorm.functional.mse_loss(net(past), batch[:, PAST:])
        loss.backward()
        optimizer.step()
    return net


later = windows[TRAINED + 400 :: FUTURE]
figure = Figure(figsize=(10, 2.8), layout="constrained")
axes = figure.subplots()
axes.plot(time, series, color="#b0b0b0", linewidth=0.8, label="series")
for reversible, colour in ((False, "#c44e52"), (True, "#2a7fb8")):
    net = trained(reversible)
    with instnorm.no_grad():
        forecast = net(instnorm.tensor(np.ascontiguousarray(later[:, :PAST]))).numpy()
    name = "with RevIN" if reversible else "without"
    error = np.sqrt(np.mean((forecast - later[:, PAST:]) ** 2))
    print(f"{name + ':':11} root mean squared error {error:.2f} after the drift")
    start = TRAINED + 400 + PAST
    axes.plot(start + np.arange(forecast.size), forecast.ravel(), colour, linewidth=0.8, label=name)
axes.axvline(TRAINED, color="black", linewidth=0.8, linestyle=":")
axes.set_xlabel("time; trained before the dotted line")
axes.legend(frameon=False, ncols=3)
figure.savefig(Path(*sys.argv[1:2]) / "drift.png", dpi=90)
