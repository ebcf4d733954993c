"""Schedules: torch's learning rates, epoch by epoch."""

import copy

import numpy as np
import pytest
from helpers.beside_torch import torch

import instnorm
from instnorm import optim

pytestmark = pytest.mark.torch

SCHEDULES = {
    "StepLR": ("StepLR", {"step_size": 3}),
    "StepLR gamma": ("StepLR", {"step_size": 1, "gamma": 0.9}),
    "CosineAnnealingLR": ("CosineAnnealingLR", {"T_max": 7}),
    "CosineAnnealingLR eta_min": ("CosineAnnealingLR", {"T_max": 4, "eta_min": 0.05}),
    "MultiStepLR": ("MultiStepLR", {"milestones": [9, 2, 2], "gamma": 0.3}),
    "ExponentialLR": ("ExponentialLR", {"gamma": 0.9}),
    "LambdaLR": ("LambdaLR", {"lr_lambda": lambda epoch: 1 / (1 + epoch)}),
    "LinearLR": ("LinearLR", {}),
    "LinearLR all": ("LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 8}),
}


def made(library, name):
    """An optimizer of two groups, and its schedule."""
    kind, options = SCHEDULES[name]
    groups = [{"params": library.zeros(1, requires_grad=True), "lr": lr} for lr in (0.5, 0.1)]
    optimizer = library.optim.SGD([dict(group) for group in groups], lr=1.0)
    return optimizer, getattr(library.optim.lr_scheduler, kind)(optimizer, **options)


def rates(library, name, change=None):
    optimizer, schedule = made(library, name)
    result = []
    for epoch in range(20):
        assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        result.append(schedule.get_last_lr())
        if change == epoch:
            for group in optimizer.param_groups:
                group["lr"] *= 0.5
        optimizer.step()
        schedule.step()
    return np.array(result)


@pytest.mark.parametrize("change", [None, 2])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_are_torchs(name, change):
    np.testing.assert_allclose(
        rates(instnorm, name, change), rates(torch, name, change), rtol=1e-12, atol=1e-16
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_on_from_its_state(name):
    optimizer, schedule = made(instnorm, name)
    for _ in range(3):
        optimizer.step()
        schedule.step()
    states = copy.deepcopy([optimizer.state_dict(), schedule.state_dict()])
    resumed, its_schedule = made(instnorm, name)
    resumed.load_state_dict(states[0])
    its_schedule.load_state_dict(states[1])
    for _ in range(5):
        assert its_schedule.get_last_lr() == schedule.get_last_lr()
        schedule.step()
        its_schedule.step()


def test_two_schedules_multiply():
    results = []
    for library in (instnorm, torch):
        sgd = library.optim.SGD([library.zeros(1, requires_grad=True)], lr=1.0)
        pair = [
            library.optim.lr_scheduler.LinearLR(sgd, 0.1, total_iters=3),
            library.optim.lr_scheduler.StepLR(sgd, 2),
        ]
        results.append([])
        for _ in range(6):
            results[-1].append(sgd.param_groups[0]["lr"])
            sgd.step()
            for schedule in pair:
                schedule.step()
    np.testing.assert_allclose(*results, rtol=1e-12)


SGD = optim.SGD([instnorm.zeros(1)], lr=1.0)
ERRORS = {
    "optimizer": (lambda s: s.StepLR(3, 1), TypeError, "optimizer must be an Optimizer, got int"),
    "step_size": (lambda s: s.StepLR(SGD, 0), ValueError, "step_size must be at least 1"),
    "T_max": (lambda s: s.CosineAnnealingLR(SGD, 0), ValueError, "T_max must be at least 1"),
    "start": (lambda s: s.LinearLR(SGD, 0.0), ValueError, "start_factor must be more than 0"),
    "end": (lambda s: s.LinearLR(SGD, end_factor=2.0), ValueError, "end_factor must be from 0"),
    "last_epoch": (
        lambda s: s.StepLR(optim.SGD([instnorm.zeros(1)]), 2, last_epoch=3),
        KeyError,
        "no 'initial_lr'",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_argument(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call(optim.lr_scheduler)


@pytest.mark.parametrize(
    "options",
    [{}, {"patience": 1, "factor": 0.5}, {"mode": "max", "patience": 0, "min_lr": 0.02}],
    ids=str,
)
def test_a_plateau_is_torchs(options):
    losses = np.random.default_rng(0).integers(1, 9, 40) / 4
    results = []
    for library in (instnorm, torch):
        groups = [{"params": library.zeros(1, requires_grad=True), "lr": lr} for lr in (0.5, 0.1)]
        optimizer = library.optim.SGD(groups, lr=1.0)
        schedule = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        rates = []
        for loss in losses:
            schedule.step(library.tensor(loss))
            rates.append(schedule.get_last_lr())
        results.append(rates)
        if library is instnorm:
            again = optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            again.load_state_dict(schedule.state_dict())
            assert again.state_dict() == schedule.state_dict()
    np.testing.assert_allclose(*results, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "best"}, "mode must be 'min' or 'max'"), ({"factor": 1.0}, "factor must be less")],
)
def test_a_plateau_checks_its_options(options, message):
    optimizer = optim.SGD([instnorm.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match=message):
        optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)


def test_a_schedule_that_there_is_not_names_the_nearest():
    with pytest.raises(AttributeError, match=r"OneCycleLR.*nearest: LambdaLR"):
        optim.lr_scheduler.OneCycleLR  # noqa: B018
