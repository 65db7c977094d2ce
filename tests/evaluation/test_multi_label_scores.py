"""Scores of label sets are scikit-learn's, their thresholds the best on validation, and their intervals hold."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    log_loss,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

from orchestrator.errors import DataError
from orchestrator.evaluation import multi_label, rank_resampling
from orchestrator.evaluation.answers import pack, pack_matrix
from orchestrator.evaluation.average_precision import Ranking, average_precisions
from orchestrator.evaluation.judging import judge
from orchestrator.evaluation.metrics import predict_labels
from orchestrator.evaluation.multi_label import fit_thresholds, precision_gain, score_label_sets
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import BaselineResult, Evaluation, Hyperparameters, Scores

LABELS = ["bar", "disc", "frame", "star"]
EXACT = 1e-9
SHARES = np.array([0.5, 0.3, 0.1, 0.7])


def drawn(count: int, *, seed: int = 0, digits: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw labels of unequal frequency and probabilities that know something of them; `digits` makes ties."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=(count, len(SHARES))) < SHARES
    logits = rng.normal(size=truth.shape) + 1.5 * truth - 1.0
    probabilities = 1 / (1 + np.exp(-logits))
    return (probabilities if digits is None else probabilities.round(digits)).astype(np.float32), truth


def scored(count: int, *, seed: int = 0, units: NDArray[np.int64] | None = None) -> Scores:
    probabilities, truth = drawn(count, seed=seed)
    thresholds = np.full(len(LABELS), 0.4)
    return score_label_sets(probabilities, truth, LABELS, thresholds, bootstrap_samples=200, seed=0, units=units)


@pytest.mark.parametrize("digits", [None, 1])
def test_scores_are_those_of_scikit_learn(digits: int | None) -> None:
    probabilities, truth = drawn(300, digits=digits)
    thresholds = np.array([0.3, 0.5, 0.2, 0.6])
    found = score_label_sets(probabilities, truth, LABELS, thresholds, bootstrap_samples=100, seed=0)
    sets = found.multi_label
    assert sets is not None
    for scores, cut in ((sets.at_half, 0.5), (sets.at_fitted, thresholds)):
        said = probabilities >= cut
        assert scores.subset_accuracy == pytest.approx(accuracy_score(truth, said), abs=EXACT)
        assert scores.hamming_loss == pytest.approx(hamming_loss(truth, said), abs=EXACT)
        assert scores.micro_f1 == pytest.approx(f1_score(truth, said, average="micro"), abs=EXACT)
        assert scores.macro_f1 == pytest.approx(f1_score(truth, said, average="macro"), abs=EXACT)
    precisions = average_precision_score(truth, probabilities, average=None)
    assert [label.average_precision for label in sets.by_label] == pytest.approx(precisions.tolist(), abs=EXACT)
    assert sets.mean_average_precision == pytest.approx(precisions.mean(), abs=EXACT)
    said = probabilities >= 0.5
    assert found.accuracy == sets.at_half.subset_accuracy and found.confusion_matrix == []
    areas = [float(roc_auc_score(truth[:, k], probabilities[:, k])) for k in range(4)]
    assert [scores.auc for scores in found.by_class] == pytest.approx(areas, abs=EXACT)
    assert found.macro_auc == pytest.approx(np.mean(areas), abs=EXACT)
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        values = [getattr(scores, name) for scores in found.by_class]
        assert values == pytest.approx(score(truth, said, average=None, zero_division=0).tolist(), abs=EXACT)
    if digits is None:
        losses = [log_loss(truth[:, k], probabilities[:, k].astype(np.float64)) for k in range(4)]
        assert found.cross_entropy == pytest.approx(np.mean(losses), abs=EXACT)
    fitted = [label.f1 for label in sets.by_label]
    assert fitted == pytest.approx(f1_score(truth, probabilities >= thresholds, average=None).tolist(), abs=EXACT)


def test_average_precision_of_weighed_images_is_that_of_repeated_ones() -> None:
    probabilities, truth = drawn(60, digits=1)
    weights = np.random.default_rng(1).integers(0, 3, size=(5, 60))
    found = Ranking.of(probabilities[:, 0], truth[:, 0]).average_precision(weights)
    for weight, value in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(60), weight)
        assert value == pytest.approx(average_precision_score(truth[rows, 0], probabilities[rows, 0]), abs=EXACT)


def test_average_precision_is_undefined_without_the_label_and_without_images() -> None:
    assert np.isnan(average_precisions(np.zeros((3, 1)), np.zeros((3, 1), dtype=bool))).all()
    assert np.isnan(average_precisions(np.zeros((0, 2)), np.zeros((0, 2), dtype=bool))).tolist() == [True, True]


def test_a_fitted_threshold_has_the_best_f1_of_all_thresholds() -> None:
    probabilities, truth = drawn(200, seed=4)
    thresholds = fit_thresholds(probabilities, truth)
    for k, threshold in enumerate(thresholds):
        precision, recall, _ = precision_recall_curve(truth[:, k], probabilities[:, k])
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            best = np.nanmax(2 * precision * recall / (precision + recall))
        assert f1_score(truth[:, k], probabilities[:, k] >= threshold) == pytest.approx(best, abs=EXACT)


def test_a_label_that_validation_lacks_keeps_the_threshold_of_one_half_and_equals_the_nearest() -> None:
    truth = np.array([[False, True], [False, False]])
    probabilities = np.array([[0.9, 0.8], [0.2, 0.1]], dtype=np.float32)
    assert fit_thresholds(probabilities, truth).tolist() == pytest.approx([0.5, 0.45])
    assert fit_thresholds(probabilities[:0], truth[:0]).tolist() == [0.5, 0.5]
    # Everything is said at any threshold below: of equal F1 the one nearest to one half is taken.
    everyone = np.ones((2, 2), dtype=bool)
    assert (fit_thresholds(probabilities, everyone) <= [0.2, 0.1]).all()


def test_a_label_reaches_its_threshold_at_equality() -> None:
    assert predict_labels(np.array([[0.5, 0.49]], dtype=np.float32)).tolist() == [[True, False]]


def test_intervals_hold_the_truth_in_about_95_of_100_draws() -> None:
    whole, truth = drawn(100_000, seed=99)
    population = score_label_sets(whole, truth, LABELS, np.full(4, 0.4), bootstrap_samples=2, seed=0).multi_label
    assert population is not None and population.mean_average_precision_interval is not None
    names = ("subset_accuracy", "hamming_loss", "micro_f1", "macro_f1")
    held = dict.fromkeys((*names, "mean_average_precision"), 0)
    for seed in range(100):
        found = scored(250, seed=seed).multi_label
        assert found is not None and found.mean_average_precision_interval is not None
        for name in names:
            low, high = getattr(found.at_half, f"{name}_interval")
            held[name] += low <= getattr(population.at_half, name) <= high
        low, high = found.mean_average_precision_interval
        held["mean_average_precision"] += low <= (population.mean_average_precision or 0) <= high
    assert all(86 <= count <= 100 for count in held.values()), held


def test_kin_are_drawn_together() -> None:
    apart, kin = scored(200), scored(200, units=np.arange(200) // 50)
    assert apart.multi_label is not None and kin.multi_label is not None
    assert kin.accuracy == apart.accuracy
    assert kin.multi_label.mean_average_precision == apart.multi_label.mean_average_precision
    assert kin.multi_label.at_half.hamming_loss_interval != apart.multi_label.at_half.hamming_loss_interval
    assert kin.multi_label.mean_average_precision_interval != apart.multi_label.mean_average_precision_interval


def test_without_images_or_labels_what_is_undefined_is_none() -> None:
    probabilities, truth = drawn(20)
    nothing = score_label_sets(probabilities[:0], truth[:0], LABELS, np.full(4, 0.5), bootstrap_samples=100, seed=0)
    assert nothing.num_images == 0 and nothing.accuracy is None and nothing.multi_label is None
    bare = np.zeros_like(truth)
    low = np.full_like(probabilities, 0.1)
    found = score_label_sets(low, bare, LABELS, np.full(4, 0.5), bootstrap_samples=100, seed=0)
    assert found.multi_label is not None and found.accuracy == 1.0
    assert found.multi_label.mean_average_precision is None and found.multi_label.at_half.micro_f1 is None
    assert found.macro_f1 is None and found.macro_auc is None and found.cross_entropy == pytest.approx(-np.log(0.9))
    assert Scores.model_validate_json(found.model_dump_json()) == found


def test_a_gain_in_precision_is_paired_by_image() -> None:
    probabilities, truth = drawn(200)
    worse = (0.5 * probabilities + 0.5 * drawn(200, seed=7)[0]).astype(np.float32)
    found = precision_gain(probabilities, worse, truth, bootstrap_samples=500, seed=0)
    assert found is not None and found[2] is not None
    values = [average_precision_score(truth, each, average="macro") for each in (probabilities, worse)]
    assert found[:2] == pytest.approx((values[1], values[0] - values[1]), abs=EXACT)
    assert 0 < found[2][0] < found[1] < found[2][1]
    same = precision_gain(probabilities, probabilities, truth, bootstrap_samples=100, seed=0)
    assert same is not None and same[1:] == (0.0, (0.0, 0.0))
    assert precision_gain(probabilities, worse, np.zeros_like(truth), bootstrap_samples=100, seed=0) is None


def test_labels_that_no_image_has_count_among_the_answers_that_are_ranked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probabilities, truth = drawn(100)
    truth[:, 2:] = False

    def interval(samples: int) -> tuple[float, float] | None:
        found = score_label_sets(probabilities, truth, LABELS, np.full(4, 0.5), bootstrap_samples=samples, seed=0)
        assert found.multi_label is not None
        return found.multi_label.mean_average_precision_interval

    fifty, hundred = interval(50), interval(100)
    monkeypatch.setattr(rank_resampling, "_MOST_WEIGHED_ANSWERS", 50 * 100 * len(LABELS))
    assert interval(100) == fifty != hundred


def test_too_many_answers_have_no_interval_of_their_mean_average_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_label, "MOST_RESAMPLED_ANSWERS", 4 * 50)
    for count, is_bounded in ((50, True), (51, False)):
        found = scored(count).multi_label
        assert found is not None and (found.mean_average_precision_interval is not None) is is_bounded


@pytest.mark.parametrize("fault", ["labels", "shape", "nan"])
def test_what_does_not_fit_is_refused(fault: str) -> None:
    probabilities, truth = drawn(5)
    labels = LABELS[:2] if fault == "labels" else LABELS
    if fault == "shape":
        truth = truth[:3]
    if fault == "nan":
        probabilities[0, 0] = np.nan
    with pytest.raises(DataError):
        score_label_sets(probabilities, truth, labels, np.full(4, 0.5), bootstrap_samples=100, seed=0)


def predictions(count: int, seed: int = 0) -> Predictions:
    probabilities, truth = drawn(count, seed=seed)
    return Predictions(
        ids=[str(number) for number in range(count)],
        subsets=["ab"[number % 2] for number in range(count)],
        together=[""] * count,
        truth=truth,
        probabilities=probabilities,
    )


def test_predictions_are_kept_with_their_label_sets() -> None:
    found = predictions(30).with_baselines({"head_only": np.arange(30) % 2 == 0})
    again = Predictions.from_table(found.to_table())
    assert again.is_multi_label and again.truth.dtype == np.bool_
    assert np.array_equal(again.truth, found.truth) and np.array_equal(again.probabilities, found.probabilities)
    expected = (predict_labels(found.probabilities) == found.truth).all(axis=1)
    assert np.array_equal(again.correct, expected) and again.for_subset("a").truth.shape == (15, 4)
    assert Predictions.from_table(found.at(np.zeros(0, dtype=np.int64)).to_table()).truth.shape == (0, 4)


def judged(test: Predictions, validation: Predictions) -> Evaluation:
    result = BaselineResult(
        group="g",
        name="head_only",
        hyperparameters=Hyperparameters(freeze_depth=1, learning_rate=1e-3, epochs=1),
        seconds=1.0,
        correct=pack(np.ones(len(test), dtype=np.bool_)),
        probabilities=pack_matrix(test.label_sets.astype(np.float32)),
    )
    return judge(
        "g",
        LABELS,
        test,
        [result],
        validation=validation,
        separation=None,
        bootstrap_samples=100,
        seed=0,
        predictions_path="x",
        seconds=1.0,
        fingerprint="f",
    )


def test_a_group_is_judged_at_the_thresholds_of_its_validation_images_alone() -> None:
    test, validation = predictions(80), predictions(60, seed=1)
    found = judged(test, validation)
    assert found.multi_label is not None and found.calibration is None
    thresholds = fit_thresholds(validation.probabilities, validation.label_sets)
    assert [label.threshold for label in found.multi_label.by_label] == thresholds.tolist()
    assert [scores.subset for scores in found.subsets] == ["a", "b"]
    assert all(scores.multi_label is not None for scores in found.subsets)
    gain = found.baselines[0].accuracy_gain
    assert gain == pytest.approx(test.correct.mean() - 1.0)
    baseline, precision = found.baselines[0], found.multi_label.mean_average_precision
    assert baseline.mean_average_precision == 1.0 and precision is not None
    assert baseline.mean_average_precision_gain == pytest.approx(precision - 1.0)
    low, high = baseline.mean_average_precision_gain_interval or (0.0, 0.0)
    assert low <= precision - 1.0 <= high < 0
    assert Evaluation.from_json(found.to_json(), source="x") == found


def test_a_group_without_test_images_has_no_scores_of_label_sets() -> None:
    found = judged(predictions(0), predictions(60, seed=1))
    assert found.multi_label is None and found.num_images == 0 and len(found.by_class) == 4
