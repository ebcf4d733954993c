"""Statistics of an array that comes in parts: tiles of an image, pieces of a series."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from instnorm import arrays
from instnorm._layouts import Array

__all__ = ["Statistics"]


class Statistics:
    """Mean and variance of each channel of each sample, over parts that come one by one.

    Parts may have any spatial sizes, and come in any order: the statistics are those of the
    whole, to rounding. What is normalized by them has no seams between tiles.

    Attributes
    ----------
    mean, var : ndarray of shape (N, C), float64
        The mean, and the biased variance; NaN where no element was counted.
    unbiased_var : ndarray of shape (N, C), float64
        The variance with Bessel's correction; NaN where fewer than two elements were counted.
    count : ndarray of shape (N, 1), int64
        How many elements of each sample were counted.

    Notes
    -----
    Parts are merged by the formulas of Chan, Golub and LeVeque, in extended precision where the
    platform has it.

    References
    ----------
    T. Chan, G. Golub, R. LeVeque, "Algorithms for Computing the Sample Variance", The American
    Statistician 37, 1983

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> image = np.arange(24.0).reshape(1, 2, 3, 4)
    >>> s = instnorm.Statistics()
    >>> for tile in (image[..., :1], image[..., 1:]):
    ...     s = s.update(tile)
    >>> s.mean, s.count
    (array([[ 5.5, 17.5]]), array([[12]]))
    >>> y = instnorm.instance_norm(image, mean=s.mean, var=s.var)
    >>> bool(np.allclose(y, instnorm.instance_norm(image)))
    True
    """

    def __init__(self) -> None:
        self._count: npt.NDArray[np.int64] | None = None
        self._mean: Array = np.zeros((0, 0), np.longdouble)
        # The sum of the squared differences from the mean.
        self._m2: Array = np.zeros((0, 0), np.longdouble)

    @classmethod
    def of(
        cls, x: npt.ArrayLike, *, mask: npt.ArrayLike | None = None, channel_axis: int = 1
    ) -> Statistics:
        """Return the statistics of one array; the arguments are those of `update`."""
        return cls().update(x, mask=mask, channel_axis=channel_axis)

    def update(
        self, x: npt.ArrayLike, *, mask: npt.ArrayLike | None = None, channel_axis: int = 1
    ) -> Statistics:
        """Take in a part, in one pass over its memory.

        Parameters
        ----------
        x : array_like of shape (N, C, spatial...)
            Of the samples and channels of all parts; at least three axes, any float dtype.
        mask : array_like of bool, of shape (N, spatial...), optional
            True where an element counts.
        channel_axis : int, default 1
            Which axis of `x` is C.

        Returns
        -------
        Statistics
            Itself.

        Raises
        ------
        TypeError, ValueError
            As `instance_norm`, and where N or C are not those of the parts before; nothing is
            taken in then.
        """
        part = Statistics()
        part._count, mean, var = arrays.moments(x, mask, channel_axis)
        part._mean = mean.astype(np.longdouble)
        part._m2 = var.astype(np.longdouble) * part._count
        return self.merge(part)

    def merge(self, other: Statistics) -> Statistics:
        """Take in all that another one has taken in; the other stays as it is.

        Returns
        -------
        Statistics
            Itself.

        Raises
        ------
        TypeError
            If `other` is no Statistics.
        ValueError
            If both have parts, of other samples or channels.
        """
        if not isinstance(other, Statistics):
            raise TypeError(f"other must be a Statistics, got {type(other).__name__}")
        if other._count is None:
            return self
        if self._count is None:
            self._count, self._mean, self._m2 = other._count, other._mean, other._m2
            return self
        if self._mean.shape != other._mean.shape:
            raise ValueError(
                f"expected parts of {self._mean.shape[0]} samples and {self._mean.shape[1]} "
                f"channels, as those before, got {other._mean.shape[0]} and {other._mean.shape[1]}"
            )
        count = self._count + other._count
        share = other._count / np.maximum(count, 1).astype(np.longdouble)
        difference = other._mean - self._mean
        # New arrays, and not in place: those may be another's as well.
        self._m2 = self._m2 + other._m2 + difference * difference * share * self._count
        self._mean = self._mean + difference * share
        self._count = count
        return self

    @property
    def count(self) -> npt.NDArray[np.int64]:
        """How many elements of each sample were counted, of shape (N, 1)."""
        return np.zeros((0, 1), np.int64) if self._count is None else self._count.copy()

    @property
    def mean(self) -> Array:
        """The mean, of shape (N, C)."""
        return self._where_counted(self._mean, 1)

    @property
    def var(self) -> Array:
        """The biased variance, of shape (N, C)."""
        return self._where_counted(self._m2 / np.maximum(self.count, 1), 1)

    @property
    def unbiased_var(self) -> Array:
        """The variance with Bessel's correction, of shape (N, C)."""
        return self._where_counted(self._m2 / np.maximum(self.count - 1, 1), 2)

    def rstd(self, eps: float = 1e-5) -> Array:
        """Return 1 / sqrt(var + eps), and 0 where var + eps is 0."""
        return arrays.rstd_of(self.var, arrays.checked_eps(eps))

    def _where_counted(self, values: Array, least: int) -> Array:
        return np.where(self.count >= least, values, math.nan).astype(np.float64)

    def __repr__(self) -> str:
        if self._count is None:
            return "Statistics()"
        samples, channels = self._mean.shape
        elements = int(self._count.sum()) * channels
        return f"<Statistics of {samples} samples, {channels} channels, {elements} elements>"
