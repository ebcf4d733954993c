"""The results as text: a table of times relative to the floor, and the promises of each level."""

from statistics import geometric_mean

from .run import LABELS

MEBIBYTE = 2**20
LIMITS = ("copy", "floor")  # no peers: what they are measured against


def shape_name(shape):
    return f"({','.join(map(str, shape))})"


def time_name(seconds):
    """Three digits and a unit."""
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def floor_of(results, measurement, peer="floor"):
    (floor,) = results.find(
        peer=peer,
        shape=measurement.shape,
        dtype=measurement.dtype,
        direction=measurement.direction,
    )
    return floor


def ratio(results, measurement):
    return measurement.seconds / floor_of(results, measurement).seconds


# --- the table --------------------------------------------------------------------


def table(results):
    """One row for each shape, pass, layout and dtype; one column for each peer."""
    names = [n for n in LABELS if n not in LIMITS and results.find(peer=n)]
    heads = [LABELS[n].rpartition(" ") for n in names]
    rows = [
        ["", "", "", "", *[""] * len(LIMITS), *(first for first, _, _ in heads), ""],
        ["shape", "pass", "layout", "dtype", *LIMITS, *(last for _, _, last in heads), "spread"],
    ]
    for key in dict.fromkeys(_row_key(m) for m in results.measurements if m.peer not in LIMITS):
        found = {m.peer: m for m in results.measurements if _row_key(m) == key}
        some = next(iter(found.values()))
        limits = [time_name(floor_of(results, some, limit).seconds) for limit in LIMITS]
        cells = [_cell(results, found.get(name)) for name in names]
        percent = f"{max(m.spread for m in found.values()):.0%}"
        rows.append([shape_name(key[0]), *key[1:], *limits, *cells, percent])
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
    yield "Times are multiples of the floor's; spread: the row's largest half interquartile range."
    for m in results.measurements:
        if m.wrong:
            yield (
                f"! wrong: {m.peer}, {shape_name(m.shape)} {m.direction}, {m.layout}, {m.dtype}: "
                f"off by {m.error:.1e} of the largest element"
            )
    for peer, why in dict.fromkeys((left["peer"], left["why"]) for left in results.left_out):
        yield f"- left out: {peer}: {why}"


# --- the promises -------------------------------------------------------------------

SHORT_ROWS = (32, 512, 7, 7)
PASSES = ("forward", "forward+backward")
HALF = ("float16", "bfloat16")


def summary(results):
    """Lines of text: the machine; what each level keeps of its promises; what it loses."""
    yield machine(results.settings)
    for level in results.settings["levels"]:
        peer = f"instnorm-{level}"
        if results.find(peer=peer):
            yield f"{level}:"
            yield from _above_the_floor(results, peer)
            yield from _short_rows(results, peer)
            yield from _layouts(results, peer)
            yield from _dtypes(results, peer)
            yield from _beside_torch(results, peer)
            yield from _lost(results, peer)
    yield from _smallest(results)


def machine(settings):
    return f"{settings['processor']}; {settings['caches']}; {settings['threads']} threads"


def _above_the_floor(results, peer):
    for direction, promise in zip(PASSES, (1.15, 1.25), strict=True):
        ratios = {
            m.shape: ratio(results, m)
            for m in results.find(
                peer=peer, direction=direction, layout="contiguous", dtype="float32"
            )
            if m.row >= 1024 and MEBIBYTE <= m.nbytes <= 64 * MEBIBYTE
        }
        if ratios:
            yield (
                f"  {direction} / floor, rows of 1,024 and more, 1 to 64 MiB: "
                f"{_mean_and_worst(ratios)} (promise {promise}, worst 1.5)"
            )


def _short_rows(results, peer):
    for direction in PASSES:
        for m in results.find(
            peer=peer,
            shape=SHORT_ROWS,
            direction=direction,
            layout="contiguous",
            dtype="float32",
        ):
            yield (
                f"  {direction} / floor, {shape_name(SHORT_ROWS)}: "
                f"{ratio(results, m):.2f} (promise 1.8)"
            )


def _layouts(results, peer):
    for direction in PASSES:
        ours = {"peer": peer, "direction": direction}
        for dtype in dict.fromkeys(m.dtype for m in results.find(**ours)):
            ratios = _ratios(
                results,
                {"layout": "channels-last", "dtype": dtype, **ours},
                {"layout": "contiguous", "dtype": dtype, **ours},
                lambda m: m.shape[1] >= 32,
            )
            if ratios:
                yield (
                    f"  channels-last / contiguous, {direction}, {dtype}, 32 channels and more: "
                    f"{_mean_and_worst(ratios)} (promise 1.15, worst 1.3)"
                )


def _dtypes(results, peer):
    """Other types beside float32; and half precision beside what PyTorch takes for it."""
    promises = {"float64": 2.1, "float16": 0.6, "bfloat16": 0.6}
    for direction in PASSES:
        for dtype, promise in promises.items():
            ours = {"peer": peer, "direction": direction, "layout": "contiguous"}
            least = 8 * MEBIBYTE if dtype in HALF else MEBIBYTE
            ratios = _ratios(
                results,
                {"dtype": dtype, **ours},
                {"dtype": "float32", **ours},
                lambda m, least=least: m.nbytes >= least,
            )
            if ratios:
                yield (
                    f"  {dtype} / float32, {direction}, {least // MEBIBYTE} MiB of float32 and "
                    f"more: {_mean_and_worst(ratios)} (promise {promise})"
                )


def _beside_torch(results, peer):
    for direction in PASSES:
        for dtype in ("float32", "bfloat16"):
            for name in ("torch-instance_norm", "torch-group_norm"):
                kind = {"direction": direction, "dtype": dtype, "layout": "contiguous"}
                ratios = _ratios(results, {"peer": peer, **kind}, {"peer": name, **kind})
                if ratios:
                    promise = " (promise: worst 1)" if dtype in HALF else ""
                    yield (
                        f"  ours / {LABELS[name]}, {direction}, {dtype}: "
                        f"{_mean_and_worst(ratios)}{promise}"
                    )


def _lost(results, peer):
    lost, cases = {}, results.find(peer=peer)
    for ours in cases:
        for m in results.measurements:
            rival = not m.wrong and not m.peer.startswith(("instnorm", *LIMITS))
            if rival and _row_key(m) == _row_key(ours) and m.seconds < ours.seconds:
                key = f"{shape_name(ours.shape)} {ours.direction}, {ours.layout}, {ours.dtype}"
                lost.setdefault(key, []).append(f"{LABELS[m.peer]} {m.seconds / ours.seconds:.2f}")
    yield f"  cases in which a peer is faster: {len(lost)} of {len(cases)} (promise 0)"
    for key, peers in lost.items():
        yield f"    {key}: {', '.join(peers)} of our time"


def _smallest(results):
    for ours in results.find(peer="instnorm-layer", layout="contiguous", shape=(1, 3, 2, 2)):
        for theirs in results.find(
            peer="torch-instance_norm",
            shape=ours.shape,
            direction=ours.direction,
            layout=ours.layout,
            dtype=ours.dtype,
        ):
            yield (
                f"layer, {shape_name(ours.shape)} {ours.direction}, {ours.dtype}: "
                f"{time_name(ours.seconds)}, 1/{theirs.seconds / ours.seconds:.1f} of "
                f"PyTorch's {time_name(theirs.seconds)}"
            )


def _ratios(results, above, below, accepts=lambda below: True):
    """Time of one kind over that of another, for each shape that both have."""
    ratios = {}
    for bottom in results.find(**below):
        for top in results.find(shape=bottom.shape, **above):
            if accepts(bottom) and not bottom.wrong:
                ratios[bottom.shape] = top.seconds / bottom.seconds
    return ratios


def _mean_and_worst(ratios):
    shape = max(ratios, key=ratios.get)
    return (
        f"geometric mean {geometric_mean(ratios.values()):.2f}, "
        f"worst {ratios[shape]:.2f} at {shape_name(shape)}"
    )
