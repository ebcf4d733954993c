"""RevIN: instance normalization of a series that is undone at the end of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from instnorm import arrays
from instnorm import functional as F
from instnorm.functional.norm import normalize_by
from instnorm.nn.module import Module
from instnorm.nn.parameter import Parameter
from instnorm.statistics import Statistics
from instnorm.tensor import Tensor


class RevIN(Module):
    r"""Reversible instance normalization, for series whose level and scale drift.

    .. math::
        \mathrm{norm}(x) &= \frac{x - \mathrm{mean}}{\sqrt{\mathrm{var} + \epsilon}}
            \cdot weight + bias \\
        \mathrm{denorm}(y) &= \frac{y - bias}{weight} \cdot \sqrt{\mathrm{var} + \epsilon}
            + \mathrm{mean}

    with the mean and the biased variance of each feature of each series over time. "norm" keeps
    them, without a gradient, for the "denorm" that follows.

    Parameters
    ----------
    num_features : int
        C, the number of features of a series.
    eps : float, default 1e-5
        Added to the variance; finite and not negative.
    affine : bool, default True
        Whether to learn `affine_weight` and `affine_bias`, which start at 1 and 0.
    subtract_last : bool, default False
        Whether to subtract the last value of a series in place of its mean.

    Shape
    -----
    x and the result: (N, L, C); in "denorm", L may be another. `mask`: bool, (N, L), True where
    there is a value; the result is 0 elsewhere.

    Raises
    ------
    RuntimeError
        If "denorm" comes before any "norm".
    TypeError
        If x is not of a float dtype.
    ValueError
        If a shape, `mode` or `eps` does not fit; if a weight is 0 in "denorm".

    References
    ----------
    T. Kim, J. Kim, Y. Tae, C. Park, J.-H. Choi, J. Choo, "Reversible Instance Normalization for
    Accurate Time-Series Forecasting against Distribution Shift", 2022,
    https://openreview.net/forum?id=cGDAkQo1C0p

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> layer = instnorm.nn.RevIN(2)
    >>> x = np.random.default_rng(0).normal(100, 5, (3, 16, 2)).astype(np.float32)
    >>> y = layer(x, "norm")
    >>> bool(abs(y.mean()) < 1e-6), bool(np.allclose(layer(y, "denorm").detach(), x))
    (True, True)
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        subtract_last: bool = False,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = arrays.checked_eps(eps)
        self.affine = affine
        self.subtract_last = subtract_last
        shape = (num_features,)
        self.affine_weight = Parameter(np.ones(shape, np.float32)) if affine else None
        self.affine_bias = Parameter(np.zeros(shape, np.float32)) if affine else None
        # Of the last "norm", of shape (N, C): what was subtracted, and the variance.
        self._subtracted: npt.NDArray[Any] | None = None
        self._var: npt.NDArray[Any] | None = None

    def forward(
        self,
        x: Tensor | npt.NDArray[Any],
        mode: str,
        mask: Tensor | npt.NDArray[np.bool_] | None = None,
    ) -> Tensor:
        """Normalize, or undo the normalization."""
        x = F.as_tensor(x, "x")
        if x.ndim != 3 or x.shape[2] != self.num_features:
            raise ValueError(f"x has shape {x.shape}, expected (N, L, {self.num_features})")
        if isinstance(mask, Tensor):
            mask = mask.data
        if mode == "norm":
            return self._norm(x, mask)
        if mode == "denorm":
            return self._denorm(x, mask)
        raise ValueError(f"mode is {mode!r}, expected 'norm' or 'denorm'")

    def _norm(self, x: Tensor, mask: npt.NDArray[np.bool_] | None) -> Tensor:
        statistics = Statistics.of(x.data, mask=mask, channel_axis=2)
        if (statistics.count == 0).any():
            raise ValueError("expected a value in each series, but one has none, or mask hides all")
        subtracted = self._last_of(x.data, mask) if self.subtract_last else statistics.mean
        series = x.transpose(1, 2)
        weight, bias = self.affine_weight, self.affine_bias
        y = normalize_by(series, subtracted, statistics.var, weight, bias, self.eps, mask)
        self._subtracted, self._var = subtracted, statistics.var
        return y.transpose(1, 2)

    @staticmethod
    def _last_of(
        x: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.float64]:
        last = np.full(len(x), x.shape[1] - 1)
        if mask is not None:
            last -= np.argmax(mask[:, ::-1], axis=1)
        found: npt.NDArray[np.float64] = x[np.arange(len(x)), last].astype(np.float64)
        return found

    def _denorm(self, y: Tensor, mask: npt.NDArray[np.bool_] | None) -> Tensor:
        if self._subtracted is None or self._var is None:
            raise RuntimeError("expected mode='norm' before mode='denorm': no statistics are kept")
        if len(y) != len(self._subtracted):
            raise ValueError(
                f"x has {len(y)} series, expected those of the last 'norm', {len(self._subtracted)}"
            )
        dtype = np.promote_types(y.dtype, np.float32)
        std = np.sqrt(self._var + self.eps)[:, None].astype(dtype)
        result = y.to(dtype)
        if self.affine_weight is not None and self.affine_bias is not None:
            if not self.affine_weight.data.all():
                raise ValueError("affine_weight has a 0, which cannot be undone")
            result = (result - self.affine_bias) / self.affine_weight
        result = result * std + self._subtracted[:, None].astype(dtype)
        if mask is not None:
            result = result.where(np.broadcast_to(mask[:, :, None], result.shape), 0.0)
        return result.to(y.dtype)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"{self.num_features}, eps={self.eps}, affine={self.affine}, "
            f"subtract_last={self.subtract_last}"
        )
