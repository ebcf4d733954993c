"""InstanceNorm1d, 2d and 3d: MindSpore's own layers with the operator of this package."""

from __future__ import annotations

from typing import Any

import mindspore
from mindspore import nn, ops
from mindspore._c_expression import MixedPrecisionType

from instnorm.bridge.mindspore.fusion import FOLLOWER, applies_activation, slope_of
from instnorm.bridge.mindspore.operators import Composition, InstanceNorm, Options

_PRECISIONS = {
    MixedPrecisionType.FP16: mindspore.float16,
    MixedPrecisionType.FP32: mindspore.float32,
    MixedPrecisionType.BF16: mindspore.bfloat16,
}
_NO_SLOPE = mindspore.Tensor([0.0], mindspore.float32)


class Layer(nn.Cell):
    """What the three layers add to MindSpore's."""

    _axes: tuple[int, ...]
    composition = Composition()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        gamma_init: Any = "ones",
        beta_init: Any = "zeros",
        dtype: Any = mindspore.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, gamma_init, beta_init, dtype)
        self.instance_bn = InstanceNorm(Options(self.eps))

    @property
    def operator(self) -> InstanceNorm:
        """What computes the norm."""
        operator: InstanceNorm = self.instance_bn
        return self.__dict__[FOLLOWER].operator if applies_activation(self) else operator

    @property
    def slope(self) -> Any:
        """The parameter of the PReLU that follows, as far as the norm applies one."""
        slope = slope_of(self.__dict__[FOLLOWER].cell) if applies_activation(self) else None
        return _NO_SLOPE if slope is None else slope

    def __call__(self, x: Any) -> Any:
        """Cast as `to_float` asks for: where Python runs, MindSpore's operators alone do so."""
        dtype = _PRECISIONS.get(self.mixed_precision_type)
        return super().__call__(x if dtype in (None, x.dtype) else x.astype(dtype))

    # MindSpore compiles this from its source, and knows no annotations.
    def construct(self, x):  # type: ignore[no-untyped-def]
        """Normalize a batch."""
        self._check_input_dim(self.shape(x), self.cls_name)
        dtype = self.composition(x, self.num_features)
        if dtype is None:
            return self.operator(x, self.gamma, self.beta, self.slope)[0]
        wide = ops.cast(x, dtype)
        centred = wide - ops.mean(wide, self._axes, True)
        var = ops.mean(centred * centred, self._axes, True)
        normed = centred / ops.sqrt(var + ops.cast(self.wide_eps, dtype))
        gamma = ops.reshape(ops.cast(self.gamma, dtype), self._parameter_shape)
        beta = ops.reshape(ops.cast(self.beta, dtype), self._parameter_shape)
        return ops.cast(normed * gamma + beta, x.dtype)

    @property
    def wide_eps(self) -> Any:
        """As a Tensor of float64: Python's numbers would be float32 in a graph."""
        return mindspore.Tensor(self.eps, mindspore.float64)

    @property
    def _parameter_shape(self) -> tuple[int, ...]:
        return (1, -1, *(1 for _ in self._axes))


_DOCSTRING = """`mindspore.nn.InstanceNorm{rank}d`, computed by the kernels of this package.

    .. math::
        y = \\frac{{x - \\mathrm{{mean}}}}{{\\sqrt{{\\mathrm{{var}} + \\epsilon}}}}
            \\cdot \\gamma + \\beta

    A subclass of MindSpore's layer, with its constructor, its checks and its parameters
    `gamma`, `beta`, `moving_mean` and `moving_variance`. It runs in PyNative and in graph
    mode, in training and in evaluation alike by the input's own statistics; the moving
    ones stay as they are. In PyNative mode it can be differentiated twice, in graph mode
    once.

    In graphs whose shapes are dynamic the same is composed of MindSpore's operators, in float64;
    so it is in those that `mindspore.export` writes, in float32 unless the input is float64.

    Parameters
    ----------
    num_features : int
        C, the number of channels; at least 1.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float, default 0.1
        In [0, 1]. It has no effect.
    affine : bool, default True
        Whether `gamma` and `beta` are trained; they are applied in either case.
    gamma_init, beta_init : str, number, mindspore.Tensor or Initializer
        First values, by default 'ones' and 'zeros'.
    dtype : mindspore.dtype, default mindspore.float32
        Of the parameters.

    Shape
    -----
    Input and output: {shapes}, of float16, bfloat16 (PyNative mode only), float32
    or float64.

    Raises
    ------
    TypeError
        If an argument or the input's dtype is of the wrong type.
    ValueError
        If an argument is out of range, or the input's rank or channel count does not fit.
    NotImplementedError
        If third derivatives are asked for; of second ones in graph mode, MindSpore itself
        says that they are not defined.

    References
    ----------
    mindspore.nn.InstanceNorm{rank}d of MindSpore 2.10

    Examples
    --------
    >>> import mindspore, numpy as np
    >>> from instnorm.bridge.mindspore import InstanceNorm{rank}d
    >>> layer = InstanceNorm{rank}d(3)
    >>> isinstance(layer, mindspore.nn.InstanceNorm{rank}d)
    True
    >>> layer(mindspore.Tensor(np.ones({example}, np.float32))).shape
    {example}
    """


class InstanceNorm1d(Layer, nn.InstanceNorm1d):  # noqa: D101 - template
    _axes = (2,)
    __doc__ = _DOCSTRING.format(rank=1, shapes="(N, C, L)", example=(2, 3, 5))


class InstanceNorm2d(Layer, nn.InstanceNorm2d):  # noqa: D101 - template
    _axes = (2, 3)
    __doc__ = _DOCSTRING.format(rank=2, shapes="(N, C, H, W)", example=(2, 3, 5, 4))


class InstanceNorm3d(Layer, nn.InstanceNorm3d):  # noqa: D101 - template
    _axes = (2, 3, 4)
    __doc__ = _DOCSTRING.format(rank=3, shapes="(N, C, D, H, W)", example=(2, 3, 5, 4, 2))
