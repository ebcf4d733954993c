"""Times the peers on every case: finds those that are installed, checks each, lets them take turns.

For each shape and pass, all peers, dtypes and layouts are timed in one set of rounds, so that
any two of them can be compared.
"""

import gc
from dataclasses import asdict, dataclass, replace
from importlib import import_module

import numpy as np
from benchmarks.common import LAYOUTS
from benchmarks.floor import floors
from benchmarks.interleaved import seconds_per_call

from .peer import PASSES, TOLERANCE, Case, NotSupportedError, error, exact

# In the order of the table's columns.
LABELS = {
    "copy": "copy",
    "floor": "floor",
    "instnorm-avx512": "instnorm avx512",
    "instnorm-avx2": "instnorm avx2",
    "instnorm-baseline": "instnorm baseline",
    "instnorm-layer": "instnorm layer",
    "torch-instance_norm": "PyTorch instance_norm",
    "torch-group_norm": "PyTorch group_norm",
    "torch-compile": "torch.compile",
    "jax": "JAX jit",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "numpy": "NumPy",
    "numba": "Numba",
}
OTHERS = ("torch", "jax", "onnxruntime", "openvino", "numpy", "numba")
# In other types than float32, what instnorm promises is beside itself and these.
IN_EVERY_DTYPE = ("instnorm", "torch-instance_norm", "torch-group_norm")


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
    def row(self):
        """The elements that are normalized together."""
        return int(np.prod(self.shape[2:]))

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
    """The peers that were asked for and are installed.

    Parameters
    ----------
    names : iterable of str
        "instnorm" stands for all its levels.
    everywhere : bool
        Whether all of them are timed in all dtypes; else other types than float32 are left to
        those of IN_EVERY_DTYPE.
    """

    def __init__(self, names, levels, threads, rounds, turn, everywhere=True):
        self._threads, self._rounds, self._turn = threads, rounds, turn
        self._everywhere = everywhere
        self._peers, versions, left_out = [], {}, []
        names = {*names}
        if names & {"instnorm", "instnorm-layer"}:
            # First, since it sets how long idle threads of OpenMP's runtime spin, which others
            # load too.
            from . import instnorm_peers

            versions["instnorm"] = instnorm_peers.VERSION
            if "instnorm" in names:
                names |= {f"instnorm-{level}" for level in levels}
            self._peers += instnorm_peers.peers(threads, levels)
        for family in OTHERS:
            wanted = {n for n in names if n.partition("-")[0] == family}
            if not wanted:
                continue
            try:
                module = import_module(f".{family}_peers", __package__)
            except ModuleNotFoundError as missing:
                why = f"{missing.name} is not installed"
                left_out += [{"peer": name, "why": why} for name in sorted(wanted)]
                continue
            versions[family] = module.VERSION
            self._peers += module.peers(threads)
        self._peers = [p for p in self._peers if p.name in names]
        settings = {
            "threads": threads,
            "rounds": rounds,
            "turn": turn,
            "levels": list(levels),
            "versions": versions,
        }
        self.results = Results(settings, [], left_out)

    def shape(self, shape, dtypes, layouts):
        """Time both passes of all peers on one shape."""
        cases = [Case(shape, dtype, layout) for dtype in dtypes for layout in layouts]
        expected = {dtype: exact(Case(shape, dtype, LAYOUTS[0])) for dtype in dtypes}
        for direction in PASSES:
            entrants, errors = self._prepared(direction, cases, expected)
            for case in cases[:: len(layouts)]:
                limits = {"floor": direction}
                if direction != "forward":  # whose floor is the copy
                    limits["copy"] = "forward"
                for name, limit in limits.items():
                    for method, floor in floors(case, self._threads, limit).items():
                        entrants[name, case.dtype.name, "", method] = floor
            gc.collect()
            gc.freeze()  # else a collection looks through all the libraries' objects
            seconds = seconds_per_call(entrants, self._rounds, self._turn)
            self._keep(seconds, errors, shape, direction)
            gc.unfreeze()

    def _prepared(self, direction, cases, expected):
        entrants, errors = {}, {}
        for case in cases:
            for peer in self._peers:
                if not self._takes_part(peer, case):
                    continue
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

    def _takes_part(self, peer, case):
        return self._everywhere or case.dtype == np.float32 or peer.name.startswith(IN_EVERY_DTYPE)

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
        for (peer, dtype, layout), found in list(fastest.items()):
            if peer == "floor" and direction == "forward":  # the same traffic, timed once
                fastest["copy", dtype, layout] = replace(found, peer="copy")
        self.results.measurements += fastest.values()
