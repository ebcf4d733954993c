"""Times the peers on every case: finds those that are installed, checks each, lets them take turns.

For each shape and pass, all peers, dtypes and layouts are timed in one set of rounds, so that
any two of them can be compared.
"""

import gc
from dataclasses import asdict, dataclass
from importlib import import_module

import numpy as np
from benchmarks.common import LAYOUTS
from benchmarks.copying import copies
from benchmarks.interleaved import seconds_per_call

from .peer import PASSES, TOLERANCE, Case, NotSupportedError, error, exact

# In the order of the table's columns. instnorm is imported first, since it sets how long the
# idle threads of OpenMP's runtime spin, which others load too.
FAMILIES = ("instnorm", "torch", "jax", "onnxruntime", "numpy", "numba")
LABELS = {
    "copy": "copy",
    "torch-copy": "PyTorch copy",
    "instnorm": "instnorm",
    "instnorm-layer": "instnorm layer",
    "torch-instance_norm": "PyTorch instance_norm",
    "torch-group_norm": "PyTorch group_norm",
    "torch-compile": "torch.compile",
    "jax": "JAX jit",
    "onnxruntime": "ONNX Runtime",
    "numpy": "NumPy",
    "numba": "Numba",
}


@dataclass(frozen=True)
class Measurement:
    """The time of one peer on one case; seconds are the median, low and high the quartiles."""

    peer: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    direction: str
    seconds: float
    low: float
    high: float
    error: float = 0.0
    method: str = ""

    @property
    def nbytes(self):
        return int(np.prod(self.shape)) * {"float64": 8, "float32": 4}.get(self.dtype, 2)

    @property
    def wrong(self):
        return self.error > TOLERANCE[self.dtype]

    @property
    def spread(self):
        return (self.high - self.low) / 2 / self.seconds

    def as_json(self):
        return {**asdict(self), "wrong": self.wrong}


@dataclass
class Results:
    """What was measured, and what was not, with the reason."""

    settings: dict
    measurements: list
    left_out: list

    def find(self, **fields):
        """The measurements whose fields have these values."""
        return [m for m in self.measurements if all(getattr(m, k) == v for k, v in fields.items())]

    def as_json(self):
        return {
            "settings": self.settings,
            "measurements": [m.as_json() for m in self.measurements],
            "left_out": self.left_out,
        }


class Runner:
    """The peers that were asked for and are installed."""

    def __init__(self, names, threads, rounds, turn):
        self._threads, self._rounds, self._turn = threads, rounds, turn
        self._peers, self._copies, versions, left_out = [], {}, {}, []
        for family in FAMILIES:
            wanted = {n for n in names if n.partition("-")[0] == family}
            try:
                module = import_module(f".{family}_peers", __package__) if wanted else None
            except ModuleNotFoundError as missing:
                why = f"{missing.name} is not installed"
                left_out += [{"peer": name, "why": why} for name in sorted(wanted)]
                continue
            if module is None:
                continue
            versions[family] = module.VERSION
            self._peers += [p for p in module.peers(threads) if p.name in names]
            if hasattr(module, "copy"):
                self._copies[f"{family}-copy"] = module.copy
        settings = {"threads": threads, "rounds": rounds, "turn": turn, "versions": versions}
        self.results = Results(settings, [], left_out)

    def shape(self, shape, dtypes, layouts):
        """Time both passes of all peers on one shape."""
        cases = [Case(shape, dtype, layout) for dtype in dtypes for layout in layouts]
        expected = {dtype: exact(Case(shape, dtype, LAYOUTS[0])) for dtype in dtypes}
        for direction in PASSES:
            entrants, errors = self._prepared(direction, cases, expected)
            for case in cases[:: len(layouts)]:
                for method, function in copies(case.x, self._threads).items():
                    entrants["copy", case.dtype.name, "", method] = function
            for name, copy in self._copies.items():
                for case in cases:
                    entrants[name, case.dtype.name, case.layout, ""] = copy(case.x)
            gc.collect()
            gc.freeze()  # else a collection looks through all the libraries' objects
            seconds = seconds_per_call(entrants, self._rounds, self._turn)
            self._keep(seconds, errors, shape, direction)
            gc.unfreeze()

    def _prepared(self, direction, cases, expected):
        entrants, errors = {}, {}
        for case in cases:
            for peer in self._peers:
                key = (peer.name, case.dtype.name, case.layout, "")
                try:
                    function = getattr(peer, PASSES[direction])(case)
                    results = peer.arrays(case, function())
                except Exception as reason:
                    self._leave_out(peer, case, direction, reason)
                    continue
                right = expected[case.dtype.name]
                errors[key] = error(results, right[: len(results)])
                entrants[key] = function
        return entrants, errors

    def _leave_out(self, peer, case, direction, reason):
        why = str(reason).strip().partition("\n")[0]
        if not isinstance(reason, NotSupportedError):
            why = f"{type(reason).__name__}: {why}"
        self.results.left_out.append(
            {
                "peer": peer.name,
                "shape": case.shape,
                "direction": direction,
                "layout": case.layout,
                "dtype": case.dtype.name,
                "why": why,
            }
        )

    def _keep(self, seconds, errors, shape, direction):
        fastest = {}
        for key, values in seconds.items():
            peer, dtype, layout, method = key
            low, median, high = (float(q) for q in np.percentile(values, (25, 50, 75)))
            found = Measurement(
                peer, shape, dtype, layout, direction, median, low, high, errors.get(key, 0), method
            )
            best = fastest.setdefault((peer, dtype, layout), found)
            if found.seconds < best.seconds:
                fastest[peer, dtype, layout] = found
        self.results.measurements += fastest.values()
