"""The learning rate over a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orchestrator.finetune.schedules import base_rate, is_constant, rate_factor
from orchestrator.records import Hyperparameters


def recipe(**fields: object) -> Hyperparameters:
    return Hyperparameters.model_validate({"freeze_depth": 0, "learning_rate": 0.1, "epochs": 4, **fields})


def torch_rates(schedule: str, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    if schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    else:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps + 1, cycle_momentum=False)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_schedule_is_that_of_torch(schedule: str) -> None:
    steps = 2000
    ours = [0.1 * rate_factor(recipe(schedule=schedule), step / steps) for step in range(steps)]
    # OneCycleLR counts the steps of its two parts a little differently.
    np.testing.assert_allclose(ours, torch_rates(schedule, steps), atol=0.1 * 3 / steps)


def test_the_rate_rises_linearly_through_the_warm_up_and_then_begins_its_schedule() -> None:
    warm = recipe(schedule="cosine", warmup=0.2)
    assert [rate_factor(warm, progress) for progress in (0.05, 0.1, 0.2)] == pytest.approx([0.25, 0.5, 1.0])
    assert rate_factor(warm, 0.6) == pytest.approx(0.5)
    assert rate_factor(warm, 1.0) == pytest.approx(0.0, abs=1e-12)
    assert rate_factor(recipe(), 0.7) == 1.0
    assert is_constant(recipe()) and not is_constant(warm) and not is_constant(recipe(warmup=0.1))


@pytest.mark.parametrize(("scaling", "rate"), [("none", 0.1), ("linear", 0.8), ("sqrt", 0.1 * 8**0.5)])
def test_the_rate_follows_the_samples_of_a_step_by_the_rule_that_is_named(scaling: str, rate: float) -> None:
    assert base_rate(recipe(rate_scaling=scaling, batch_size=128, accumulate=2)) == pytest.approx(rate)
    assert base_rate(recipe(rate_scaling=scaling, batch_size=32)) == pytest.approx(0.1)
