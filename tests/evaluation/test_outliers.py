"""What tells an image that is none of the classes, and how well it does."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from orchestrator.evaluation.outliers import area_under_curve, judge_outliers, tell_outliers


def test_the_class_that_rejects_is_the_score_and_the_others_share_the_rest() -> None:
    probabilities = np.array([[0.6, 0.2, 0.2], [0.05, 0.05, 0.9], [0.0, 0.0, 1.0]], dtype=np.float32)
    known, scores = tell_outliers(probabilities, "reject")
    np.testing.assert_allclose(known, [[0.75, 0.25], [0.5, 0.5], [0.5, 0.5]], atol=1e-6)
    assert known.dtype == np.float32
    np.testing.assert_allclose(scores, [0.2, 0.9, 1.0], atol=1e-6)


def test_without_a_class_that_rejects_the_score_is_what_the_largest_probability_leaves() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [1.0, 1e-12, 0.0]], dtype=np.float32)
    known, scores = tell_outliers(probabilities, "outlier_exposure")
    assert known is probabilities
    np.testing.assert_allclose(scores, [0.3, 1e-12], rtol=1e-6)


def test_a_model_without_negatives_has_no_score() -> None:
    probabilities = np.ones((2, 1), dtype=np.float32)
    assert tell_outliers(probabilities, "none") == (probabilities, None)


def test_the_area_is_that_of_the_library_with_ties_by_half() -> None:
    rng = np.random.default_rng(0)
    target, source = rng.normal(0, 1, 50).round(1), rng.normal(1, 1, 70).round(1)
    truth = np.repeat([0, 1], [50, 70])
    expected = roc_auc_score(truth, np.concatenate([target, source]))
    assert area_under_curve(target, source) == pytest.approx(expected, abs=1e-12)


def test_the_interval_holds_the_area_and_is_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(0)
    target, source = rng.normal(0, 1, 80), rng.normal(1.5, 1, 60)
    one, again = (judge_outliers(target, source, "reject", bootstrap_samples=300, seed=4) for _ in range(2))
    assert one is not None and one == again
    low, high = one.auc_interval
    assert low < one.auc < high and 0.02 < high - low < 0.2
    assert (one.num_target, one.num_source) == (80, 60)


def test_a_side_without_images_cannot_be_judged() -> None:
    assert judge_outliers(np.zeros(0), np.ones(3), "reject", bootstrap_samples=100, seed=0) is None


def test_the_interval_draws_kin_together() -> None:
    rng = np.random.default_rng(0)
    target, source = rng.normal(0.0, 1.0, 40), rng.normal(1.0, 1.0, 40)
    widths = []
    for copies in (1, 10):
        # Ten copies of each image say no more than one.
        units = np.repeat(np.arange(40), copies)
        found = judge_outliers(
            np.repeat(target, copies),
            np.repeat(source, copies),
            "reject",
            bootstrap_samples=400,
            seed=1,
            units=units,
            source_units=units,
        )
        assert found is not None
        widths.append(found.auc_interval[1] - found.auc_interval[0])
    assert widths[1] == pytest.approx(widths[0], rel=0.2)


def test_images_that_are_all_one_kin_are_drawn_as_one() -> None:
    rng = np.random.default_rng(2)
    target, source = rng.random(30), rng.random(30) + 0.3
    one = np.zeros(30, dtype=np.int64)
    found = judge_outliers(target, source, "reject", bootstrap_samples=50, seed=0, units=one, source_units=one)
    assert found is not None and found.auc_interval == (pytest.approx(found.auc), pytest.approx(found.auc))
