"""The results as text: a table of times relative to the copy, and the figures to aim at."""

from statistics import geometric_mean

from .run import LABELS

MEBIBYTE = 2**20


def shape_name(shape):
    return f"({','.join(map(str, shape))})"


def time_name(seconds):
    """Three digits and a unit."""
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def copy_of(results, measurement):
    (copy,) = results.find(
        peer="copy",
        shape=measurement.shape,
        dtype=measurement.dtype,
        direction=measurement.direction,
    )
    return copy


def ratio(results, measurement):
    return measurement.seconds / copy_of(results, measurement).seconds


# --- the table --------------------------------------------------------------------


def table(results):
    """One row for each shape, pass, layout and dtype; one column for each peer."""
    names = [n for n in LABELS if n != "copy" and results.find(peer=n)]
    heads = [LABELS[n].rpartition(" ") for n in names]
    rows = [
        ["", "", "", "", "", *(first for first, _, _ in heads), ""],
        ["shape", "pass", "layout", "dtype", "copy", *(last for _, _, last in heads), "spread"],
    ]
    for key in dict.fromkeys(_row_key(m) for m in results.measurements if m.peer != "copy"):
        shape, direction, layout, dtype = key
        found = {m.peer: m for m in results.measurements if _row_key(m) == key}
        copy = copy_of(results, next(iter(found.values())))
        cells = [_cell(results, found.get(name)) for name in names]
        percent = f"{max(m.spread for m in found.values()):.0%}"
        rows.append(
            [shape_name(shape), direction, layout, dtype, time_name(copy.seconds), *cells, percent]
        )
    return "\n".join(_aligned(rows, left=4))


def _row_key(m):
    return m.shape, m.direction, m.layout, m.dtype


def _cell(results, measurement):
    if measurement is None:
        return "-"
    value = ratio(results, measurement)
    text = f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
    return text + "!" * measurement.wrong


def _aligned(rows, left):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def notes(results):
    """What the table's marks mean, which results are wrong, and what was left out."""
    yield "Times are multiples of the copy's; spread: the row's largest half interquartile range."
    for m in results.measurements:
        if m.wrong:
            yield (
                f"! wrong: {m.peer}, {shape_name(m.shape)} {m.direction}, {m.layout}, {m.dtype}: "
                f"off by {m.error:.1e} of the largest element"
            )
    for peer, why in dict.fromkeys((left["peer"], left["why"]) for left in results.left_out):
        yield f"- left out: {peer}: {why}"


# --- the figures to aim at ----------------------------------------------------------


def summary(results):
    """Lines of text: instnorm against the copy, and against each of the others."""
    for layout, dtype in dict.fromkeys((m.layout, m.dtype) for m in results.find(peer="instnorm")):
        yield f"instnorm, {layout}, {dtype}:"
        chosen = {"layout": layout, "dtype": dtype}
        yield from _against_copy(results, chosen)
        yield from _against_torch(results, chosen)
        yield from _lost(results, chosen)
    yield from _smallest(results)
    yield from _between_kinds(results)


def _against_copy(results, chosen):
    for direction, goal in (("forward", 1.25), ("forward+backward", 2.8)):
        ratios = {
            m.shape: ratio(results, m)
            for m in results.find(peer="instnorm", direction=direction, **chosen)
            if m.nbytes >= MEBIBYTE
        }
        if ratios:
            yield (
                f"  {direction} / copy, inputs of 1 MiB and more: "
                f"{_mean_and_worst(ratios, max)} (goal {goal})"
            )
        over = _ratios(
            results,
            {"peer": "instnorm", "direction": direction, **chosen},
            {"peer": "torch-copy", "direction": direction, **chosen},
            least_mebibytes=1,
        )
        if over:
            yield f"  {direction} / PyTorch's copy, the same: {_mean_and_worst(over, max)}"


def _against_torch(results, chosen):
    goals = {"torch-instance_norm": 6, "torch-group_norm": 6, "torch-compile": 3}
    for peer, goal in goals.items():
        ratios = _ratios(
            results,
            {"peer": peer, "direction": "forward+backward", **chosen},
            {"peer": "instnorm", "direction": "forward+backward", **chosen},
        )
        if ratios:
            yield (
                f"  {LABELS[peer]} / instnorm, forward+backward: "
                f"{_mean_and_worst(ratios, min)} (goal {goal})"
            )


def _lost(results, chosen):
    lost = {}
    for ours in results.find(peer="instnorm", **chosen):
        for m in results.find(shape=ours.shape, direction=ours.direction, **chosen):
            rival = not m.wrong and not m.peer.startswith(("instnorm", "torch-copy"))
            if rival and m.seconds < ours.seconds:
                key = f"{shape_name(ours.shape)} {ours.direction}"
                lost.setdefault(key, []).append(f"{LABELS[m.peer]} {m.seconds / ours.seconds:.2f}")
    yield f"  cases in which a peer is faster: {len(lost)} (goal 0)"
    for key, peers in lost.items():
        yield f"    {key}: {', '.join(peers)} of our time"


def _smallest(results):
    for ours in results.find(peer="instnorm-layer", layout="contiguous"):
        for theirs in results.find(
            peer="torch-instance_norm",
            shape=ours.shape,
            direction=ours.direction,
            layout=ours.layout,
            dtype=ours.dtype,
        ):
            if ours.shape == (1, 3, 2, 2):
                yield (
                    f"layer, {shape_name(ours.shape)} {ours.direction}, {ours.dtype}: "
                    f"{time_name(ours.seconds)}, 1/{theirs.seconds / ours.seconds:.1f} of "
                    f"PyTorch's {time_name(theirs.seconds)} (goal 1/8)"
                )


def _between_kinds(results):
    """Layouts and dtypes beside contiguous float32, where both were measured."""
    goals = {"float64": 2.2, "float16": 0.7, "bfloat16": 0.7}
    for direction in ("forward", "forward+backward"):
        ours = {"peer": "instnorm", "direction": direction}
        for dtype in dict.fromkeys(m.dtype for m in results.find(**ours)):
            ratios = _ratios(
                results,
                {"layout": "channels-last", "dtype": dtype, **ours},
                {"layout": "contiguous", "dtype": dtype, **ours},
            )
            ratios = {s: r for s, r in ratios.items() if s[1] >= 32}
            if ratios:
                yield (
                    f"channels-last / contiguous, {direction}, {dtype}, 32 channels and more: "
                    f"{_mean_and_worst(ratios, max)} (goal 1.3)"
                )
        for dtype, goal in goals.items():
            contiguous = {"layout": "contiguous", **ours}
            ratios = _ratios(
                results, {"dtype": dtype, **contiguous}, {"dtype": "float32", **contiguous}, 8
            )
            if ratios:
                yield (
                    f"{dtype} / float32, {direction}, contiguous, 8 MiB of float32 and more: "
                    f"{_mean_and_worst(ratios, max)} (goal {goal})"
                )


def _ratios(results, above, below, least_mebibytes=0):
    """Time of one kind over that of another, for each shape that both have."""
    ratios = {}
    for bottom in results.find(**below):
        for top in results.find(shape=bottom.shape, **above):
            if bottom.nbytes >= least_mebibytes * MEBIBYTE:
                ratios[bottom.shape] = top.seconds / bottom.seconds
    return ratios


def _mean_and_worst(ratios, worst):
    shape = worst(ratios, key=ratios.get)
    return (
        f"geometric mean {geometric_mean(ratios.values()):.2f}, "
        f"worst {ratios[shape]:.2f} at {shape_name(shape)}"
    )
