"""Schedules: learning rates that change from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from instnorm.optim.optimizer import Optimizer

__all__ = ["CosineAnnealingLR", "LRScheduler", "LinearLR", "StepLR"]


class LRScheduler:
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

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; the optimizer's own state has the rates."""
        vars(self).update({k: v for k, v in state_dict.items() if k in vars(self)})


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
