"""Schedules: learning rates that change from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from instnorm._missing import missing
from instnorm.optim.optimizer import Optimizer

__all__ = [
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "ReduceLROnPlateau",
    "StepLR",
]

# What PyTorch has and this package has not: what is nearest.
_INSTEAD = {
    "OneCycleLR": "nearest: LambdaLR, LinearLR, CosineAnnealingLR",
    "SequentialLR": "nearest: LambdaLR, with a function of the epoch",
    "ConstantLR": "nearest: LambdaLR, with a function of the epoch",
    "CyclicLR": "nearest: LambdaLR, with a function of the epoch",
    "CosineAnnealingWarmRestarts": "nearest: CosineAnnealingLR, LambdaLR",
}


class _Schedule:
    """What all schedules have: their optimizer, and a state dict."""

    optimizer: Optimizer

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; the optimizer's own state has the rates."""
        vars(self).update({k: v for k, v in state_dict.items() if k in vars(self)})


class LRScheduler(_Schedule):
    """Base of schedules: a subclass defines `_next`.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' learning rates are what changes; where they started is kept there as
        'initial_lr'.
    last_epoch : int, default -1
        How many steps were taken before; -1 starts anew.

    Raises
    ------
    TypeError
        If `optimizer` is not one.
    KeyError
        If steps were taken before, and the optimizer has no 'initial_lr'.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param_groups[{i}] of the optimizer has no 'initial_lr', which is needed to "
                    f"go on at last_epoch {last_epoch}"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def step(self) -> None:
        """Go on by one epoch: after the optimizer's steps in it."""
        self.last_epoch += 1
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self._next(group["lr"], base)

    def _next(self, lr: float, base: float) -> float:
        """Return the learning rate of `last_epoch`, from that before and the one at the start."""
        raise NotImplementedError(f"{type(self).__name__} must define _next()")


class StepLR(LRScheduler):
    """``lr * gamma`` after every `step_size` epochs.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
    gamma : float, default 0.1
    last_epoch : int, default -1

    Examples
    --------
    >>> import instnorm
    >>> sgd = instnorm.optim.SGD([instnorm.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = instnorm.optim.lr_scheduler.StepLR(sgd, step_size=2, gamma=0.5)
    >>> for epoch in range(3):
    ...     print(epoch, schedule.get_last_lr())
    ...     sgd.step()
    ...     schedule.step()
    0 [1.0]
    1 [1.0]
    2 [0.5]
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        if step_size < 1:
            raise ValueError(f"step_size must be at least 1, got {step_size}")
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _next(self, lr: float, base: float) -> float:
        due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return lr * self.gamma if due else lr


class MultiStepLR(LRScheduler):
    """``lr * gamma`` after each of the epochs in `milestones`.

    Parameters
    ----------
    optimizer : Optimizer
    milestones : sequence of int
    gamma : float, default 0.1
    last_epoch : int, default -1
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _next(self, lr: float, base: float) -> float:
        due = self.milestones.count(self.last_epoch) if self.last_epoch > 0 else 0
        return lr * float(self.gamma**due)


class ExponentialLR(LRScheduler):
    """``lr * gamma`` after every epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _next(self, lr: float, base: float) -> float:
        return lr * self.gamma if self.last_epoch > 0 else lr


class LambdaLR(LRScheduler):
    """The learning rate at the start times a function of the epoch.

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable
        Gets the epoch, from 0, and returns a factor. It is not part of the state dict.
    last_epoch : int, default -1

    Examples
    --------
    >>> import instnorm
    >>> sgd = instnorm.optim.SGD([instnorm.zeros(1, requires_grad=True)], lr=1.0)
    >>> warm_up = lambda epoch: min(1, (epoch + 1) / 4)
    >>> schedule = instnorm.optim.lr_scheduler.LambdaLR(sgd, warm_up)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float], last_epoch: int = -1
    ) -> None:
        if not callable(lr_lambda):
            raise TypeError(f"lr_lambda must be a function, got {type(lr_lambda).__name__}")
        self.lr_lambda = lr_lambda
        super().__init__(optimizer, last_epoch)

    def _next(self, lr: float, base: float) -> float:
        return base * self.lr_lambda(self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer and the function."""
        state = super().state_dict()
        del state["lr_lambda"]
        return state


class CosineAnnealingLR(LRScheduler):
    r"""Half a cosine from the learning rate at the start to `eta_min` in `T_max` epochs.

    .. math:: lr = eta\_min + \frac{initial - eta\_min}{2}
        \Bigl(1 + \cos\frac{\pi \cdot epoch}{T\_max}\Bigr)

    It goes up again after that. Each rate is computed from the one before, so that a rate
    which was changed in between has its effect.

    Parameters
    ----------
    optimizer : Optimizer
    T_max : int
    eta_min : float, default 0.0
    last_epoch : int, default -1

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    https://arxiv.org/abs/1608.03983
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        if T_max < 1:
            raise ValueError(f"T_max must be at least 1, got {T_max}")
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def _next(self, lr: float, base: float) -> float:
        epoch, period = self.last_epoch, self.T_max
        if epoch == 0:
            return lr
        if (epoch - 1 - period) % (2 * period) == 0:  # from eta_min no ratio leads up
            return lr + (base - self.eta_min) * (1 - math.cos(math.pi / period)) / 2
        ratio = (1 + math.cos(math.pi * epoch / period)) / (
            1 + math.cos(math.pi * (epoch - 1) / period)
        )
        return ratio * (lr - self.eta_min) + self.eta_min


class LinearLR(LRScheduler):
    """The learning rate at the start times a factor that grows, or shrinks, evenly.

    Parameters
    ----------
    optimizer : Optimizer
    start_factor : float, default 1/3
        More than 0, at most 1.
    end_factor : float, default 1.0
        From 0 to 1.
    total_iters : int, default 5
        After how many epochs `end_factor` is reached.
    last_epoch : int, default -1
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor must be more than 0, at most 1, got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"end_factor must be from 0 to 1, got {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _next(self, lr: float, base: float) -> float:
        if self.last_epoch == 0:
            return lr * self.start_factor
        if self.last_epoch > self.total_iters:
            return lr
        return lr * self._factor(self.last_epoch) / self._factor(self.last_epoch - 1)

    def _factor(self, epoch: int) -> float:
        return self.start_factor + (self.end_factor - self.start_factor) * epoch / self.total_iters


class ReduceLROnPlateau(_Schedule):
    """``lr * factor`` once a loss or a score has not become better for some epochs.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {'min', 'max'}, default 'min'
        Whether less or more is better.
    factor : float, default 0.1
        Less than 1.
    patience : int, default 10
        How many epochs without improvement are put up with.
    threshold : float, default 1e-4
        By what share of the best a metric has to be better than that.
    min_lr : float, default 0.0

    Examples
    --------
    >>> import instnorm
    >>> sgd = instnorm.optim.SGD([instnorm.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = instnorm.optim.lr_scheduler.ReduceLROnPlateau(sgd, patience=1, factor=0.5)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        if not factor < 1:
            raise ValueError(f"factor must be less than 1, got {factor}")
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.min_lr = min_lr
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.last_epoch = 0

    def step(self, metrics: float) -> None:
        """Take note of an epoch's loss or score; a Tensor of one element will do."""
        metric = float(metrics)
        self.last_epoch += 1
        if self._is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.num_bad_epochs > self.patience:
            self.num_bad_epochs = 0
            for group in self.optimizer.param_groups:
                group["lr"] = min(group["lr"], max(group["lr"] * self.factor, self.min_lr))

    def _is_better(self, metric: float) -> bool:
        if self.mode == "min":
            return metric < self.best * (1 - self.threshold)
        return metric > self.best * (1 + self.threshold)


def __getattr__(name: str) -> NoReturn:
    raise missing("instnorm.optim.lr_scheduler", name, __all__, _INSTEAD)
