"""What to say of a name that there is not, which somebody types who knows PyTorch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def missing(
    owner: str, name: str, known: Iterable[str], instead: Mapping[str, str] | None = None
) -> AttributeError:
    """Return an AttributeError that says what is nearest: as `instead` has it, or by spelling."""
    message = f"{owner} has no attribute {name!r}"
    if instead and name in instead:
        return AttributeError(f"{message}: {instead[name]}")
    of_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), of_lower, cutoff=0.7)
    if near and not name.startswith("_"):
        message += f"; nearest: {', '.join(of_lower[other] for other in near)}"
    return AttributeError(message)
