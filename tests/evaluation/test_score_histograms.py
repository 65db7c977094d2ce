"""Ranks counted in bins add up over parts, and are as far from scikit-learn's as is stated at the most."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from orchestrator.errors import DataError
from orchestrator.evaluation.score_histograms import ScoreHistograms

SHARES = np.array([0.5, 0.1, 0.01, 0.9])
ROUNDING = 1e-9

Images = tuple[NDArray[np.float32], NDArray[np.bool_]]


def drawn(count: int, *, sureness: float = 1.0, digits: int | None = None, seed: int = 0) -> Images:
    """Draw probabilities of labels of unequal frequency; `digits` makes ties, of which some fill whole bins."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=(count, len(SHARES))) < SHARES
    logits = sureness * (rng.normal(size=truth.shape) + 2.0 * truth + np.log(SHARES))
    probabilities = 1 / (1 + np.exp(-logits))
    return (probabilities if digits is None else probabilities.round(digits)).astype(np.float32), truth


@pytest.mark.parametrize("num_parts", [1, 2, 7])
def test_parts_add_up_to_the_whole(num_parts: int) -> None:
    probabilities, truth = drawn(200)
    parts = [ScoreHistograms.of(probabilities[start::num_parts], truth[start::num_parts]) for start in range(num_parts)]
    found, expected = reduce(add, parts[::-1]), ScoreHistograms.of(probabilities, truth)
    np.testing.assert_array_equal(found.positives, expected.positives)
    np.testing.assert_array_equal(found.negatives, expected.negatives)
    assert found.positives.sum(axis=1).tolist() == truth.sum(axis=0).tolist()


@pytest.mark.parametrize("count", [30, 5_000])
@pytest.mark.parametrize("sureness", [0.1, 1.0, 15.0])
@pytest.mark.parametrize("digits", [None, 1, 3])
def test_what_ranks_give_is_within_the_stated_error(count: int, sureness: float, digits: int | None) -> None:
    probabilities, truth = drawn(count, sureness=sureness, digits=digits)
    histograms = ScoreHistograms.of(probabilities, truth)
    for k in np.flatnonzero(truth.any(axis=0)).tolist():
        precision = average_precision_score(truth[:, k], probabilities[:, k])
        error = histograms.average_precision_errors()[k]
        assert abs(histograms.average_precisions()[k] - precision) <= error + ROUNDING
        area = roc_auc_score(truth[:, k], probabilities[:, k])
        assert abs(histograms.aucs()[k] - area) <= histograms.auc_errors()[k] + ROUNDING


def test_of_many_images_little_is_lost_and_little_more_is_stated() -> None:
    probabilities, truth = drawn(50_000)
    histograms = ScoreHistograms.of(probabilities, truth)
    precisions = average_precision_score(truth, probabilities, average=None)
    assert np.abs(histograms.average_precisions() - precisions).max() < 1e-3
    assert histograms.average_precision_errors().max() < 0.01


def test_scores_that_no_bin_shares_lose_nothing() -> None:
    truth = np.array([[True], [False], [True], [False], [True]])
    probabilities = np.array([[0.9], [0.7], [0.5], [0.3], [0.01]], dtype=np.float32)
    histograms = ScoreHistograms.of(probabilities, truth)
    assert histograms.average_precisions() == pytest.approx(average_precision_score(truth, probabilities), abs=ROUNDING)
    assert histograms.average_precision_errors() == pytest.approx(0.0, abs=ROUNDING)
    assert histograms.aucs() == pytest.approx(roc_auc_score(truth, probabilities), abs=ROUNDING)


def test_a_threshold_has_nearly_the_best_f1_of_all() -> None:
    probabilities, truth = drawn(5_000, seed=3)
    for k, threshold in enumerate(ScoreHistograms.of(probabilities, truth).thresholds().tolist()):
        precision, recall, _ = precision_recall_curve(truth[:, k], probabilities[:, k])
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
        assert f1_score(truth[:, k], probabilities[:, k] >= threshold) == pytest.approx(best, abs=5e-3)


def test_of_thresholds_with_equal_f1_the_nearest_to_one_half_is_taken() -> None:
    probabilities = np.array([[0.9, 0.9, 0.1], [0.2, 0.8, 0.2]], dtype=np.float32)
    truth = np.array([[True, True, False], [False, True, False]])
    assert ScoreHistograms.of(probabilities, truth).thresholds().tolist() == [0.5, 0.5, 0.5]
    sure = np.array([[1.0], [0.0]], dtype=np.float32)
    assert ScoreHistograms.of(sure, np.array([[True], [True]])).thresholds().tolist() == [0.0]


def test_a_label_that_no_image_has_is_undefined_and_one_that_all_have_has_no_area() -> None:
    probabilities = np.array([[0.9, 0.9], [0.2, 0.8]], dtype=np.float32)
    histograms = ScoreHistograms.of(probabilities, np.array([[False, True], [False, True]]))
    precisions, errors = histograms.average_precisions(), histograms.average_precision_errors()
    assert np.isnan([precisions[0], errors[0]]).all() and (precisions[1], errors[1]) == pytest.approx((1.0, 0.0))
    assert np.isnan(histograms.aucs()).all()


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        ScoreHistograms.of(np.array([[np.nan]]), np.array([[True]]))
