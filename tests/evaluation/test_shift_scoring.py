"""A correction is scored part by part as it is at once: to 100,000 images to the bit, and beyond as is stated."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_examples import a_prediction_table
from parts_examples import InParts

from orchestrator.evaluation import holding, paired_answers
from orchestrator.evaluation.class_calibration import ClassCalibration
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.shift_scoring import Correction, ShiftComparison, compare_forms
from orchestrator.records import ShiftScores

EVEN = np.full(3, 1 / 3)
CORRECTION = Correction(
    calibration=ClassCalibration(sharpness=0.7, biases=np.array([0.4, -0.1, -0.3]), prior=EVEN),
    frequencies=np.array([0.6, 0.3, 0.1]),
)
FORMS = ("before", "calibrated", "corrected")


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (holding, paired_answers):
        monkeypatch.setattr(module, "MOST_RANKED_IMAGES", 50)


def compared(predictions: PredictionParts, subset: str | None = None, samples: int = 300) -> ShiftComparison:
    return compare_forms(predictions, subset, CORRECTION, bootstrap_samples=samples, seed=3)


def scores(found: ShiftComparison) -> list[ShiftScores]:
    return [found.before, found.calibrated, found.corrected]


def intervals(found: ShiftComparison) -> list[tuple[float, float]]:
    return [*(score.accuracy_interval for score in scores(found)), found.gain_interval]


def same_but_for_rounding(found: ShiftComparison, expected: ShiftComparison) -> None:
    assert found.num_images == expected.num_images
    np.testing.assert_array_equal(found.frequencies, expected.frequencies)
    for one, other in zip(scores(found), scores(expected), strict=True):
        assert one.model_dump(exclude={"accuracy_interval"}) == pytest.approx(
            other.model_dump(exclude={"accuracy_interval"}), abs=1e-12
        )
    assert found.gain == pytest.approx(expected.gain, abs=1e-12)


@pytest.mark.parametrize("images_of_one_kin", [0, 3])
@pytest.mark.parametrize("size", [1, 17, 200])
@pytest.mark.parametrize("subset", [None, "north"])
def test_few_images_are_compared_to_the_bit_however_they_are_cut(
    size: int, images_of_one_kin: int, subset: str | None
) -> None:
    images = a_prediction_table(120, images_of_one_kin=images_of_one_kin)
    expected = compared(images if subset is None else images.for_subset(subset))
    found = compared(InParts(images, size), subset)
    same_but_for_rounding(found, expected)
    assert scores(found) == scores(expected)
    assert found.gain_interval == expected.gain_interval


@pytest.mark.parametrize("size", [20, 150, 400])
@pytest.mark.parametrize("subset", [None, "north"])
def test_single_images_have_the_same_intervals_where_they_are_counted(
    size: int, subset: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = InParts(a_prediction_table(300), size)
    expected = compared(images, subset)
    for module in (holding, paired_answers):
        monkeypatch.setattr(module, "MOST_RANKED_IMAGES", 50)
    found = compared(images, subset)
    same_but_for_rounding(found, expected)
    assert intervals(found) == intervals(expected)
    assert found.gain != 0.0


def test_kin_is_drawn_together_where_images_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    few = a_prediction_table(800)
    # Five copies of an image say no more than one.
    copies = few.at(np.repeat(np.arange(800), 5))
    kin = type(few)(
        ids=[str(number) for number in range(4000)],
        subsets=copies.subsets,
        together=[f"kin{number // 5}" for number in range(4000)],
        truth=copies.truth,
        probabilities=copies.probabilities,
    )
    expected = compared(kin, samples=2000)
    for module in (holding, paired_answers):
        monkeypatch.setattr(module, "MOST_RANKED_IMAGES", 50)
    found = compared(InParts(kin, 700), samples=2000)
    same_but_for_rounding(found, expected)
    for one, other in zip(intervals(found), intervals(expected), strict=True):
        assert one == pytest.approx(other, abs=(other[1] - other[0]) / 10)


@pytest.mark.usefixtures("few_are_many")
def test_parts_and_their_order_change_nothing_that_is_counted() -> None:
    images = a_prediction_table(400, images_of_one_kin=4)
    shuffled = images.at(np.random.default_rng(1).permutation(400))
    one, other = compared(InParts(images, 400)), compared(InParts(shuffled, 13))
    same_but_for_rounding(one, other)
    assert intervals(one) == intervals(other)
