"""Pictures of results, drawn by matplotlib through its object interface.

Nothing here touches matplotlib's global state or needs a display.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from instnorm._layouts import Array
from instnorm.demo.task import Learner

DPI = 150

# Colours that colour-blind people can tell apart (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00")
WRONG = "#d55e00"
HEADING = 1.3  # width of a row heading, in images
RIGHT = "#404040"


def as_png(figure: Figure) -> bytes:
    """Make the content of a PNG file."""
    png = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(png, format="png", dpi=DPI)
    return png.getvalue()


def curves(
    learners: list[Learner],
    panels: Mapping[str, str],
    measure_label: str,
    measure_scale: float = 1,
) -> Figure:
    """Draw what each epoch ended with: the loss, and a panel for each measure.

    Parameters
    ----------
    learners : list of Learner
        One curve each.
    panels : mapping from str to str
        From a measure's name in the history to the panel's title.
    measure_label : str
        Of the vertical axes.
    measure_scale : float, default 1
        What to multiply the measures by.
    """
    figure = Figure(figsize=(4 * (1 + len(panels)), 3.4), layout="constrained")
    loss_axes, *measure_axes = np.atleast_1d(figure.subplots(1, 1 + len(panels)))
    _draw_curves(loss_axes, learners, "loss", 1)
    loss_axes.set(title="training loss", yscale="log")
    for axes, (name, title) in zip(measure_axes, panels.items(), strict=True):
        _draw_curves(axes, learners, name, measure_scale)
        axes.set(title=title, ylabel=measure_label)
    for axes in measure_axes[1:]:
        axes.sharey(measure_axes[0])
    loss_axes.legend(frameon=False)
    return figure


def _draw_curves(axes: Axes, learners: list[Learner], name: str, scale: float) -> None:
    for learner, colour in zip(learners, COLOURS, strict=True):
        values = np.array(learner.history[name]) * scale
        epochs = np.arange(1, len(values) + 1)
        axes.plot(epochs, values, color=colour, marker=".", label=learner.name)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def predictions(
    sets: Mapping[str, Array],
    predicted: Mapping[str, Mapping[str, Array]],
    labels: Array,
) -> Figure:
    """Draw images with their true and predicted classes.

    Parameters
    ----------
    sets : mapping from str to ndarray of shape (N, 1, H, W)
        A row of images for each.
    predicted : mapping from str to mapping from str to ndarray of shape (N,)
        Predicted classes, by learner and by set.
    labels : ndarray of shape (N,)
    """
    count = len(labels)
    figsize = (0.95 * (count + HEADING), 2.0 * len(sets) + 0.4)
    figure = Figure(figsize=figsize, layout="constrained")
    widths = [HEADING] + [1.0] * count
    grid = figure.subplots(len(sets), count + 1, squeeze=False, width_ratios=widths)
    ink = {"cmap": "gray_r", "interpolation": "nearest"}
    for row, (kind, images) in zip(grid, sets.items(), strict=True):
        heading, *cells = row
        _draw_row_heading(heading, kind, list(predicted))
        for i, axes in enumerate(cells):
            axes.imshow(images[i, 0], vmin=images.min(), vmax=images.max(), **ink)
            axes.set(xticks=[], yticks=[], title=f"{labels[i]}")
            for line, by_set in enumerate(predicted.values()):
                guess = by_set[kind][i]
                _write_below(axes, line, f"{guess}", RIGHT if guess == labels[i] else WRONG)
    return figure


def _draw_row_heading(axes: Axes, kind: str, names: list[str]) -> None:
    axes.set_axis_off()
    # As high as an image, so that the lines of text stand side by side.
    axes.set_box_aspect(1 / HEADING)
    axes.set_title("true", loc="right")
    axes.text(1, 0.5, kind, ha="right", va="center", weight="bold", transform=axes.transAxes)
    for line, name in enumerate(names):
        _write_below(axes, line, name, RIGHT, x=1.0, ha="right")


def _write_below(
    axes: Axes, line: int, text: str, colour: str, x: float = 0.5, **style: Any
) -> None:
    axes.annotate(
        text,
        (x, 0),
        xycoords="axes fraction",
        xytext=(0, -6 - 15 * line),
        textcoords="offset points",
        **{"ha": "center", "va": "top", "color": colour, **style},
        weight="bold" if colour == WRONG else "normal",
    )


def before_and_after(
    columns: Mapping[str, Array], quality: Mapping[str, Array], targets: Array
) -> Figure:
    """Draw images in rows: each way that they were treated, then the target.

    Parameters
    ----------
    columns : mapping from str to ndarray of shape (N, 3, H, W)
        Images on the scale from 0 to 1; what is beyond is cut off.
    quality : mapping from str to ndarray of shape (N,)
        Their PSNR.
    targets : ndarray of shape (N, 3, H, W)
    """
    rows = len(targets)
    figure = Figure(figsize=(2 * (len(columns) + 1), 2.25 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, len(columns) + 1, squeeze=False)
    for j, (name, images) in enumerate([*columns.items(), ("target", targets)]):
        grid[0, j].set_title(name)
        for i, axes in enumerate(grid[:, j]):
            axes.imshow(np.clip(images[i], 0, 1).transpose(1, 2, 0))
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(f"{quality[name][i]:.1f} dB" if name in quality else "")
    return figure
