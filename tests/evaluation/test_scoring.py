import math
import warnings

import numpy as np
import pytest
from evaluation_examples import scored_images
from hypothesis import given
from numpy.typing import NDArray
from sklearn import metrics as reference

from orchestrator.evaluation import scoring
from orchestrator.evaluation.calibration import calibration_error, confidence_gaps
from orchestrator.evaluation.intervals import bootstrap_interval
from orchestrator.evaluation.metrics import ClassCounts
from orchestrator.evaluation.scoring import score, score_tally
from orchestrator.evaluation.tallies import Tally
from orchestrator.records import ClassScores, Scores

Images = tuple[NDArray[np.float64], NDArray[np.int64]]


def scores_of(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.int64],
    *,
    bootstrap_samples: int = 100,
    seed: int = 0,
    units: NDArray[np.int64] | None = None,
) -> Scores:
    return score(probabilities, truth, bootstrap_samples=bootstrap_samples, seed=seed, units=units)


def simulated(num_images: int, seed: int, num_classes: int = 3) -> Images:
    """Draw unbalanced classes that are found in 9, 7 and 5 of 10 cases, with confidence that is too high."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(num_classes, p=[0.6, 0.3, 0.1], size=num_images)
    right = rng.random(num_images) < np.array([0.9, 0.7, 0.5])[truth]
    predicted = np.where(right, truth, (truth + rng.integers(1, num_classes, size=num_images)) % num_classes)
    confidence = rng.uniform(0.85, 1.0, size=(num_images, 1))
    probabilities = np.where(np.eye(num_classes, dtype=bool)[predicted], confidence, (1 - confidence) / 2)
    return probabilities, truth


TRUE_VALUES = {
    "accuracy": 0.6 * 0.9 + 0.3 * 0.7 + 0.1 * 0.5,
    "balanced_accuracy": 0.7,
    "expected_calibration_error": 0.925 - (0.6 * 0.9 + 0.3 * 0.7 + 0.1 * 0.5),
}


@given(scored_images())
def test_the_macro_auc_averages_the_classes_that_have_both_sides(images: Images) -> None:
    probabilities, truth = images
    present = np.unique(truth)
    found = scores_of(probabilities, truth)
    if len(present) == 1:
        assert found.macro_auc is found.macro_auc_error is None
    else:
        curves = [reference.roc_auc_score(truth == k, probabilities[:, k]) for k in present]
        assert found.macro_auc == pytest.approx(np.mean(curves), abs=1e-9)
        assert found.macro_auc_error == 0.0


@given(scored_images())
def test_scores_of_a_tally_are_those_of_its_images_but_for_the_stated_error_of_auc(images: Images) -> None:
    probabilities, truth = images
    exact = scores_of(probabilities, truth)
    binned = score_tally(Tally.of(probabilities, truth), bootstrap_samples=100, seed=0)
    areas = {"macro_auc", "macro_auc_error", "macro_auc_interval", "by_class"}
    assert binned.model_dump(exclude=areas) == exact.model_dump(exclude=areas)
    for one, other in zip(binned.by_class, exact.by_class, strict=True):
        assert one.model_dump(exclude={"auc", "auc_interval"}) == other.model_dump(exclude={"auc", "auc_interval"})
    if exact.macro_auc is not None and binned.macro_auc is not None and binned.macro_auc_error is not None:
        assert abs(binned.macro_auc - exact.macro_auc) <= binned.macro_auc_error + 1e-12


def test_auc_agrees_with_scikit_learns_own_macro_average() -> None:
    rng = np.random.default_rng(4)
    truth = np.repeat(np.arange(4), 25)
    probabilities = rng.dirichlet(np.ones(4), size=100)
    expected = reference.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert scores_of(probabilities, truth).macro_auc == pytest.approx(expected, abs=1e-9)


def test_more_images_than_can_be_ranked_have_the_area_of_their_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, truth = simulated(500, seed=1)
    monkeypatch.setattr(scoring, "MOST_RANKED_IMAGES", 499)
    found = scores_of(probabilities, truth)
    assert found == score_tally(Tally.of(probabilities, truth), bootstrap_samples=100, seed=0)
    assert found.macro_auc_error is not None and found.macro_auc_error > 0


def test_hand_computed_scores_of_four_images() -> None:
    probabilities = np.array([[0.8, 0.2, 0.0], [0.4, 0.6, 0.0], [0.3, 0.7, 0.0], [0.9, 0.1, 0.0]])
    found = scores_of(probabilities, np.array([0, 0, 1, 1]))
    assert found.accuracy == found.balanced_accuracy == found.macro_precision == found.macro_f1 == 0.5
    assert found.confusion_matrix == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    # Of class 0, the scores 0.8 and 0.4 meet 0.3 and 0.9: they win two of four pairs.
    assert found.macro_auc == 0.5
    assert found.cross_entropy == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.1]).mean(), abs=1e-12)
    # Each image has a bin of its own.
    assert found.expected_calibration_error == pytest.approx((0.2 + 0.6 + 0.3 + 0.9) / 4)
    assert found.by_class[2] == ClassScores(num_images=0, precision=None, recall=None, f1=None, auc=None)


def test_one_image_has_every_score_but_auc() -> None:
    found = scores_of(np.array([[0.25, 0.75]]), np.array([1]))
    assert (found.accuracy, found.accuracy_interval, found.macro_f1) == (1.0, (1.0, 1.0), 1.0)
    assert found.macro_auc is None
    assert found.cross_entropy == pytest.approx(-math.log(0.75))


def test_without_images_every_measure_is_none_and_the_confusions_are_zero() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores_of(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
    unknown = ClassScores(num_images=0, precision=None, recall=None, f1=None, auc=None)
    assert found == Scores(num_images=0, confusion_matrix=[[0, 0], [0, 0]], by_class=[unknown, unknown])
    assert found.accuracy is found.expected_calibration_error is found.macro_f1_interval is None


def test_the_first_of_equally_probable_classes_is_predicted() -> None:
    found = scores_of(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 1]))
    assert found.confusion_matrix == [[1, 0], [1, 0]]


def test_intervals_agree_with_resampling_image_by_image() -> None:
    probabilities, truth = simulated(300, seed=0)
    found = scores_of(probabilities, truth, bootstrap_samples=4000)
    rng = np.random.default_rng(1)
    estimates = []
    for _ in range(1500):
        rows = rng.integers(300, size=300)
        tally = Tally.of(probabilities[rows], truth[rows])
        counts = ClassCounts.of(tally.confusion)
        error = calibration_error(confidence_gaps(tally), 300)
        estimates.append([counts.accuracy(), counts.balanced_accuracy(), counts.macro_f1(), error])
    low, high = np.quantile(estimates, [0.025, 0.975], axis=0)
    assert found.accuracy_interval == pytest.approx((low[0], high[0]), abs=0.012)
    assert found.balanced_accuracy_interval == pytest.approx((low[1], high[1]), abs=0.015)
    assert found.macro_f1_interval == pytest.approx((low[2], high[2]), abs=0.015)
    twice = 2 * (found.expected_calibration_error or 0)
    expected = (twice - high[3], twice - low[3])
    assert found.expected_calibration_error_interval == pytest.approx(expected, abs=0.012)


def test_about_95_of_100_intervals_hold_the_true_value() -> None:
    held = dict.fromkeys(TRUE_VALUES, 0)
    for seed in range(150):
        found = scores_of(*simulated(400, seed), bootstrap_samples=300, seed=seed)
        for name, value in TRUE_VALUES.items():
            low, high = getattr(found, f"{name}_interval")
            held[name] += low <= value <= high
    assert all(0.89 <= count / 150 <= 0.99 for count in held.values()), held


def test_intervals_over_kin_hold_the_true_value_where_those_over_images_do_not() -> None:
    held = {"images": 0, "kin": 0}
    for seed in range(120):
        rng = np.random.default_rng(seed)
        # Fifty cameras of eight images, all of a camera right or all wrong.
        units, right = np.repeat(np.arange(50), 8), np.repeat(rng.random(50) < 0.7, 8)
        probabilities = np.where(right[:, None], [0.8, 0.2], [0.2, 0.8])
        truth = np.zeros(400, dtype=np.int64)
        for name, drawn in (("images", None), ("kin", units)):
            interval = scores_of(probabilities, truth, seed=seed, units=drawn, bootstrap_samples=300).accuracy_interval
            assert interval is not None
            held[name] += interval[0] <= 0.7 <= interval[1]
    assert held["images"] / 120 < 0.6 and held["kin"] / 120 > 0.88


@given(scored_images())
def test_units_of_one_image_each_give_the_intervals_of_images(images: Images) -> None:
    probabilities, truth = images
    alone = scores_of(probabilities, truth, bootstrap_samples=4000)
    units = scores_of(probabilities, truth, bootstrap_samples=4000, units=np.arange(len(truth)))
    assert units.accuracy_interval == pytest.approx(alone.accuracy_interval, abs=1 / len(truth) + 0.02)
    assert (units.accuracy, units.macro_f1) == (alone.accuracy, alone.macro_f1)
    for single, found in zip(alone.by_class, units.by_class, strict=True):
        assert found.num_units == single.num_images
        drawn = {"num_units", "f1_interval", "auc_interval"}
        assert found.model_dump(exclude=drawn) == single.model_dump(exclude=drawn)


def test_accuracy_over_kin_has_the_interval_of_its_mean() -> None:
    probabilities, truth = simulated(200, seed=3)
    units = np.random.default_rng(0).integers(30, size=200)
    found = scores_of(probabilities, truth, units=units, bootstrap_samples=4000).accuracy_interval
    correct = probabilities.argmax(axis=1) == truth
    assert found == pytest.approx(bootstrap_interval(correct, 4000, 1, units), abs=0.01)


def test_the_units_of_a_class_count_kin_as_one() -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(3), 8)
    truth = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    units = np.array([0, 0, 1, 1, 2, 3, 4, 4])
    scored = score(probabilities, truth, bootstrap_samples=100, seed=0, units=units)
    assert [found.num_units for found in scored.by_class] == [3, 3, 0]
    alone = score(probabilities, truth, bootstrap_samples=100, seed=0)
    assert [found.num_units for found in alone.by_class] == [None, None, None]


@pytest.mark.parametrize("copies", [1, 4])
def test_every_measure_has_the_interval_of_resampled_images(copies: int) -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(3, size=200)
    odds = rng.normal(size=(200, 3)) + 1.2 * np.eye(3)[truth]
    probabilities = (np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)).astype(np.float32)
    places = np.repeat(np.arange(200), copies)
    units = places if copies > 1 else None
    found = score(probabilities[places], truth[places], bootstrap_samples=3000, seed=0, units=units)
    drawn = rng.integers(200, size=(1500, 200))
    again = [score(probabilities[rows], truth[rows], bootstrap_samples=1, seed=0) for rows in drawn]

    def expected(name: str) -> list[float]:
        return [float(bound) for bound in np.quantile([getattr(one, name) for one in again], [0.025, 0.975])]

    for name, most in (("macro_precision", 0.01), ("macro_auc", 0.01), ("cross_entropy", 0.02), ("macro_f1", 0.01)):
        assert getattr(found, f"{name}_interval") == pytest.approx(expected(name), abs=most), name
    for k, scores in enumerate(found.by_class):
        for name in ("f1", "auc"):
            bounds = np.quantile([getattr(one.by_class[k], name) for one in again], [0.025, 0.975])
            assert getattr(scores, f"{name}_interval") == pytest.approx(bounds.tolist(), abs=0.015)


def test_a_class_without_images_has_no_intervals() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]] * 10, dtype=np.float32)
    found = score(probabilities, np.array([0, 1] * 10), bootstrap_samples=50, seed=0)
    assert found.macro_auc_interval == (1.0, 1.0)
    assert (found.by_class[2].f1_interval, found.by_class[2].auc_interval) == (None, None)
