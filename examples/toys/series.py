"""A classifier of series whose amplitude is not what it was in training.

Five shapes of waves, with random phase, frequency and noise. The net is trained at amplitudes
around 1, with and without InstanceNorm1d, and tested from a twentieth to twenty times that.

Run it from the repository: python examples/toys/series.py [--epochs N] [FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import instnorm
import instnorm.functional as F
from instnorm import nn, optim
from instnorm.utils.data import DataLoader, TensorDataset

SHAPES = ["sine", "square", "sawtooth", "triangle", "pulses"]
LENGTH = 128
AMPLITUDES = np.geomspace(0.05, 20, 9)


def waves(count, amplitudes, rng):
    """Return series (count, 1, LENGTH) and the numbers of their shapes."""
    shapes = rng.integers(len(SHAPES), size=count)
    frequency, start = rng.uniform(2, 6, (count, 1)), rng.uniform(0, 1, (count, 1))
    phase = (np.linspace(0, 1, LENGTH) * frequency + start) % 1
    forms = np.stack(
        [
            np.sin(2 * np.pi * phase),
            np.sign(phase - 0.5),
            2 * phase - 1,
            4 * np.abs(phase - 0.5) - 1,
            2.0 * (phase < 0.15) - 0.3,
        ]
    )
    series = forms[shapes, np.arange(count)] + 0.3 * rng.standard_normal((count, LENGTH))
    series *= np.broadcast_to(amplitudes, count)[:, None]
    return series[:, None].astype(np.float32), shapes


def classifier(norm):
    """Return a net of three convolutions; `norm` makes what follows the first two.

    Not the third: the mean over a series, which is taken next, tells little of normalized ones.
    """
    return nn.Sequential(
        nn.Conv1d(1, 16, 7, padding="same"),
        norm(16),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(16, 32, 5, padding="same"),
        norm(32),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(32, 32, 3, padding="same"),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(32, len(SHAPES)),
    )


def train(net, loader, epochs):
    """Train the net; return the mean loss of each epoch."""
    optimizer = optim.Adam(net.parameters(), lr=3e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    history = []
    for _ in range(epochs):
        losses = []
        for series, shapes in loader:
            loss = F.cross_entropy(net(series), shapes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        history.append(np.mean(losses))
    return history


@instnorm.no_grad()
def accuracy(net, series, shapes):
    """Return the share of series whose shape the net finds."""
    net.eval()
    return (net(instnorm.from_numpy(series)).argmax(1) == shapes).float().mean().item()


def draw(tests, accuracies, path):
    """Draw a wave of each shape, and the accuracy over the amplitude."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    series, shapes = tests[len(AMPLITUDES) // 2]
    for number in range(len(SHAPES)):
        wave = series[np.argmax(shapes == number), 0]
        left.plot(wave / np.abs(wave).max() - 2.4 * number, linewidth=1)
    left.set_yticks([-2.4 * number for number in range(len(SHAPES))], SHAPES)
    left.set_xlabel("time")
    for name, values in accuracies.items():
        right.semilogx(AMPLITUDES, [100 * value for value in values], "o-", label=name)
    right.axvspan(0.5, 2, color="0.9", label="in training")
    right.set(xlabel="amplitude", ylabel="accuracy, %", ylim=(0, 102))
    right.legend(loc="lower right")
    figure.savefig(path, dpi=90)


def main():
    """Train both nets, print the table, and save the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    series, shapes = waves(2000, np.exp(rng.uniform(np.log(0.5), np.log(2), 2000)), rng)
    tests = [waves(500, amplitude, rng) for amplitude in AMPLITUDES]
    norms = {
        "InstanceNorm1d": lambda channels: nn.InstanceNorm1d(channels, affine=True),
        "without a norm": nn.Identity,
    }
    accuracies = {}
    for name, norm in norms.items():
        instnorm.manual_seed(0)
        net = classifier(norm)
        data = TensorDataset(series, shapes)
        history = train(net, DataLoader(data, batch_size=50, shuffle=True), arguments.epochs)
        accuracies[name] = [accuracy(net, *test) for test in tests]
        print(f"{name}: loss {history[0]:.3f} to {history[-1]:.3f}")

    print("\namplitude     " + "".join(f"{amplitude:7.3g}" for amplitude in AMPLITUDES))
    for name, values in accuracies.items():
        print(f"{name:14}" + "".join(f"{100 * value:6.1f}%" for value in values))
    draw(tests, accuracies, arguments.folder / "toys-series.png")


if __name__ == "__main__":
    main()
