"""Predictions that lie on disk are given as those in memory would be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from orchestrator.cluster.inference import InferencePlan
from orchestrator.config import DataConfig
from orchestrator.data.multi_label import canonical_labels
from orchestrator.data.reader import PixelReader
from orchestrator.data.scratch import scratch_rows
from orchestrator.errors import DataError
from orchestrator.evaluation.parts import whole
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import BackboneSpec, Hyperparameters, ModelCard
from orchestrator.stages import predicted
from orchestrator.stages.predicted import PredictedRows, tasks_of

CLASSES = [["cat", "dog"], ["day", "dusk", "night"]]
TOGETHER = ["a", "", "b", "a", "", "b", "", "", "b", ""]


def some_rows() -> pa.Table:
    times = [["day"], ["night"], [None], ["dusk"], ["day"], [None], [None], ["night"], ["dusk"], ["day"]]
    return pa.table(
        {
            "id": [f"image {number}" for number in range(10)],
            "subset": ["south", "north"] * 5,
            "together": TOGETHER,
            "label": ["cat", "dog", "dog", "cat", "cat", "dog", "cat", "dog", "cat", "dog"],
            "tasks": pa.array(times, pa.list_(pa.string())),
        }
    )


def outputs() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((10, 5)).astype(np.float32)


def a_card(classes: list[str]) -> ModelCard:
    """Describe a model that gives an image any number of these classes."""
    return ModelCard(
        group="low",
        backbone=BackboneSpec(name="x", image_size=8, resize="crop", mean=(0, 0, 0), std=(1, 1, 1)),
        classes=classes,
        hyperparameters=Hyperparameters(freeze_depth=6, learning_rate=1e-3, epochs=1, loss="binary_cross_entropy"),
        weights_digest="d",
        pretrained_digest="none",
        data_fingerprint="data",
        subsets=["x", "y"],
        best_epoch=1,
        history=[],
        seconds=1.0,
        num_workers=1,
    )


def in_memory(classes: list[str], labels: list[str | None], first: int) -> Predictions:
    """Give one task's predictions on the rows that have a label for it, from all probabilities."""
    chosen = [number for number, label in enumerate(labels) if label is not None]
    rows = some_rows().take(chosen).to_pydict()
    return Predictions(
        ids=rows["id"],
        subsets=rows["subset"],
        together=rows["together"],
        truth=np.array([classes.index(label) for label in labels if label is not None]),
        probabilities=outputs()[chosen, first : first + len(classes)],
    )


def expected_tasks() -> list[Predictions]:
    labels, tasks = some_rows()["label"].to_pylist(), some_rows()["tasks"].to_pylist()
    return [in_memory(CLASSES[0], labels, 0), in_memory(CLASSES[1], [task[0] for task in tasks], 2)]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PredictedRows]]:
    monkeypatch.setattr(predicted, "PART_ROWS", 4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with scratch_rows(10, 5, np.float32) as rows:
        rows.put(np.arange(10)[::-1], outputs()[::-1])
        yield tasks_of(some_rows(), rows, CLASSES)


def test_every_task_has_the_predictions_that_memory_would_hold(found: list[PredictedRows]) -> None:
    for one, other in zip(found, expected_tasks(), strict=True):
        assert whole(one).to_table().equals(other.to_table())
        assert len(one) == len(other)
        np.testing.assert_array_equal(one.truth(), other.truth)
        assert one.truth().dtype == np.int32
        np.testing.assert_array_equal(np.concatenate([scored[0] for scored in one.scored()]), other.probabilities)


def test_parts_are_no_larger_than_they_may_be_and_keep_their_order(found: list[PredictedRows]) -> None:
    assert [len(part) for part in found[0].parts()] == [4, 4, 2]
    assert [len(part) for part in found[0].parts("north")] == [4, 1]
    ids = [name for part in found[0].parts("north") for name in part.ids]
    assert ids == [f"image {number}" for number in range(1, 10, 2)]


def test_kin_and_subsets_are_known_without_the_predictions(found: list[PredictedRows]) -> None:
    expected = expected_tasks()[0]
    assert found[0].subset_names == expected.subset_names == ["north", "south"]
    assert found[0].num_units == expected.num_units == 7
    for subset in (None, "north", "south"):
        assert found[0].has_kin(subset) is expected.has_kin(subset)


def test_baselines_go_along_with_their_images(found: list[PredictedRows]) -> None:
    correct = np.arange(10) % 3 == 0
    images = whole(found[0].with_baselines({"fixed_rule": correct}))
    np.testing.assert_array_equal(images.baselines["fixed_rule"], correct)


def test_images_of_any_number_of_labels_are_given_with_their_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    labels = [canonical_labels(text, "|") for text in ("cat", "", "dog|cat")]
    rows = pa.table({"id": list("abc"), "subset": list("xyx"), "together": [""] * 3, "label": labels})
    plan = InferencePlan(model_uri="/model", weights_digest="d", use_gpu=False, stall_timeout_s=1.0)
    reader = PixelReader(
        data=DataConfig(uri="/data"), image_size=8, resize="crop", pixels_uri="/pixels", fragments_uri="/fragments"
    )
    # Without blocks nothing is predicted: all probabilities are 0.
    with predicted.predicted(rows, [], reader, plan, a_card(["cat", "dog"])) as ((found,), _):
        images = whole(found)
    assert found.is_multi_label and images.is_multi_label
    assert images.label_sets.tolist() == [[True, False], [False, False], [True, True]]
    assert images.correct.tolist() == [False, True, False]


def test_a_label_that_is_no_class_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with scratch_rows(10, 5, np.float32) as rows:
        one, _ = tasks_of(some_rows(), rows, [["cat"], CLASSES[1]])
        with pytest.raises(DataError, match="one of the classes that are predicted, got dog"):
            one.truth()


def test_no_images_are_one_empty_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with scratch_rows(0, 5, np.float32) as rows:
        for task in tasks_of(some_rows().slice(0, 0), rows, CLASSES):
            assert [len(part) for part in task.parts()] == [0]
            assert (task.num_units, task.has_kin(), task.subset_names) == (0, False, [])
