"""Label sets judged part by part are judged as at once, to 100,000 images to the bit and beyond to what is stated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from evaluation_examples import RECIPE
from numpy.typing import NDArray
from parts_examples import InParts

from orchestrator.errors import DataError
from orchestrator.evaluation import gathering, label_answers, label_ranks, multi_label
from orchestrator.evaluation.answers import pack, pack_matrix
from orchestrator.evaluation.intervals import bootstrap_interval, paired_gain
from orchestrator.evaluation.judging import judge
from orchestrator.evaluation.label_answers import LabelAnswers
from orchestrator.evaluation.label_ranks import LabelRanks, thresholds_of
from orchestrator.evaluation.label_set_gathering import LabelSetGathering
from orchestrator.evaluation.metrics import predict_labels
from orchestrator.evaluation.multi_label import fit_thresholds, precision_gain, score_label_sets
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.score_histograms import ScoreHistograms
from orchestrator.records import BaselineResult, Evaluation

LABELS = ["bar", "disc", "star"]
THRESHOLDS = np.array([0.4, 0.5, 0.6])
ROUNDING = 1e-9


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MOST_RANKED_IMAGES", 50)
    monkeypatch.setattr(label_ranks, "MOST_RANKED_IMAGES", 50)


def images(count: int, *, of_one_kin: int = 0, seed: int = 0) -> Predictions:
    """Make predictions that know something of the labels; kin are right and wrong together."""
    rng = np.random.default_rng(seed)
    size = max(1, of_one_kin)
    truth = np.repeat(rng.uniform(size=(count // size, 3)) < (0.5, 0.2, 0.7), size, axis=0)
    noise = np.repeat(rng.normal(size=(count // size, 3)), size, axis=0) + 0.01 * rng.normal(size=truth.shape)
    return Predictions(
        ids=[f"{seed}/{number}" for number in range(count)],
        subsets=["ab"[number % 2] for number in range(count)],
        together=[f"kin{number // size}" if of_one_kin else "" for number in range(count)],
        truth=truth,
        probabilities=(1 / (1 + np.exp(-noise - 1.5 * truth + 1.0))).astype(np.float32),
    )


def some_answers(count: int, seed: int = 5) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(count) < 0.4


def gather(predictions: Predictions, correct: NDArray[np.bool_], size: int) -> LabelSetGathering:
    gathered = LabelSetGathering(LABELS, THRESHOLDS, ["head_only"])
    return gathered.add_all(InParts(predictions.with_baselines({"head_only": correct}), size))


def baseline(predictions: Predictions, **fields: Any) -> BaselineResult:
    correct = pack((predict_labels(predictions.probabilities) == predictions.truth).all(axis=1))
    named = {"group": "g", "name": "head_only", "hyperparameters": RECIPE, "seconds": 1.0, "correct": correct}
    return BaselineResult.model_validate({**named, **fields})


def judged(test: PredictionParts, validation: PredictionParts, result: BaselineResult) -> Evaluation:
    return judge(
        "g",
        LABELS,
        test,
        [result],
        validation=validation,
        separation=None,
        bootstrap_samples=200,
        seed=3,
        predictions_path="",
        seconds=1.0,
        fingerprint="f",
    )


@pytest.mark.parametrize("of_one_kin", [0, 4])
@pytest.mark.parametrize("size", [1, 17, 200])
def test_parts_are_judged_as_the_whole_is(size: int, of_one_kin: int) -> None:
    test, validation = images(120, of_one_kin=of_one_kin), images(60, seed=9)
    result = baseline(test, probabilities=pack_matrix(images(120, seed=2).probabilities))
    found = judged(InParts(test, size), InParts(validation, size), result)
    assert found == judged(test, validation, result)
    thresholds = fit_thresholds(validation.probabilities, validation.label_sets)
    expected = score_label_sets(
        test.probabilities, test.label_sets, LABELS, thresholds, bootstrap_samples=200, seed=3, units=test.units
    )
    assert found.multi_label == expected.multi_label and found.accuracy_interval == expected.accuracy_interval
    gain = precision_gain(
        test.probabilities,
        images(120, seed=2).probabilities,
        test.label_sets,
        bootstrap_samples=200,
        seed=3,
        units=test.units,
    )
    run = found.baselines[0]
    assert gain == (
        run.mean_average_precision,
        run.mean_average_precision_gain,
        run.mean_average_precision_gain_interval,
    )
    assert run.mean_average_precision_error == 0.0


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("of_one_kin", [0, 5])
def test_more_images_than_are_held_have_the_same_counts_and_intervals_as_wide_to_a_tenth(
    of_one_kin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi_label, "MOST_RESAMPLED_ANSWERS", 0)  # takes seconds, and a tally has no such interval
    test, correct = images(4000, of_one_kin=of_one_kin), some_answers(4000)
    gathered = gather(test, correct, 700)
    found = gathered.scores(2000, 3)
    expected = score_label_sets(
        test.probabilities, test.label_sets, LABELS, THRESHOLDS, bootstrap_samples=2000, seed=3, units=test.units
    )
    sets, exact = found.multi_label, expected.multi_label
    assert sets is not None and exact is not None
    for name in ("accuracy", "macro_precision", "macro_f1", "cross_entropy", "num_images", "confusion_matrix"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=ROUNDING)
    same_interval(found.accuracy_interval, expected.accuracy_interval)
    same_interval(found.macro_f1_interval, expected.macro_f1_interval)
    for name in ("subset_accuracy", "hamming_loss", "micro_f1", "macro_f1"):
        for scores, known in ((sets.at_half, exact.at_half), (sets.at_fitted, exact.at_fitted)):
            assert getattr(scores, name) == pytest.approx(getattr(known, name), abs=ROUNDING)
            same_interval(getattr(scores, f"{name}_interval"), getattr(known, f"{name}_interval"))
    assert [label.f1 for label in sets.by_label] == [label.f1 for label in exact.by_label]
    assert [label.threshold for label in sets.by_label] == THRESHOLDS.tolist()
    assert [scores.recall for scores in found.by_class] == [scores.recall for scores in expected.by_class]
    # What ranks are needed for is counted in bins.
    assert sets.mean_average_precision_interval is None
    assert sets.mean_average_precision == pytest.approx(exact.mean_average_precision, abs=1e-3)
    assert found.macro_auc == pytest.approx(expected.macro_auc, abs=1e-3)
    assert 0 < (sets.mean_average_precision_error or 0) < 0.01 and 0 < (found.macro_auc_error or 0) < 0.01
    accuracy, interval = gathered.accuracy_of("head_only", 2000, 3)
    assert accuracy == correct.mean()
    same_interval(interval, bootstrap_interval(correct, 2000, 3, test.units))
    gain, interval = gathered.gain_over("head_only", 2000, 3)
    expected_gain, expected_interval = paired_gain(test.correct, correct, 2000, 3, test.units)
    assert gain == pytest.approx(expected_gain, abs=ROUNDING)
    same_interval(interval, expected_interval)


@pytest.mark.usefixtures("few_are_many")
def test_parts_and_their_order_change_nothing_of_a_tally() -> None:
    test, correct = images(200, of_one_kin=4), some_answers(200)
    order = np.random.default_rng(1).permutation(200)
    one, other = gather(test, correct, 200), gather(test.at(order), correct[order], 13)
    assert one.gain_over("head_only", 300, 3) == other.gain_over("head_only", 300, 3)
    found, again = one.scores(300, 3), other.scores(300, 3)
    assert found.multi_label == again.multi_label and found.by_class == again.by_class
    assert found.cross_entropy == pytest.approx(again.cross_entropy, abs=ROUNDING)


@pytest.mark.usefixtures("few_are_many")
def test_a_group_of_many_images_holds_its_small_subsets_and_compares_baselines_by_what_is_kept_of_them() -> None:
    test, validation, others = images(90), images(60, seed=9), images(90, seed=2)
    kept = baseline(test, probabilities=pack_matrix(others.probabilities))
    found = judged(InParts(test, 20), InParts(validation, 20), kept)
    assert found.multi_label is not None and found.num_images == 90
    thresholds = ScoreHistograms.of(validation.probabilities, validation.label_sets).thresholds()
    assert [label.threshold for label in found.multi_label.by_label] == thresholds.tolist()
    exact = test.for_subset("a")
    expected = score_label_sets(
        exact.probabilities, exact.label_sets, LABELS, thresholds, bootstrap_samples=200, seed=3
    )
    assert found.subsets[0].multi_label == expected.multi_label
    value, gain, _ = precision_gain(
        test.probabilities, others.probabilities, test.label_sets, bootstrap_samples=2, seed=0
    ) or (0.0, 0.0, None)
    run = found.baselines[0]
    bound = (run.mean_average_precision_error or 0) + (found.multi_label.mean_average_precision_error or 0)
    assert run.mean_average_precision == pytest.approx(value, abs=run.mean_average_precision_error)
    assert run.mean_average_precision_gain == pytest.approx(gain, abs=bound)
    assert run.mean_average_precision_gain_interval is None and run.accuracy_gain_interval is not None
    summed = baseline(test, mean_average_precision=0.7, mean_average_precision_error=0.01)
    run = judged(InParts(test, 20), InParts(validation, 20), summed).baselines[0]
    assert (run.mean_average_precision, run.mean_average_precision_error) == (0.7, 0.01)
    assert run.mean_average_precision_gain == (found.multi_label.mean_average_precision or 0) - 0.7
    failed = baseline(test, correct=None, error="it failed")
    run = judged(InParts(test, 20), InParts(validation, 20), failed).baselines[0]
    assert (run.accuracy, run.mean_average_precision, run.error) == (None, None, "it failed")


def test_what_is_kept_of_a_baseline_is_bounded_and_compares_as_its_probabilities_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test, validation = images(120), images(60, seed=9)
    others = replace(test, probabilities=images(120, seed=2).probabilities)
    whole = judged(test, validation, baseline(others, **kept(others, 40)))
    monkeypatch.setattr(label_answers, "MOST_RESAMPLED_ANSWERS", 3 * 120 - 1)
    fields = kept(others, 40)
    assert "probabilities" not in fields and fields["mean_average_precision_error"] == 0.0
    result = baseline(others, **fields)
    assert BaselineResult.from_json(result.to_json(), source="x") == result
    one, other = whole.baselines[0], judged(test, validation, result).baselines[0]
    assert one.mean_average_precision_gain_interval is not None
    without = {"mean_average_precision_gain_interval"}
    assert one.model_dump(exclude=without) == other.model_dump(exclude=without)


@pytest.mark.usefixtures("few_are_many")
def test_ranks_of_many_images_are_counted_however_they_come() -> None:
    test = images(170)
    found = LabelRanks(3)
    for part in InParts(test, 30).parts():
        found.add(part.probabilities, part.label_sets)
    histograms = ScoreHistograms.of(test.probabilities, test.label_sets)
    value, error = found.mean_average_precision()
    assert value == histograms.average_precisions().mean() and error == histograms.average_precision_errors().mean()
    # Asking changes nothing.
    assert found.mean_average_precision() == (value, error)
    assert found.thresholds().tolist() == histograms.thresholds().tolist() == thresholds_of(test).tolist()


def test_no_images_and_no_labels_have_no_ranks() -> None:
    assert LabelRanks(2).mean_average_precision() == (None, None) and LabelRanks(2).thresholds().tolist() == [0.5, 0.5]


@pytest.mark.usefixtures("few_are_many")
def test_a_tally_refuses_probabilities_that_are_no_numbers() -> None:
    test = images(120)
    broken = replace(test, probabilities=np.full_like(test.probabilities, np.nan))
    with pytest.raises(DataError, match="finite"):
        gather(broken, some_answers(120), 40)


def kept(predictions: Predictions, size: int) -> dict[str, Any]:
    """Gather what a baseline's record keeps, in parts from the last to the first."""
    answers = LabelAnswers(len(predictions), predictions.num_classes)
    for start in reversed(range(0, len(predictions), size)):
        part = predictions.at(np.arange(start, start + size))
        answers.add(np.arange(start, start + size), part.probabilities, part.label_sets)
    return answers.fields()


def same_interval(found: tuple[float, float] | None, expected: tuple[float, float] | None) -> None:
    assert found is not None and expected is not None
    width = expected[1] - expected[0]
    assert found == pytest.approx(expected, abs=width / 10)
