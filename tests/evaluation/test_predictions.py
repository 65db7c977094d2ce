from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from evaluation_examples import a_prediction_table

from orchestrator import storage
from orchestrator.errors import DataError, RecordError
from orchestrator.evaluation.predictions import Predictions, number_units


def assert_same(first: Predictions, second: Predictions) -> None:
    assert list(first.ids) == list(second.ids)
    assert list(first.subsets) == list(second.subsets)
    assert list(first.together) == list(second.together)
    np.testing.assert_array_equal(first.truth, second.truth)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert first.probabilities.dtype == second.probabilities.dtype
    assert list(first.baselines) == list(second.baselines)
    for name, correct in first.baselines.items():
        np.testing.assert_array_equal(correct, second.baselines[name])


@pytest.mark.parametrize("num_images", [30, 1, 0])
def test_predictions_come_back_from_parquet_as_they_were(tmp_path: Path, num_images: int) -> None:
    predictions = a_prediction_table(num_images, images_of_one_kin=3).with_baselines(
        {"fixed_rule": [index % 2 == 0 for index in range(num_images)], "head_only": [True] * num_images}
    )
    path = str(tmp_path / "predictions.parquet")
    storage.write_table(path, predictions.to_table())
    assert_same(Predictions.from_table(storage.read_table(path)), predictions)


def test_a_part_of_the_table_reads_as_that_part() -> None:
    predictions = a_prediction_table(10)
    part = Predictions.from_table(predictions.to_table().slice(4, 3))
    assert part.ids == predictions.ids[4:7]
    np.testing.assert_array_equal(part.probabilities, predictions.probabilities[4:7])


def test_the_table_says_what_was_predicted() -> None:
    predictions = a_prediction_table(12).with_baselines({"fixed_rule": [True] * 12})
    table = predictions.to_table()
    assert table.column_names == [
        "id",
        "subset",
        "together",
        "label",
        "predicted",
        "probabilities",
        "correct_fixed_rule",
    ]
    matches = np.asarray(table.column("label")) == np.asarray(table.column("predicted"))
    np.testing.assert_array_equal(matches, predictions.correct)
    assert 0 < predictions.correct.sum() < 12


def test_a_subset_keeps_its_images_in_order_with_their_baselines() -> None:
    predictions = a_prediction_table(8).with_baselines({"fixed_rule": [True, False] * 4})
    south = predictions.for_subset("south")
    assert south.ids == ["low/1", "low/3", "low/5", "low/7"]
    assert set(south.subsets) == {"south"}
    np.testing.assert_array_equal(south.truth, predictions.truth[1::2])
    np.testing.assert_array_equal(south.correct, predictions.correct[1::2])
    assert not south.baselines["fixed_rule"].any()
    assert len(predictions.for_subset("nowhere")) == 0


def test_images_that_share_a_name_are_one_unit_and_images_without_one_stand_alone() -> None:
    units = number_units(["camera 1", "", "camera 2", "camera 1", "", "camera 2"])
    assert units is not None
    assert (units[0], units[2]) == (units[3], units[5]) and sorted(set(units.tolist())) == [0, 1, 2, 3]


@pytest.mark.parametrize("together", [[], ["", ""], ["camera 1", "", "camera 2"]])
def test_where_no_two_images_share_a_name_there_are_no_units(together: list[str]) -> None:
    assert number_units(together) is None


def test_a_subset_numbers_the_units_that_it_has() -> None:
    predictions = a_prediction_table(12, images_of_one_kin=4)
    assert predictions.units is not None
    np.testing.assert_array_equal(predictions.units, np.arange(12) // 4)
    part = predictions.for_subset("south")
    assert part.units is not None
    np.testing.assert_array_equal(part.units, np.arange(6) // 2)


def test_adding_a_baseline_keeps_the_others() -> None:
    predictions = a_prediction_table(2).with_baselines({"fixed_rule": [True, False]})
    assert list(predictions.with_baselines({"head_only": [True, True]}).baselines) == [
        "fixed_rule",
        "head_only",
    ]


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(DataError, match=r"one entry for each image.*'baseline fixed_rule': 3"):
        a_prediction_table(4).with_baselines({"fixed_rule": [True] * 3})


@pytest.mark.parametrize("change", ["drop", "retype"])
def test_a_damaged_table_names_what_is_wrong(change: str) -> None:
    table = a_prediction_table(4).to_table()
    place = table.column_names.index("probabilities")
    if change == "drop":
        table, complaint = table.drop_columns(["probabilities"]), "no column probabilities"
    else:
        lists = pa.array([[0.5], [0.5, 0.5], [1.0], [1.0]])
        table, complaint = table.set_column(place, "probabilities", lists), "probabilities of type list"
    with pytest.raises(RecordError, match=complaint):
        Predictions.from_table(table)
