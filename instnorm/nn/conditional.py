"""ConditionalInstanceNorm1d, 2d and 3d: an affine map for each class of a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from instnorm import functional as F
from instnorm.nn import init
from instnorm.nn.instancenorm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, _InstanceNorm
from instnorm.nn.parameter import Parameter
from instnorm.tensor import Tensor


class _ConditionalInstanceNorm(_InstanceNorm):
    """What the three ranks share."""

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        track_running_stats: bool = False,
    ) -> None:
        if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer):
            raise TypeError(f"num_classes must be an integer, got {type(num_classes).__name__}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.__dict__["num_classes"] = int(num_classes)  # before Module can register anything
        super().__init__(num_features, eps, momentum, True, track_running_stats)

    def _new_parameter(self, dtype: np.dtype[Any]) -> Parameter:
        return Parameter(np.empty((self.num_classes, self.num_features), dtype))

    def reset_parameters(self) -> None:
        """Set each weight to 1 and each bias to 0, and reset the running statistics."""
        self.reset_running_stats()
        init.ones_(self.weight)
        init.zeros_(self.bias)

    def forward(  # type: ignore[override]
        self, input: Tensor | npt.NDArray[Any], label: Tensor | npt.ArrayLike
    ) -> Tensor:
        """Normalize a batch; `label` says the class of each sample, or is a mixture of classes."""
        input = F.as_tensor(input, "input")
        if input.ndim != self._unbatched_ndim + 1:
            raise ValueError(
                f"expected {self._unbatched_ndim + 1}D input, of shape (N, C, spatial...), "
                f"got {input.ndim}D input: its shape is {input.shape}"
            )
        if input.shape[1] != self.num_features:
            self._refuse(input.shape)
        weight, bias = self._chosen(F.as_tensor(label, "label"), len(input))
        buffers = self._buffers
        return F.instance_norm(
            input,
            buffers["running_mean"],
            buffers["running_var"],
            weight,
            bias,
            self.training or not self.track_running_stats,
            self.momentum,
            self.eps,
        )

    def _chosen(self, label: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of each sample, of shape (N, C)."""
        if label.dtype.kind in "iu":
            if label.shape != (samples,):
                raise ValueError(f"label has shape {label.shape}, expected ({samples},)")
            if samples and not (label.data.min() >= 0 and label.data.max() < self.num_classes):
                raise ValueError(
                    f"label has values from {label.data.min()} to {label.data.max()}, expected "
                    f"classes from 0 to {self.num_classes - 1}"
                )
            return self.weight[label.data], self.bias[label.data]
        if label.dtype.kind != "f":
            raise TypeError(
                f"label has dtype {label.dtype}, expected integers, or floats to mix by"
            )
        if label.shape != (samples, self.num_classes):
            raise ValueError(
                f"label has shape {label.shape}, expected ({samples}, {self.num_classes}): "
                "the share of each class in each sample"
            )
        share = label.to(self.weight.dtype)
        return share @ self.weight, share @ self.bias

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"{self.num_features}, {self.num_classes}, eps={self.eps}, momentum={self.momentum}, "
            f"track_running_stats={self.track_running_stats}"
        )


_DOCSTRING = """Instance normalization of {what} inputs, with an affine map for each class.

    .. math::
        y = \\frac{{x - \\mathrm{{mean}}}}{{\\sqrt{{\\mathrm{{var}} + \\epsilon}}}}
            \\cdot weight_k + bias_k

    with the class k of the sample: a style, a speaker, a domain.

    Parameters
    ----------
    num_features : int
        C, the number of channels.
    num_classes : int
        K, the number of classes: `weight` and `bias` are of shape (K, C), and start at 1 and 0.
    eps : float, default 1e-5
        Added to the variance; finite and not negative.
    momentum : float or None, default 0.1
        Share of the new value in the running statistics; None freezes them.
    track_running_stats : bool, default False
        Whether to keep running statistics, and normalize by them in evaluation.

    Shape
    -----
    Input and output: {shapes}. `label`: (N,) of integers from 0 to K - 1; or (N, K) of floats,
    by which the classes' maps are mixed, so that styles can be interpolated.

    Raises
    ------
    TypeError
        If the input is not of a float dtype, or the label neither of integers nor of floats.
    ValueError
        If a shape or a label does not fit; from the constructor, if an argument is out of range.

    References
    ----------
    V. Dumoulin, J. Shlens, M. Kudlur, "A Learned Representation for Artistic Style", 2017,
    https://arxiv.org/abs/1610.07629

    Examples
    --------
    >>> import numpy as np, instnorm
    >>> layer = instnorm.nn.ConditionalInstanceNorm{rank}d(3, num_classes=4)
    >>> x = np.random.default_rng(0).normal(size={example}).astype(np.float32)
    >>> layer(x, np.array([2, 0])).shape
    {example}
    >>> layer(x, np.array([[0.5, 0.5, 0, 0], [0, 0, 0, 1]])).shape
    {example}
    """


class ConditionalInstanceNorm1d(_ConditionalInstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(what="sequence", rank=1, shapes="(N, C, L)", example="(2, 3, 8)")
    _unbatched_ndim = InstanceNorm1d._unbatched_ndim


class ConditionalInstanceNorm2d(_ConditionalInstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(what="image", rank=2, shapes="(N, C, H, W)", example="(2, 3, 8, 8)")
    _unbatched_ndim = InstanceNorm2d._unbatched_ndim


class ConditionalInstanceNorm3d(_ConditionalInstanceNorm):  # noqa: D101 - it is in the template
    __doc__ = _DOCSTRING.format(
        what="volume", rank=3, shapes="(N, C, D, H, W)", example="(2, 3, 4, 4, 4)"
    )
    _unbatched_ndim = InstanceNorm3d._unbatched_ndim
