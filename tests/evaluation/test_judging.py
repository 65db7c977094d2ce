import numpy as np
import pytest
from evaluation_examples import RECIPE, a_prediction_table

from orchestrator.errors import DataError
from orchestrator.evaluation.calibration import fit_temperature
from orchestrator.evaluation.intervals import paired_gain
from orchestrator.evaluation.judging import judge, judge_task
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import score
from orchestrator.records import BaselineResult, Evaluation, ShiftMethod, TaskClasses

CLASSES = ["cat", "dog", "fox"]


def judged(
    predictions: Predictions,
    *baselines: BaselineResult,
    classes: list[str] = CLASSES,
    validation: Predictions | None = None,
    shift_method: ShiftMethod | None = None,
) -> Evaluation:
    return judge(
        "low",
        classes,
        predictions,
        baselines,
        validation=a_prediction_table(60, seed=9) if validation is None else validation,
        separation=None,
        shift_method=shift_method,
        bootstrap_samples=500,
        seed=3,
        predictions_path="groups/low/predictions.parquet",
        seconds=12.5,
        fingerprint="abc",
    )


def a_run(correct: list[bool] | None, error: str | None = None) -> BaselineResult:
    return BaselineResult(
        group="low",
        name="fixed_rule",
        hyperparameters=RECIPE,
        seconds=7.0,
        correct=correct,
        error=error,
    )


def test_the_group_is_scored_over_all_its_images() -> None:
    predictions = a_prediction_table(40)
    record = judged(predictions)
    expected = score(predictions.probabilities, predictions.truth, bootstrap_samples=500, seed=3)
    assert record.model_dump(include=set(expected.model_dump())) == expected.model_dump()
    assert (record.group, record.classes, record.fingerprint) == ("low", CLASSES, "abc")
    assert (record.predictions, record.seconds) == ("groups/low/predictions.parquet", 12.5)


def test_subsets_are_scored_apart_and_add_up_to_the_group() -> None:
    record = judged(a_prediction_table(41, subsets=("south", "north", "east")))
    assert [subset.subset for subset in record.subsets] == ["east", "north", "south"]
    assert sum(subset.num_images for subset in record.subsets) == 41
    confusions = sum(np.array(subset.confusion_matrix) for subset in record.subsets)
    np.testing.assert_array_equal(confusions, record.confusion_matrix)
    right = sum((subset.accuracy or 0.0) * subset.num_images for subset in record.subsets)
    assert right / 41 == pytest.approx(record.accuracy)


def test_a_subset_without_some_classes_is_scored_over_the_groups_classes() -> None:
    predictions = Predictions(
        ids=["a", "b"],
        subsets=["north", "south"],
        together=["", ""],
        truth=np.array([0, 2]),
        probabilities=np.eye(3, dtype=np.float32)[[0, 1]],
    )
    north, south = judged(predictions).subsets
    assert north.confusion_matrix == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert south.confusion_matrix == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_baseline_is_compared_image_by_image() -> None:
    predictions = a_prediction_table(40)
    worse = predictions.correct.copy()
    worse[np.flatnonzero(worse)[:10]] = False
    (baseline,) = judged(predictions, a_run(worse.tolist())).baselines
    assert baseline.accuracy == pytest.approx(worse.mean())
    assert baseline.accuracy_gain == pytest.approx(0.25)
    assert baseline.accuracy_gain_interval is not None
    assert 0 < baseline.accuracy_gain_interval[0] < 0.25 < baseline.accuracy_gain_interval[1]
    assert (baseline.name, baseline.seconds, baseline.hyperparameters) == ("fixed_rule", 7.0, RECIPE)


def test_kin_is_drawn_together_in_every_interval() -> None:
    alone, kin = a_prediction_table(60), a_prediction_table(60, images_of_one_kin=6)
    worse = np.roll(alone.correct, 1)
    one, other = judged(alone, a_run(worse.tolist())), judged(kin, a_run(worse.tolist()))
    assert (one.num_units, other.num_units) == (60, 10)
    assert one.accuracy == other.accuracy and one.accuracy_interval != other.accuracy_interval
    assert other.baselines[0].accuracy_gain_interval == paired_gain(kin.correct, worse, 500, 3, kin.units)[1]
    expected = score(kin.probabilities, kin.truth, bootstrap_samples=500, seed=3, units=kin.units)
    assert other.accuracy_interval == expected.accuracy_interval


def test_the_temperature_is_that_of_validation_whatever_the_test_images_say() -> None:
    validation = a_prediction_table(80, seed=5)
    for seed in (1, 2):
        calibration = judged(a_prediction_table(40, seed=seed), validation=validation).calibration
        assert calibration is not None and calibration.num_images == 80
        assert calibration.temperature == fit_temperature(validation.probabilities, validation.truth)


def test_a_correction_for_class_frequencies_is_judged_where_it_is_asked_for() -> None:
    predictions = a_prediction_table(40)
    assert judged(predictions).label_shift is None
    assert judged(a_prediction_table(0), shift_method="em").label_shift is None
    shift = judged(predictions, shift_method="confusion").label_shift
    assert shift is not None and (shift.method, shift.num_validation) == ("confusion", 60)
    assert shift.whole.before.accuracy == predictions.correct.mean()
    assert [subset.subset for subset in shift.subsets] == ["north", "south"]


def test_a_failed_baseline_keeps_its_error_and_has_no_numbers() -> None:
    (baseline,) = judged(a_prediction_table(5), a_run(None, error="the loss is not finite")).baselines
    assert baseline.error == "the loss is not finite"
    assert baseline.accuracy is baseline.accuracy_interval is None
    assert baseline.accuracy_gain is baseline.accuracy_gain_interval is None


def test_without_test_images_the_record_says_none() -> None:
    record = judged(a_prediction_table(0), a_run([]))
    assert (record.num_images, record.accuracy, record.subsets) == (0, None, [])
    assert record.baselines[0].accuracy is None
    assert record.confusion_matrix == [[0] * 3] * 3


def test_the_record_survives_json() -> None:
    record = judged(a_prediction_table(9), a_run([True] * 9))
    assert Evaluation.from_json(record.to_json(), source="evaluation.json") == record


def test_a_baseline_tested_on_other_images_is_refused() -> None:
    with pytest.raises(DataError, match="baseline fixed_rule must be tested on the 5 images"):
        judged(a_prediction_table(5), a_run([True] * 4))


def test_probabilities_over_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="group low must be over its 2 classes, got 3"):
        judged(a_prediction_table(5), classes=["cat", "dog"])


def test_a_further_task_is_scored_as_the_first_is() -> None:
    predictions = a_prediction_table(40, images_of_one_kin=2)
    task = TaskClasses(task="weather", classes=["sun", "rain", "snow"])
    found = judge_task(task, predictions, bootstrap_samples=300, seed=3, predictions_path="x.parquet")
    expected = score(
        predictions.probabilities, predictions.truth, bootstrap_samples=300, seed=3, units=predictions.units
    )
    assert (found.task, found.classes, found.predictions) == ("weather", ["sun", "rain", "snow"], "x.parquet")
    assert found.model_dump(exclude={"task", "classes", "predictions", "label_shift"}) == expected.model_dump()
