"""What a strategy trains in each epoch."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.finetune import StrategyName
from orchestrator.finetune.phases import Phase, depends_on_length, phase_of, plan_phases
from orchestrator.records import Hyperparameters

NUM_STAGES = 6


def recipe(strategy: str, *, depth: int = 3, epochs: int = 10, **fields: object) -> Hyperparameters:
    values = {"freeze_depth": depth, "learning_rate": 1e-3, "epochs": epochs, "strategy": strategy, **fields}
    return Hyperparameters.model_validate(values)


def planned(strategy: str, **fields: object) -> list[tuple[int, int, bool]]:
    phases = plan_phases(recipe(strategy, **fields), NUM_STAGES)
    return [(phase.first_epoch, phase.depth, phase.trains_head) for phase in phases]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("freeze", [(1, 3, True)]),
        ("gradual", [(1, 6, True), (3, 5, True), (5, 4, True), (7, 3, True)]),
        ("probe_then_finetune", [(1, 6, True), (4, 3, True)]),
        ("feature_only", [(1, 6, True), (4, 3, False)]),
        ("feature_then_network", [(1, 6, True), (4, 3, False), (8, 3, True)]),
    ],
)
def test_a_strategy_goes_through_its_phases(strategy: str, expected: list[tuple[int, int, bool]]) -> None:
    assert planned(strategy, unfreeze_every=2) == expected


@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_with_every_stage_frozen_the_head_alone_is_trained(strategy: str) -> None:
    assert planned(strategy, depth=NUM_STAGES) == [(1, NUM_STAGES, True)]


@given(
    strategy=st.sampled_from(get_args(StrategyName)),
    depth=st.integers(0, NUM_STAGES),
    epochs=st.integers(1, 30),
    share=st.floats(0.01, 0.99),
    every=st.integers(1, 4),
)
def test_phases_begin_with_the_first_epoch_follow_each_other_and_thaw_no_frozen_stage(
    strategy: str, depth: int, epochs: int, share: float, every: int
) -> None:
    hyperparameters = recipe(strategy, depth=depth, epochs=epochs, head_share=share, unfreeze_every=every)
    phases = plan_phases(hyperparameters, NUM_STAGES)
    starts = [phase.first_epoch for phase in phases]
    assert starts[0] == 1 and starts == sorted(set(starts)) and starts[-1] <= epochs
    assert all(depth <= phase.depth <= NUM_STAGES for phase in phases)
    assert all(phase.trains_head or phase.depth < NUM_STAGES for phase in phases)
    assert [phase_of(phases, epoch).first_epoch for epoch in starts] == starts
    if not depends_on_length(hyperparameters):
        longer = plan_phases(hyperparameters.model_copy(update={"epochs": epochs + 5}), NUM_STAGES)
        assert longer[: len(phases)] == phases


def test_an_epoch_belongs_to_the_last_phase_that_has_begun() -> None:
    phases = [Phase(first_epoch=1, depth=6), Phase(first_epoch=4, depth=3)]
    assert [phase_of(phases, epoch).depth for epoch in (1, 3, 4, 9)] == [6, 6, 3, 3]
