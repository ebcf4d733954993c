"""InstanceNorm1d, 2d and 3d: MindSpore's own layers with the operator of this package."""

from __future__ import annotations

from typing import Any

import mindspore
from mindspore import nn

from instnorm.bridge.mindspore.operators import operator_for


class _Layer(nn.Cell):
    """What the three layers add to MindSpore's."""

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
        self.instance_bn = operator_for(self.eps)

    def construct(self, x):  # type: ignore[no-untyped-def]
        # MindSpore compiles this from its source, and knows no annotations.
        self._check_input_dim(self.shape(x), self.cls_name)
        return self.instance_bn(x, self.gamma, self.beta)[0]


_DOCSTRING = """`mindspore.nn.InstanceNorm{rank}d`, computed by the kernels of this package.

    .. math::
        y = \\frac{{x - \\mathrm{{mean}}}}{{\\sqrt{{\\mathrm{{var}} + \\epsilon}}}}
            \\cdot \\gamma + \\beta

    A subclass of MindSpore's layer, with its constructor, its checks and its parameters
    `gamma`, `beta`, `moving_mean` and `moving_variance`. It runs in PyNative and in graph
    mode, in training and in evaluation alike by the input's own statistics; the moving
    ones stay as they are. In PyNative mode it can be differentiated twice, in graph mode
    once.

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


class InstanceNorm1d(_Layer, nn.InstanceNorm1d):  # noqa: D101 - template
    __doc__ = _DOCSTRING.format(rank=1, shapes="(N, C, L)", example=(2, 3, 5))


class InstanceNorm2d(_Layer, nn.InstanceNorm2d):  # noqa: D101 - template
    __doc__ = _DOCSTRING.format(rank=2, shapes="(N, C, H, W)", example=(2, 3, 5, 4))


class InstanceNorm3d(_Layer, nn.InstanceNorm3d):  # noqa: D101 - template
    __doc__ = _DOCSTRING.format(rank=3, shapes="(N, C, D, H, W)", example=(2, 3, 5, 4, 2))
