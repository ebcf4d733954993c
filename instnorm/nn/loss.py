"""Losses as Modules."""

from __future__ import annotations

from instnorm import functional as F
from instnorm.functional import Input, Reduction
from instnorm.nn.module import Module
from instnorm.tensor import Tensor


class _Loss(Module):
    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction


class MSELoss(_Loss):
    """Squared error; see `functional.mse_loss`."""

    def forward(self, input: Input, target: Input) -> Tensor:
        """Compare."""
        return F.mse_loss(input, target, self.reduction)


class L1Loss(_Loss):
    """Absolute error; see `functional.l1_loss`."""

    def forward(self, input: Input, target: Input) -> Tensor:
        """Compare."""
        return F.l1_loss(input, target, self.reduction)


class CrossEntropyLoss(_Loss):
    """Cross entropy of scores and class indices; see `functional.cross_entropy`."""

    def __init__(
        self,
        weight: Input | None = None,
        *,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", None if weight is None else F.as_tensor(weight, "weight"))
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Input, target: Input) -> Tensor:
        """Compare."""
        return F.cross_entropy(
            input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )


class NLLLoss(_Loss):
    """Negative log-likelihood of class indices; see `functional.nll_loss`."""

    def __init__(
        self,
        weight: Input | None = None,
        *,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", None if weight is None else F.as_tensor(weight, "weight"))
        self.ignore_index = ignore_index

    def forward(self, input: Input, target: Input) -> Tensor:
        """Compare."""
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class SmoothL1Loss(_Loss):
    """Squared error near, absolute error afar; see `functional.smooth_l1_loss`."""

    def __init__(self, *, reduction: Reduction = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.beta = beta

    def forward(self, input: Input, target: Input) -> Tensor:
        """Compare."""
        return F.smooth_l1_loss(input, target, self.reduction, self.beta)


class BCELoss(_Loss):
    """Cross entropy of two probabilities; see `functional.binary_cross_entropy`."""

    def __init__(self, weight: Input | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", None if weight is None else F.as_tensor(weight, "weight"))

    def forward(self, input: Input, target: Input) -> Tensor:
        """Compare."""
        return F.binary_cross_entropy(input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Cross entropy of sigmoid and probabilities.

    See `functional.binary_cross_entropy_with_logits`.
    """

    def __init__(
        self,
        weight: Input | None = None,
        *,
        reduction: Reduction = "mean",
        pos_weight: Input | None = None,
    ) -> None:
        super().__init__(reduction=reduction)
        for name, value in (("weight", weight), ("pos_weight", pos_weight)):
            self.register_buffer(name, None if value is None else F.as_tensor(value, name))

    def forward(self, input: Input, target: Input) -> Tensor:
        """Compare."""
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, self.reduction, self.pos_weight
        )
