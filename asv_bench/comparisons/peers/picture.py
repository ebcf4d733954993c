"""The results as a picture: bars on a logarithmic scale, the floor as a line."""

from matplotlib.figure import Figure

from .run import LABELS
from .table import floor_of, ratio, shape_name

# instnorm stands out; peers of one family have one hue.
COLOURS = {
    "instnorm-avx512": "#780000",
    "instnorm-avx2": "#c1121f",
    "instnorm-baseline": "#e5564f",
    "instnorm-layer": "#f7b2a9",
    "torch-instance_norm": "#14375e",
    "torch-group_norm": "#3f7cac",
    "torch-compile": "#95bcd9",
    "jax": "#5f4b8b",
    "onnxruntime": "#6f7d7d",
    "openvino": "#2f3e46",
    "numpy": "#d9ae3c",
    "numba": "#4f8a5b",
}


def save(results, dtype, path):
    """Draw a panel for each pass and layout that was measured in the dtype."""
    measured = [m for m in results.find(dtype=dtype) if m.peer in COLOURS]
    panels = sorted(
        dict.fromkeys((m.direction, m.layout) for m in measured),
        key=lambda panel: (panel[1] != "contiguous", panel[0] != "forward"),
    )
    names = [n for n in COLOURS if any(m.peer == n for m in measured)]
    figure = Figure(figsize=(13, 1.1 + 2.9 * len(panels)), layout="constrained", dpi=110)
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axis, (direction, layout) in zip(axes, panels, strict=True):
        chosen = [m for m in measured if (m.direction, m.layout) == (direction, layout)]
        _draw(axis, results, chosen, names)
        axis.set_title(f"{direction}, {layout}", loc="left", fontsize=11, fontweight="bold")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    threads = results.settings["threads"]
    figure.supylabel(
        f"time, as a multiple of the floor's ({dtype}, {threads} threads)", fontsize=11
    )
    figure.savefig(path)


def _draw(axis, results, measured, names):
    shapes = list(dict.fromkeys(m.shape for m in measured))
    width = 0.86 / len(names)
    for index, name in enumerate(names):
        bars = [m for m in measured if m.peer == name]
        floors = [floor_of(results, m).seconds for m in bars]
        ratios = [ratio(results, m) for m in bars]
        offset = (index - (len(names) - 1) / 2) * width
        axis.bar(
            [shapes.index(m.shape) + offset for m in bars],
            ratios,
            width,
            yerr=[
                [(m.seconds - m.low) / f for m, f in zip(bars, floors, strict=True)],
                [(m.high - m.seconds) / f for m, f in zip(bars, floors, strict=True)],
            ],
            error_kw={"elinewidth": 0.7, "ecolor": "#333333"},
            color=COLOURS[name],
            hatch=["xxx" if m.wrong else "" for m in bars],
            edgecolor="white",
            linewidth=0,
            label=LABELS[name],
        )
    axis.axhline(1, color="black", linewidth=1.4, label="floor: the traffic that nobody can avoid")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_axisbelow(True)
    axis.grid(axis="y", color="#dddddd", linewidth=0.7)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0)
    axis.set_xlim(-0.55, len(shapes) - 0.45)
    floors = {m.shape: floor_of(results, m).seconds for m in measured}
    axis.set_xticks(
        range(len(shapes)), [f"{shape_name(s)}\nfloor {_short(floors[s])}" for s in shapes]
    )


def _short(seconds):
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.3g} µs"
