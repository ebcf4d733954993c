"""The lengths of vectors, and the angles between them."""

from __future__ import annotations

from instnorm.functional._inputs import Input, as_tensor
from instnorm.tensor import Tensor


def normalize(input: Input, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Divide by the norm along an axis, or by `eps` where that is larger."""
    input = as_tensor(input, "input")
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)


def cosine_similarity(x1: Input, x2: Input, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Cosine of the angle between vectors along an axis; norms are taken to be at least `eps`."""
    a, b = as_tensor(x1, "x1"), as_tensor(x2, "x2")
    lengths = [x.norm(2, dim, keepdim=True).clamp(min=eps) for x in (a, b)]
    return (a / lengths[0] * (b / lengths[1])).sum(dim)
