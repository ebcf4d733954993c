"""The table, in Markdown, and the picture."""

import math

COLOURS = {"PyTorch": "#b0b0b0", "torch.compile": "#707070", "instnorm": "#2a7fb8"}


def table(results):
    libraries = list(results[0].milliseconds)
    rows = [
        [
            *("net", "batch", *(f"{name}, ms" for name in libraries), "ours / eager"),
            *(*(f"{name}, MiB" for name in libraries), "difference", "of PyTorch", "smooth"),
        ]
    ]
    rows.append(["---"] + ["---:"] * (len(rows[0]) - 1))
    for r in results:
        rows.append(
            [
                *(r.net, str(r.batch_size)),
                *(f"{r.milliseconds[name]:.2f}" for name in libraries),
                f"{r.ratio:.2f}",
                *(f"{r.peak[name]:.0f}" for name in libraries),
                *(f"{value:.0e}" for value in (r.difference, r.rounding, r.smooth)),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def summary(results):
    ratios = [r.ratio for r in results]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"ours / eager: geometric mean {mean:.2f}, from {min(ratios):.2f} to {max(ratios):.2f}"


def picture(results, path):
    from matplotlib.figure import Figure

    nets = list(dict.fromkeys(r.net for r in results))
    figure = Figure(figsize=(2.2 * len(nets) + 0.6, 3.2), layout="constrained")
    all_axes = figure.subplots(1, len(nets), squeeze=False)[0]
    for axes, net in zip(all_axes, nets, strict=True):
        chosen = [r for r in results if r.net == net]
        for name in chosen[0].milliseconds:
            axes.plot(
                [r.batch_size for r in chosen],
                [r.milliseconds[name] for r in chosen],
                *("o-",),
                label=name,
                color=COLOURS[name],
            )
        axes.set(title=net, xscale="log", yscale="log", xlabel="batch size")
        axes.set_xticks(sizes := [r.batch_size for r in chosen], [str(size) for size in sizes])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("milliseconds a step")
    all_axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)
