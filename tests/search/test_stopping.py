"""Trials are compared at the same part of their own schedules, whatever their length."""

from __future__ import annotations

import math

import pytest

from orchestrator.search.stopping import StoppingRule, best_at

RULE = StoppingRule(rungs=(0.25, 0.5), keep=(0.75, 0.5), least_seen=4)


@pytest.mark.parametrize(("epochs", "rungs"), [(8, {2: 0.25, 4: 0.5}), (4, {1: 0.25, 2: 0.5}), (2, {1: 0.5}), (1, {})])
def test_rungs_are_fractions_of_the_trials_own_schedule(epochs: int, rungs: dict[int, float]) -> None:
    passed = {epoch: rung for epoch in range(1, epochs + 1) if (rung := RULE.rung_passed(epoch, epochs)) is not None}
    assert passed == rungs


def test_the_lower_half_stops_and_the_upper_half_goes_on() -> None:
    seen = [0.5, 0.6, 0.7]
    assert RULE.stops([0.4], seen, rung=0.5)
    assert not RULE.stops([0.65], seen, rung=0.5)
    # The best epoch so far counts, not the last one.
    assert not RULE.stops([0.9, 0.1], seen, rung=0.5)


def test_early_on_only_the_last_quarter_stops() -> None:
    seen = [0.5, 0.6, 0.7, 0.8]
    assert not RULE.stops([0.6], seen, rung=0.25) and RULE.stops([0.6], [*seen, 0.9], rung=0.5)
    assert RULE.stops([0.4], seen, rung=0.25)


def test_nobody_stops_before_enough_have_been_seen() -> None:
    assert not RULE.stops([0.0], [0.9, 0.9], rung=0.5)


def test_a_trial_within_the_margin_goes_on() -> None:
    rule = StoppingRule(margin=0.05)
    assert not rule.stops([0.62], [0.5, 0.65, 0.7, 0.7], rung=0.5)
    assert rule.stops([0.55], [0.5, 0.65, 0.7, 0.8], rung=0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_stops_at_once(value: float) -> None:
    assert RULE.stops([0.9, value], [], rung=0.25)


def test_a_history_is_read_at_its_rung_or_not_at_all() -> None:
    assert best_at([0.1, 0.5, 0.3, 0.9], 0.5, epochs=8) == 0.9
    assert best_at([0.1, 0.5], 0.5, epochs=8) is None
    assert best_at([0.1, math.nan], 0.25, epochs=8) == 0.1
