"""Each rule of training speaks on a made case and is silent on its opposite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from report_examples import a_configuration, a_report

from orchestrator.records import (
    EpochMetrics,
    Gain,
    GroupInvestment,
    Investment,
    Prospect,
    Report,
    Spending,
    Trial,
)
from orchestrator.reporting.group_records import GroupRecords
from orchestrator.reporting.training_advice import (
    baseline_suffices,
    longer_training,
    more_search,
    overfitting,
    smaller_depth,
)

RISING = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90]
FLAT = [0.50, 0.70, 0.88, 0.89, 0.89, 0.90, 0.90, 0.89, 0.90]


def first(report: Report) -> GroupRecords:
    return GroupRecords.of(report, report.groups.groups[0])


def trained(
    accuracies: Sequence[float],
    *,
    val_losses: Sequence[float] | None = None,
    train_losses: Sequence[float] | None = None,
    best_epoch: int | None = None,
    report: Report | None = None,
    **recipe: Any,
) -> GroupRecords:
    """The first group, of 320 validation images, with this history of its final training."""
    report = report or a_report()
    val_losses = val_losses or [1.0 / place for place in range(1, len(accuracies) + 1)]
    train_losses = train_losses or val_losses
    history = [
        EpochMetrics(epoch=place + 1, train_loss=train, val_loss=val, val_accuracy=accuracy)
        for place, (accuracy, train, val) in enumerate(zip(accuracies, train_losses, val_losses, strict=True))
    ]
    best = 1 + max(range(len(accuracies)), key=lambda place: accuracies[place])
    model = report.models[0].model_copy(
        update={
            "history": history,
            "best_epoch": best_epoch or best,
            "hyperparameters": a_configuration(**{"epochs": len(history), **recipe}),
        }
    )
    return first(report.model_copy(update={"models": [model, *report.models[1:]]}))


# Epochs.


def test_more_epochs_are_advised_against_where_the_last_third_brought_only_noise() -> None:
    (found,) = longer_training(trained(FLAT))
    assert found.kind == "enough_epochs"
    assert found.sentence == (
        "More epochs would not pay: the last 3 of 9 epochs brought 0.0 points of accuracy on 320 validation images, "
        "where noise is 1.9 points of accuracy; epoch 4 had come within it of the best."
    )


def test_more_epochs_are_advised_where_the_last_is_the_best_and_the_curve_rises_beyond_noise() -> None:
    (found,) = longer_training(trained(RISING))
    assert found.kind == "more_epochs"
    assert "the last is the best, and the last 3 of 9 epochs brought 15.0 points" in found.sentence


@pytest.mark.parametrize(
    ("accuracies", "recipe"),
    [
        # Ended early; a rate that falls; the best is not the last; too short to have a curve.
        (RISING, {"epochs": 30}),
        (RISING, {"schedule": "cosine"}),
        ([*RISING[:-1], 0.84], {}),
        (RISING[:3], {}),
    ],
)
def test_no_epochs_are_advised_without_evidence(accuracies: list[float], recipe: dict[str, Any]) -> None:
    assert longer_training(trained(accuracies, **recipe)) == []


def test_epochs_are_judged_by_the_metric_that_chose_them() -> None:
    report = a_report()
    searches = [found.model_copy(update={"metric": "val_loss", "mode": "min"}) for found in report.searches]
    changed = report.model_copy(update={"searches": searches})
    falling = [2.0 - 0.2 * place for place in range(9)]
    (found,) = longer_training(trained(FLAT, val_losses=falling, best_epoch=9, report=changed))
    assert found.kind == "more_epochs" and "0.600 nats of loss" in found.sentence


# Overfitting.

U_SHAPED = [1.0, 0.6, 0.4, 0.4, 0.5, 0.7, 0.9]
FALLING = [1.0, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05]


def test_more_varied_samples_are_advised_where_the_model_overfits() -> None:
    (found,) = overfitting(trained([0.8] * 7, val_losses=U_SHAPED, train_losses=FALLING))
    assert found.kind == "varied_samples"
    assert "from epoch 3 to 7 the validation loss rose from 0.400 to 0.900 nats" in found.sentence
    assert (
        "the training loss fell from 0.400 to 0.050; least varied at equal N is low-harbour-00 (3.0)" in found.sentence
    )


@pytest.mark.parametrize(
    ("val_losses", "train_losses", "recipe"),
    [
        (FALLING, FALLING, {}),
        ([*FALLING[:-1], 0.101], FALLING, {}),
        (U_SHAPED, U_SHAPED, {}),
        (U_SHAPED, FALLING, {"mixing": "mixup"}),
        (U_SHAPED, FALLING, {"flip": True, "crop": 0.0}),
    ],
)
def test_a_model_that_does_not_surely_overfit_gets_no_advice(
    val_losses: list[float], train_losses: list[float], recipe: dict[str, Any]
) -> None:
    assert overfitting(trained([0.8] * 7, val_losses=val_losses, train_losses=train_losses, **recipe)) == []


# Depth.


def searched(values: dict[int, float], *, status: str = "complete") -> GroupRecords:
    report = a_report()
    trials = [
        Trial(
            trial_id=f"low-{place}",
            hyperparameters=a_configuration(freeze_depth=depth),
            status="complete" if place else status,
            value=value,
            history=[],
            seconds=1.0,
        )
        for place, (depth, value) in enumerate(values.items())
    ]
    search = report.searches[0].model_copy(update={"trials": trials})
    return first(report.model_copy(update={"searches": [search, *report.searches[1:]]}))


def test_a_smaller_depth_is_advised_where_the_smallest_tried_is_surely_the_best() -> None:
    (found,) = smaller_depth(searched({2: 0.90, 3: 0.82, 6: 0.70}))
    assert found.kind == "smaller_depth"
    assert found.sentence == (
        "A freeze depth below 2, the smallest that was tried, may pay: its best trial reached 90.0%, the best of any "
        "other depth 82.0%, where noise is 1.9 points of accuracy."
    )


@pytest.mark.parametrize(
    "values", [{0: 0.90, 3: 0.82, 6: 0.70}, {2: 0.90, 3: 0.89, 6: 0.70}, {2: 0.80, 3: 0.90, 6: 0.70}, {2: 0.9, 6: 0.7}]
)
def test_no_depth_is_advised_without_evidence(values: dict[int, float]) -> None:
    assert smaller_depth(searched(values)) == []


def test_a_trial_that_was_stopped_is_no_evidence_for_its_depth() -> None:
    assert smaller_depth(searched({2: 0.90, 3: 0.82, 6: 0.70}, status="stopped")) == []


# Search and baselines.


def invested(chance: float = 0.3, interval: tuple[float, float] = (0.02, 0.06), extra_seconds: float = 100.0) -> Report:
    found = GroupInvestment(
        group="low",
        parts={},
        spent=Spending(seconds=130.0),
        gain=Gain(
            baseline="head_only",
            num_images=200,
            gain=sum(interval) / 2,
            interval=interval,
            extra_seconds=extra_seconds,
        ),
        prospect=Prospect(num_trials=12, seconds=80.0, least_gain=0.021, chance=chance, chance_of_next=0.01),
    )
    return a_report().model_copy(update={"investment": Investment(groups=[found])})


def test_more_search_is_advised_by_its_chance() -> None:
    (hardly,) = more_search(first(invested(chance=0.06)))
    assert hardly.kind == "enough_search"
    assert hardly.sentence == (
        "More search would hardly pay: 12 trials more (1 min 20 s of trial time) would bring one that is better by "
        "more than noise (2.1 points of accuracy) with a chance of 6%."
    )
    (may,) = more_search(first(invested(chance=0.7)))
    assert may.kind == "more_search" and may.sentence.startswith("More search may pay")


def test_the_bounds_of_advice_are_chances_that_searches_have() -> None:
    assert [more_search(first(invested(chance=chance)))[0].kind for chance in (0.15, 0.4)] == [
        "enough_search",
        "more_search",
    ]


def test_a_middling_or_unknown_chance_advises_nothing() -> None:
    assert more_search(first(invested(chance=0.3))) == []
    assert more_search(first(a_report())) == []


def test_the_cheapest_baseline_is_advised_where_surely_no_point_was_gained_over_it() -> None:
    (found,) = baseline_suffices(first(invested(interval=(-0.01, 0.006))))
    assert found.kind == "baseline_suffices"
    assert found.sentence == (
        "For such subsets the cheapest baseline, head only, does as well: -0.2 points [-1.0, +0.6] on 200 test images "
        "were gained over it for 1 min 40 s more."
    )


@pytest.mark.parametrize(
    "changes",
    [{"interval": (0.02, 0.06)}, {"interval": (-0.03, 0.04)}, {"interval": (-0.02, 0.0), "extra_seconds": -5}],
)
def test_no_baseline_is_advised_where_something_may_have_been_gained_or_nothing_is_saved(
    changes: dict[str, Any],
) -> None:
    assert baseline_suffices(first(invested(**changes))) == []


def test_a_report_without_records_advises_nothing() -> None:
    report = a_report().model_copy(update={"models": [], "searches": []})
    for rule in (longer_training, overfitting, smaller_depth, more_search, baseline_suffices):
        assert rule(first(report)) == []
