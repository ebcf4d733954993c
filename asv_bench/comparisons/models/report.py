"""The table, in Markdown, and the picture."""

import math

from .measure import TASKS

COLUMNS = [
    *("net", "task", "norm", "layout", "ms", "of limit", "peak MiB"),
    *("error", "error, contiguous"),
]
NAMES = {"Identity": "none: the limit"}
COLOURS = {
    "PyTorch": "#b0b0b0",
    "instnorm": "#2a7fb8",
    "fused": "#4fae62",
    "in place": "#e0913a",
}


def limits(results):
    """Seconds of each net and task without its norms."""
    return {(r.net, r.task): r.seconds for r in results if r.variant.norm == "Identity"}


def table(results):
    limit = limits(results)
    rows = [COLUMNS, ["---"] * 4 + ["---:"] * 5]
    for r in results:
        rows.append(
            [
                *(
                    r.net,
                    r.task,
                    "none: the limit" if r.variant.norm == "Identity" else r.variant.norm,
                ),
                "channels-last" if r.variant.channels_last else "contiguous",
                f"{r.seconds * 1e3:.0f}",
                f"{r.seconds / limit[r.net, r.task]:.2f}",
                f"{r.peak:.0f}",
                *("" if math.isnan(e) else f"{e:.0e}" for e in (r.error, r.contiguous_error)),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def picture(results, path):
    from matplotlib.figure import Figure

    limit = limits(results)
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, 2, sharey=True), TASKS, strict=True):
        nets = list(dict.fromkeys(r.net for r in results))
        for place, norm in enumerate(COLOURS):
            offset = 0.2 * (place - 1.5)
            ratios = [
                next(
                    r.seconds / limit[net, task]
                    for r in results
                    if (r.net, r.task, r.variant.norm) == (net, task, norm)
                )
                for net in nets
            ]
            places = [n + offset for n in range(len(nets))]
            bars = axes.bar(places, ratios, 0.19, label=norm, color=COLOURS[norm])
            axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=5)
        axes.axhline(1, color="black", linewidth=1)
        axes.set_xticks(range(len(nets)), nets)
        axes.set_title({"inference": "inference", "training": "training step"}[task])
        axes.spines[["top", "right"]].set_visible(False)
    axes = figure.axes[0]
    axes.set_ylabel("time / time without norms")
    axes.legend(frameon=False, loc="upper left", ncols=2)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
    figure.savefig(path, dpi=150)
