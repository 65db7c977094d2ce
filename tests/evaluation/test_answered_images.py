"""A table of predictions is read for comparisons part by part, without its probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from evaluation_examples import a_prediction_table, paired

from orchestrator import storage
from orchestrator.errors import RecordError
from orchestrator.evaluation.answered_images import (
    AnsweredImages,
    add_up_by_subset,
    in_order,
    places_by,
    right_by_subset,
)
from orchestrator.evaluation.paired_answers import add_up
from orchestrator.evaluation.predictions import PROBABILITIES, Predictions


def some_images(num_images: int = 50) -> Predictions:
    table = a_prediction_table(num_images, subsets=("south", "north", "west"), images_of_one_kin=4)
    return table.with_baselines({"fixed_rule": np.arange(num_images) % 3 == 0})


def stored(images: Predictions, folder: Path, size: int = 20) -> Iterator[AnsweredImages]:
    """Write predictions as the evaluation does, and read which of them are right."""
    uri = str(folder / "predictions.parquet")
    table = images.to_table()
    storage.write_table_parts(uri, (table.slice(start, size) for start in range(0, max(1, len(images)), size)))
    return (AnsweredImages.from_table(part) for part in storage.read_table_parts(uri, without=[PROBABILITIES]))


def test_each_subset_is_added_up_in_one_pass(tmp_path: Path) -> None:
    images = some_images()
    found = add_up_by_subset(stored(images, tmp_path))
    assert sorted(found) == ["north", "south", "west"]
    for name, answers in found.items():
        own = images.for_subset(name)
        assert answers.gain_over("fixed_rule", 100, 1) == paired(own).gain_over("fixed_rule", 100, 1)
    whole = add_up(found.values())
    assert whole.gain_over("fixed_rule", 100, 1) == paired(images).gain_over("fixed_rule", 100, 1)


def test_answers_of_a_subset_keep_their_order(tmp_path: Path) -> None:
    images = some_images()
    found = right_by_subset(stored(images, tmp_path))
    for name in images.subset_names:
        np.testing.assert_array_equal(found[name], images.for_subset(name).correct)


def test_sets_of_labels_are_right_where_all_labels_are(tmp_path: Path) -> None:
    truth = np.array([[True, False], [True, True], [False, False]])
    images = replace(
        some_images(3), truth=truth, probabilities=np.float32([[0.9, 0.1], [0.9, 0.1], [0.2, 0.3]]), baselines={}
    )
    (part,) = stored(images, tmp_path)
    assert part.correct.tolist() == images.correct.tolist() == [True, False, True]


def test_no_images_have_no_subsets(tmp_path: Path) -> None:
    images = some_images(0)
    assert add_up_by_subset(stored(images, tmp_path)) == {} == right_by_subset(stored(images, tmp_path))
    assert list(in_order([], pa.chunked_array([], pa.string()))) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [(range(49), "others from image 40 on"), (range(51), "50 images of 51"), ([0, 2, 1, *range(3, 50)], "image 0 on")],
)
def test_predictions_of_other_images_than_the_catalogues_are_refused(
    rows: range | list[int], message: str, tmp_path: Path
) -> None:
    ids = [f"low/{number}" for number in rows]
    with pytest.raises(RecordError, match=f"of the catalogue's images, in its order, got .*{message}"):
        right_by_subset(in_order(stored(some_images(), tmp_path), pa.chunked_array([ids[:7], ids[7:]])))


def test_predictions_of_the_catalogues_images_go_through(tmp_path: Path) -> None:
    images = some_images()
    ids = pa.chunked_array([images.ids[:7], images.ids[7:]])
    assert sum(len(part.correct) for part in in_order(stored(images, tmp_path), ids)) == 50


def test_a_table_of_another_form_is_refused() -> None:
    table = some_images().to_table().drop_columns([PROBABILITIES])
    assert AnsweredImages.from_table(table).correct.shape == (50,)
    with pytest.raises(RecordError, match="no column predicted"):
        AnsweredImages.from_table(table.drop_columns(["predicted"]))


def test_names_stand_at_their_places() -> None:
    found = places_by(pa.chunked_array([["b", "a"], ["b"]]))
    assert {name: places.tolist() for name, places in found.items()} == {"a": [1], "b": [0, 2]}
    assert places_by(pa.chunked_array([], pa.string())) == {}
