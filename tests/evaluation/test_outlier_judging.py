"""Scores of any number of the target's images are judged by their place among those of the source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluation_examples import a_prediction_table
from numpy.typing import NDArray
from parts_examples import InParts

from orchestrator.evaluation import outlier_judging
from orchestrator.evaluation.outlier_judging import judge_predicted_outliers
from orchestrator.evaluation.outliers import area_under_curve, judge_outliers
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.predictions import Predictions, number_units
from orchestrator.records import OutlierScores

Scores = NDArray[np.float64]
ALONE = [""] * 60


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlier_judging, "MOST_RANKED_IMAGES", 50)


def some_scores(num_images: int, middle: float, *, seed: int, decimals: int | None = None) -> Scores:
    """Draw scores that crowd near 0 and 1; rounded ones have ties, at 0 and 1 too."""
    logits = np.random.default_rng(seed).normal(middle, 8.0, size=num_images)
    scores = 1 / (1 + np.exp(-logits))
    return scores if decimals is None else scores.round(decimals)


def of_target(scores: Scores, together: list[str] | None = None) -> Predictions:
    names = together or [""] * len(scores)
    return replace(a_prediction_table(len(scores)), outlier_scores=scores, together=names)


def judged(
    predictions: PredictionParts, source: Scores, together: list[str] | None = None, samples: int = 300
) -> OutlierScores | None:
    return judge_predicted_outliers(
        predictions,
        source,
        "reject",
        source_together=together or [""] * len(source),
        bootstrap_samples=samples,
        seed=4,
    )


@pytest.mark.parametrize("size", [1, 13, 300])
def test_few_images_are_judged_at_once(size: int) -> None:
    target, source = some_scores(200, 0.0, seed=1), some_scores(60, 4.0, seed=2)
    kin, source_kin = [f"kin{number // 4}" for number in range(200)], [f"kin{number // 3}" for number in range(60)]
    for names, source_names in ((None, None), (kin, source_kin)):
        expected = judge_outliers(
            target,
            source,
            "reject",
            bootstrap_samples=300,
            seed=4,
            units=number_units(names or [""] * 200),
            source_units=number_units(source_names or ALONE),
        )
        assert judged(InParts(of_target(target, names), size), source, source_names) == expected


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("size", [1, 13, 300])
def test_the_area_of_many_images_is_that_of_ranks_ties_included(size: int, decimals: int | None) -> None:
    target, source = (
        some_scores(number, middle, seed=number, decimals=decimals) for number, middle in ((200, 0.0), (60, 4.0))
    )
    found = judged(InParts(of_target(target), size), source)
    assert found is not None and (found.num_target, found.num_source) == (200, 60)
    assert found.auc == pytest.approx(area_under_curve(target, source), abs=1e-12)
    assert found == judged(of_target(target), source)


def test_the_interval_of_many_images_is_that_of_few_to_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    target, source = some_scores(600, 0.0, seed=1), some_scores(60, 4.0, seed=2)
    few = judged(of_target(target), source, samples=2000)
    monkeypatch.setattr(outlier_judging, "MOST_RANKED_IMAGES", 50)
    many = judged(of_target(target), source, samples=2000)
    assert few is not None and many is not None
    same_interval(many, few)


@pytest.mark.parametrize(("of_one_kin", "of_source_kin"), [(10, 1), (1, 6), (10, 6)])
def test_kin_of_either_side_is_drawn_together(
    of_one_kin: int, of_source_kin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Copies of an image say no more than one.
    target = np.repeat(some_scores(600 // of_one_kin, 0.0, seed=1), of_one_kin)
    source = np.repeat(some_scores(60 // of_source_kin, 4.0, seed=2), of_source_kin)
    kin, source_kin = (
        [f"kin{number // copies}" if copies > 1 else "" for number in range(total)]
        for total, copies in ((600, of_one_kin), (60, of_source_kin))
    )
    few = judged(of_target(target, kin), source, source_kin, samples=2000)
    monkeypatch.setattr(outlier_judging, "MOST_RANKED_IMAGES", 50)
    many = judged(InParts(of_target(target, kin), 70), source, source_kin, samples=2000)
    alone = judged(of_target(target), source, samples=2000)
    assert few is not None and many is not None and alone is not None
    assert many.auc == pytest.approx(few.auc, abs=1e-12)
    same_interval(many, few)
    assert np.diff(many.auc_interval) > 1.2 * np.diff(alone.auc_interval)


@pytest.mark.usefixtures("few_are_many")
def test_parts_and_their_order_change_nothing() -> None:
    images, source = of_target(some_scores(200, 0.0, seed=1), [f"kin{number // 4}" for number in range(200)]), ALONE
    scores = some_scores(60, 4.0, seed=2)
    shuffled = InParts(images.at(np.random.default_rng(1).permutation(200)), 7)
    assert judged(images, scores, source) == judged(shuffled, scores, source)


@pytest.mark.parametrize("most", [50, 1000])
def test_a_side_without_images_or_scores_cannot_be_judged(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlier_judging, "MOST_RANKED_IMAGES", most)
    source = some_scores(60, 4.0, seed=2)
    assert judged(of_target(np.zeros(0)), source) is None
    assert judged(of_target(some_scores(60, 0.0, seed=1)), np.zeros(0)) is None
    assert judged(a_prediction_table(60), source) is None


def same_interval(found: OutlierScores, expected: OutlierScores) -> None:
    low, high = expected.auc_interval
    assert found.auc_interval == pytest.approx((low, high), abs=(high - low) / 10)
