from dataclasses import replace

import numpy as np
import pytest
from evaluation_examples import a_prediction_table

from orchestrator.errors import DataError
from orchestrator.evaluation.intervals import paired_gain
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import score
from orchestrator.evaluation.subset_comparisons import compare_subsets, judge_shared, judge_subset
from orchestrator.records import SubsetEvaluation, SubsetModel

MODELS = [
    SubsetModel(subset="north", model="groups/low/subsets/north/model", num_train=20, num_validation=5),
    SubsetModel(subset="south", model=None, reason="it has no validation images", num_train=20, num_validation=0),
]


def judged(group: Predictions, own: Predictions) -> SubsetEvaluation:
    samples = {"bootstrap_samples": 300, "seed": 4}
    north, south = (group.for_subset(model.subset) for model in MODELS)
    return compare_subsets(
        [
            judge_subset(MODELS[0], own, north.correct, classes=["cat", "dog"], seconds=2.5, **samples),
            judge_shared(MODELS[1], south.correct, south.together),
        ],
        **samples,
    )


def perfect(predictions: Predictions, num_classes: int = 2) -> Predictions:
    truth = predictions.truth % num_classes
    probabilities = np.full((len(predictions), num_classes), 0.1, dtype=np.float32)
    probabilities[np.arange(len(truth)), truth] = 0.9
    return replace(predictions, truth=truth, probabilities=probabilities)


def test_a_subsets_own_model_is_compared_with_the_groups_image_by_image() -> None:
    group = a_prediction_table(60)
    alone = group.for_subset("north")
    own = perfect(alone)
    found = judged(group, own)
    north, south = found.subsets
    assert north.scores == score(own.probabilities, own.truth, bootstrap_samples=300, seed=4, units=None)
    assert (north.accuracy_gain, north.accuracy_gain_interval) == paired_gain(own.correct, alone.correct, 300, 4)
    assert (north.classes, north.seconds) == (["cat", "dog"], 2.5)
    assert (south.scores, south.reason) == (None, "it has no validation images")


def test_all_test_images_are_counted_by_what_serves_their_subset() -> None:
    group = a_prediction_table(60)
    found = judged(group, perfect(group.for_subset("north")))
    south = group.for_subset("south").correct
    assert found.accuracy == pytest.approx((30 + south.sum()) / 60)
    assert found.accuracy_gain == pytest.approx(found.accuracy - group.correct.mean())


def test_kin_is_drawn_together_also_over_subsets() -> None:
    group = a_prediction_table(60, images_of_one_kin=4)
    own = perfect(group.for_subset("north"))
    served = np.concatenate([own.correct, group.for_subset("south").correct])
    shared = np.concatenate([group.for_subset(name).correct for name in ("north", "south")])
    # Consecutive images are kin, and lie in both subsets in turn.
    units = np.tile(np.repeat(np.arange(15), 2), 2)
    assert judged(group, own).accuracy_gain_interval == paired_gain(served, shared, 300, 4, units)[1]


def test_kin_of_which_each_subset_has_one_is_drawn_together() -> None:
    group = a_prediction_table(60, images_of_one_kin=2)
    own = perfect(group.for_subset("north"))
    served = np.concatenate([own.correct, group.for_subset("south").correct])
    shared = np.concatenate([group.for_subset(name).correct for name in ("north", "south")])
    expected = paired_gain(served, shared, 300, 4, np.tile(np.arange(30), 2))[1]
    assert not own.has_kin() and judged(group, own).accuracy_gain_interval == expected


def test_without_test_images_nothing_is_compared() -> None:
    found = judged(a_prediction_table(0), a_prediction_table(0, num_classes=2))
    assert found.accuracy is None and found.subsets[0].accuracy_gain is None


def test_predictions_of_another_number_of_images_are_refused() -> None:
    group = a_prediction_table(60)
    with pytest.raises(DataError, match="models of north must be compared on the same test images"):
        judged(group, perfect(group.for_subset("north").at(np.arange(29))))
