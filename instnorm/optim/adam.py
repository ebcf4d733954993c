"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from instnorm._layouts import Array
from instnorm.optim.optimizer import Optimizer, check_number
from instnorm.tensor import Tensor


class Adam(Optimizer):
    r"""Steps by running means of the gradient and of its square.

    At step :math:`t`, for each parameter :math:`\theta` with gradient :math:`g`:

    .. math::
        g &\leftarrow g + \mathrm{weight\_decay} \cdot \theta \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        \theta &\leftarrow \theta - lr \cdot \frac{m / (1 - \beta_1^t)}
            {\sqrt{v / (1 - \beta_2^t)} + eps}

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        What to optimize; a dict has the key 'params', and options of its own.
    lr : float, default 1e-3
        Learning rate.
    betas : (float, float), default (0.9, 0.999)
        How much of the old the running means keep, from 0 to less than 1.
    eps : float, default 1e-8
    weight_decay : float, default 0
        Weight of the L2 penalty.
    amsgrad : bool, default False
        Whether to divide by the largest v so far.
    maximize : bool, default False
        Whether to go up rather than down.

    Raises
    ------
    ValueError
        If an option is out of range or not finite, there are no parameters, or one
        comes twice.
    TypeError
        If `params` is a Tensor itself, or holds something else than Tensors.

    References
    ----------
    torch.optim.Adam of PyTorch 2.13; D. Kingma, J. Ba, "Adam: A Method for Stochastic
    Optimization", 2015, https://arxiv.org/abs/1412.6980

    Examples
    --------
    >>> import instnorm
    >>> w = instnorm.tensor([1.0], requires_grad=True)
    >>> optimizer = instnorm.optim.Adam([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.75], requires_grad=True)
    """

    _arrays = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    #: Whether the weight decay is left out of the gradient, and applied to the weight itself.
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
            },
        )

    def _update(self, param: Tensor, grad: Array, options: dict[str, Any]) -> None:
        lr, decay, (beta1, beta2) = options["lr"], options["weight_decay"], options["betas"]
        state = self.state.setdefault(param, {})
        if not state:
            state["step"] = 0
            state["exp_avg"] = np.zeros_like(param.data)
            state["exp_avg_sq"] = np.zeros_like(param.data)
        state["step"] += 1
        if decay != 0 and self._decoupled:
            param.data *= 1 - lr * decay
        elif decay != 0:
            grad = grad + decay * param.data
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean += (1 - beta1) * (grad - mean)
        square *= beta2
        square += (1 - beta2) * (grad * grad)
        if options["amsgrad"]:
            largest = state.setdefault("max_exp_avg_sq", np.zeros_like(square))
            square = np.maximum(largest, square, out=largest)
        denominator = np.sqrt(square)
        denominator /= math.sqrt(1 - beta2 ** state["step"])
        denominator += options["eps"]
        step = mean / denominator
        step *= lr / (1 - beta1 ** state["step"])
        param.data -= step

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            check_number(options, name)
        betas = options["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers from 0 to less than 1, got {betas}")


class AdamW(Adam):
    r"""Adam, with a weight decay that is no part of the gradient.

    Before the step of `Adam`, whose parameters it has,
    :math:`\theta \leftarrow \theta \cdot (1 - lr \cdot \mathrm{weight\_decay})`.

    References
    ----------
    torch.optim.AdamW of PyTorch 2.13; I. Loshchilov, F. Hutter, "Decoupled Weight Decay
    Regularization", 2019, https://arxiv.org/abs/1711.05101
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
