from dataclasses import replace

import numpy as np
import pytest
from parts_examples import InParts
from shift_examples import a_classifier

from orchestrator.evaluation import holding, paired_answers
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.shift_judging import judge_shift
from orchestrator.records import LabelShift, ShiftMethod

CLASSES = ["cat", "dog", "fox"]
FREQUENCIES = {"north": np.array([0.8, 0.15, 0.05]), "south": np.array([0.1, 0.1, 0.8])}


@pytest.fixture(scope="module")
def validation() -> Predictions:
    return a_classifier().images(600, None, 1)


@pytest.fixture(scope="module")
def images() -> Predictions:
    parts = [
        replace(a_classifier().images(400, found, seed), subsets=[name] * 400)
        for seed, (name, found) in enumerate(FREQUENCIES.items(), start=2)
    ]
    return replace(
        parts[0],
        ids=[str(index) for index in range(800)],
        subsets=[name for part in parts for name in part.subsets],
        together=[""] * 800,
        truth=np.concatenate([part.truth for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
    )


def judged(images: PredictionParts, validation: PredictionParts, method: ShiftMethod = "em") -> LabelShift:
    return judge_shift(images, CLASSES, validation, method, bootstrap_samples=200, seed=0)


@pytest.mark.parametrize("method", ["confusion", "em"])
def test_each_subset_gets_its_own_frequencies_and_gains_by_them(
    images: Predictions, validation: Predictions, method: ShiftMethod
) -> None:
    found = judged(images, validation, method)
    assert (found.method, found.num_validation) == (method, 600)
    assert [subset.subset for subset in found.subsets] == ["north", "south"]
    for subset in found.subsets:
        assert [frequency.label for frequency in subset.frequencies] == CLASSES
        estimated = np.array([frequency.estimated for frequency in subset.frequencies])
        np.testing.assert_allclose(estimated, FREQUENCIES[str(subset.subset)], atol=0.1)
        assert subset.holds_truth and subset.is_converged
        assert subset.accuracy_gain == pytest.approx(subset.corrected.accuracy - subset.before.accuracy)
        assert subset.accuracy_gain_interval[0] > 0.0
        assert subset.corrected.cross_entropy < subset.calibrated.cross_entropy < subset.before.cross_entropy
    assert found.whole.num_images == 800 and found.whole.subset is None
    # Together the two shifts nearly cancel.
    assert found.whole.distance < 0.3 < min(subset.distance for subset in found.subsets)


def test_a_subset_that_looks_different_is_judged_by_its_own_validation_images_where_they_suffice(
    validation: Predictions,
) -> None:
    def turned(images: Predictions, subset: str) -> Predictions:
        """Let the model take foxes for cats half the time."""
        probabilities = images.probabilities.copy()
        foxes = np.flatnonzero(images.truth == 2)[::2]
        probabilities[foxes] = probabilities[foxes][:, [2, 1, 0]]
        return replace(images, probabilities=probabilities, subsets=[subset] * len(images))

    images = turned(a_classifier().images(600, FREQUENCIES["south"], 4), "turned")
    for num_own, is_own in ((60, True), (59, False)):
        own = turned(a_classifier().images(num_own, None, 5), "turned")
        both = replace(
            own,
            ids=[*own.ids, *validation.ids],
            subsets=[*own.subsets, *validation.subsets],
            together=[""] * (num_own + 600),
            truth=np.concatenate([own.truth, validation.truth]),
            probabilities=np.concatenate([own.probabilities, validation.probabilities]),
        )
        (found,) = judged(images, both).subsets
        assert found.num_validation == (60 if is_own else 659)
        assert found.holds_truth == is_own


def test_true_labels_stand_beside_and_decide_nothing(images: Predictions, validation: Predictions) -> None:
    (north, _), (mislabelled, _) = (
        judged(found, validation).subsets for found in (images, replace(images, truth=np.full(800, 2)))
    )
    estimates = [
        [(frequency.estimated, frequency.interval) for frequency in found.frequencies] for found in (north, mislabelled)
    ]
    assert estimates[0] == estimates[1]
    assert [frequency.true for frequency in mislabelled.frequencies] == [0.0, 0.0, 1.0]
    assert not mislabelled.holds_truth


def test_a_balanced_accuracy_is_told_apart_from_accuracy(images: Predictions, validation: Predictions) -> None:
    for subset in judged(images, validation).subsets:
        assert subset.before.accuracy_interval[0] < subset.before.accuracy < subset.before.accuracy_interval[1]
        # What gains on frequent classes costs rare ones.
        assert subset.corrected.balanced_accuracy < subset.corrected.accuracy


def test_the_record_survives_json(images: Predictions, validation: Predictions) -> None:
    found = judged(images.for_subset("north"), validation, "confusion")
    assert LabelShift.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("method", ["confusion", "em"])
@pytest.mark.parametrize("size", [37, 800])
def test_parts_are_judged_as_the_whole_is(
    images: Predictions, validation: Predictions, method: ShiftMethod, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(validation, subsets=["north"] * 400 + ["south"] * 200)
    expected = judged(images, own, method)
    parts = InParts(images, size), InParts(own, size)
    assert judged(*parts, method) == expected
    for module in (holding, paired_answers):
        monkeypatch.setattr(module, "MOST_RANKED_IMAGES", 50)
    counted = judged(*parts, method)
    for found, other in zip([counted.whole, *counted.subsets], [expected.whole, *expected.subsets], strict=True):
        assert found.frequencies == other.frequencies
        assert (found.num_images, found.num_validation) == (other.num_images, other.num_validation)
        assert found.corrected.accuracy_interval == other.corrected.accuracy_interval
        assert found.corrected.cross_entropy == pytest.approx(other.corrected.cross_entropy, abs=1e-12)
        assert found.accuracy_gain_interval == other.accuracy_gain_interval
