"""What is judged part by part is what is judged at once, to 100,000 images to the bit and beyond to what is stated."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_examples import RECIPE, a_prediction_table
from numpy.typing import NDArray
from parts_examples import InParts

from orchestrator.evaluation import gathering, paired_answers, unit_buckets
from orchestrator.evaluation.gathering import Gathering, gather
from orchestrator.evaluation.intervals import bootstrap_interval, paired_gain
from orchestrator.evaluation.judging import judge
from orchestrator.evaluation.parts import PredictionParts, whole
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import score
from orchestrator.records import BaselineResult, Evaluation, Scores

# Mean confidence of parts is added up in another order.
ROUNDING = 1e-9


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gathering, paired_answers):
        monkeypatch.setattr(module, "MOST_RANKED_IMAGES", 50)


def some_answers(num_images: int, seed: int = 5) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(num_images) < 0.6


def judged(predictions: PredictionParts, correct: NDArray[np.bool_], validation: PredictionParts) -> Evaluation:
    run = BaselineResult(group="low", name="fixed_rule", hyperparameters=RECIPE, seconds=1.0, correct=correct.tolist())
    return judge(
        "low",
        ["cat", "dog", "fox"],
        predictions,
        [run],
        validation=validation,
        separation=None,
        bootstrap_samples=300,
        seed=3,
        predictions_path="",
        seconds=1.0,
        fingerprint="abc",
    )


@pytest.mark.parametrize("images_of_one_kin", [0, 3])
@pytest.mark.parametrize("size", [1, 17, 200])
def test_parts_are_judged_as_the_whole_is(size: int, images_of_one_kin: int) -> None:
    images = a_prediction_table(120, images_of_one_kin=images_of_one_kin)
    validation, correct = a_prediction_table(60, seed=9), some_answers(120)
    found = judged(InParts(images, size), correct, InParts(validation, size))
    expected = judged(images, correct, validation)
    without = {"calibration"}
    assert found.model_dump(exclude=without) == expected.model_dump(exclude=without)
    assert found.calibration is not None and expected.calibration is not None
    assert found.calibration.temperature == pytest.approx(expected.calibration.temperature, abs=1e-6)
    assert found.calibration.cross_entropy == pytest.approx(expected.calibration.cross_entropy, abs=1e-6)


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("size", [20, 200])
def test_intervals_of_more_images_than_are_held_are_the_same(size: int) -> None:
    images, correct = a_prediction_table(150, num_classes=4), some_answers(150)
    gathered = gathered_in_parts(images, correct, size)
    expected = score(images.probabilities, images.truth, bootstrap_samples=300, seed=3)
    found = gathered.scores(300, 3)
    # Areas under the curve are counted in bins.
    areas = {"macro_auc", "macro_auc_error", "macro_auc_interval", "by_class", "reliability"}
    assert numbers(found, without=areas) == pytest.approx(numbers(expected, without=areas), abs=ROUNDING)
    assert found.macro_auc == pytest.approx(expected.macro_auc, abs=found.macro_auc_error)
    assert found.confusion_matrix == expected.confusion_matrix
    interval = bootstrap_interval(correct, 300, 3)
    assert gathered.accuracy_of("fixed_rule", 300, 3) == (float(correct.mean()), interval)
    assert gathered.gain_over("fixed_rule", 300, 3) == paired_gain(images.correct, correct, 300, 3)


@pytest.mark.usefixtures("few_are_many")
def test_intervals_of_more_kin_than_are_held_are_as_wide_to_a_tenth() -> None:
    # Kin of five are right or wrong together, so that single images would have intervals half as wide.
    images = a_prediction_table(4000, images_of_one_kin=5)
    truth = images.predicted.copy()
    is_wrong = np.repeat(np.random.default_rng(0).random(800) < 0.3, 5)
    truth[is_wrong] = (truth[is_wrong] + 1) % 3
    kin = Predictions(
        ids=images.ids,
        subsets=images.subsets,
        together=images.together,
        truth=truth,
        probabilities=images.probabilities,
    )
    correct = np.repeat(some_answers(800), 5)
    gathered, units = gathered_in_parts(kin, correct, 700), kin.units
    expected = score(kin.probabilities, truth, bootstrap_samples=2000, seed=3, units=units)
    found = gathered.scores(2000, 3)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "expected_calibration_error"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=ROUNDING)
        same_interval(getattr(found, f"{name}_interval"), getattr(expected, f"{name}_interval"))
    accuracy, interval = gathered.accuracy_of("fixed_rule", 2000, 3)
    assert accuracy == correct.mean()
    same_interval(interval, bootstrap_interval(correct, 2000, 3, units))
    gain, interval = gathered.gain_over("fixed_rule", 2000, 3)
    expected_gain, expected_interval = paired_gain(kin.correct, correct, 2000, 3, units)
    assert gain == pytest.approx(expected_gain, abs=ROUNDING)
    same_interval(interval, expected_interval)


@pytest.mark.usefixtures("few_are_many")
def test_fewer_buckets_than_kin_keep_the_width_of_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_buckets, "NUM_BUCKETS", 512)
    images, correct = a_prediction_table(6000, images_of_one_kin=2), some_answers(6000)
    _, found = gathered_in_parts(images, correct, 1000).gain_over("fixed_rule", 2000, 3)
    _, expected = paired_gain(images.correct, correct, 2000, 3, images.units)
    same_interval(found, expected)


@pytest.mark.usefixtures("few_are_many")
def test_parts_and_their_order_change_no_bucket() -> None:
    images, correct = a_prediction_table(200, images_of_one_kin=4), some_answers(200)
    order = np.random.default_rng(1).permutation(200)
    one, other = gathered_in_parts(images, correct, 200), gathered_in_parts(images.at(order), correct[order], 13)
    assert one.gain_over("fixed_rule", 300, 3) == other.gain_over("fixed_rule", 300, 3)
    assert one.scores(300, 3).accuracy_interval == other.scores(300, 3).accuracy_interval


def test_parts_put_together_are_the_whole() -> None:
    images = a_prediction_table(20).with_baselines({"fixed_rule": some_answers(20)})
    found = whole(InParts(images, 7))
    assert found.to_table().equals(images.to_table())


def gathered_in_parts(images: Predictions, correct: NDArray[np.bool_], size: int) -> Gathering:
    return gather(InParts(images.with_baselines({"fixed_rule": correct}), size), ["fixed_rule"])


def numbers(scores: Scores, *, without: set[str]) -> list[float]:
    fields = scores.model_dump(exclude={*without, "confusion_matrix"}).values()
    return [number for field in fields for number in (field if isinstance(field, tuple) else [field])]


def same_interval(found: tuple[float, float], expected: tuple[float, float]) -> None:
    width = expected[1] - expected[0]
    assert found == pytest.approx(expected, abs=width / 10)
