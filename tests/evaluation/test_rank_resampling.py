"""Ranks of resamples are measured as those of the images that were drawn would be."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from orchestrator.evaluation import rank_resampling
from orchestrator.evaluation.average_precision import Ranking
from orchestrator.evaluation.rank_resampling import resample_areas


@pytest.mark.parametrize("digits", [1, 8])
def test_the_area_of_weighted_images_is_that_of_images_that_are_there_as_often(digits: int) -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.random(60).round(digits), rng.random(60) < 0.3
    weights = rng.integers(0, 4, size=(5, 60))
    found = Ranking.of(scores, truth).area(weights)
    for area, drawn in zip(found, weights, strict=True):
        assert area == pytest.approx(roc_auc_score(np.repeat(truth, drawn), np.repeat(scores, drawn)), abs=1e-12)
    assert Ranking.of(scores, truth).area() == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_there_is_no_area_without_both_kinds_of_images() -> None:
    scores = np.array([0.2, 0.7, 0.9])
    ranking = Ranking.of(scores, np.array([True, False, False]))
    found = ranking.area(np.array([[1, 1, 0], [0, 1, 1], [2, 0, 0]]))
    assert found[0] == 0.0 and np.isnan(found[1:]).all()
    assert np.isnan(Ranking.of(np.zeros(0), np.zeros(0, dtype=bool)).area())


def some_images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    truth = rng.integers(3, size=90)
    odds = rng.normal(size=(90, 3)) + 1.5 * np.eye(3)[truth]
    probabilities = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), truth


def test_areas_of_resamples_spread_around_that_of_the_images() -> None:
    probabilities, truth = some_images()
    found = resample_areas(probabilities, truth, samples=400, seed=0, units=None)
    assert found is not None and found.shape == (400, 3)
    areas = [roc_auc_score(truth == k, probabilities[:, k]) for k in range(3)]
    np.testing.assert_allclose(found.mean(axis=0), areas, atol=0.01)
    # Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve", 1982.
    for k, area in enumerate(areas):
        own = int((truth == k).sum())
        q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
        error = (area * (1 - area) + (own - 1) * (q1 - area**2) + (89 - own) * (q2 - area**2)) / (own * (90 - own))
        assert 0.7 < found[:, k].std() / np.sqrt(error) < 1.3


def test_kin_is_drawn_together() -> None:
    probabilities, truth = some_images()
    copies = np.repeat(np.arange(90), 4)
    alone = resample_areas(probabilities, truth, samples=300, seed=0, units=None)
    together = resample_areas(probabilities[copies], truth[copies], samples=300, seed=0, units=copies)
    assert alone is not None and together is not None
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_of_too_many_answers_nothing_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_resampling, "MOST_RESAMPLED_ANSWERS", 269)
    assert resample_areas(*some_images(), samples=10, seed=0, units=None) is None
