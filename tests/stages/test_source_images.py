"""A source's catalogue becomes what a group is trained together with: labels by name, no copies of the run's images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sample_tables import a_table, partly_cached

from orchestrator.config import DataConfig, SourceConfig
from orchestrator.data.catalogue import SampleTable, data_fingerprint, summarise
from orchestrator.data.reader import PixelReader
from orchestrator.errors import DataError
from orchestrator.records import Catalogue
from orchestrator.stages.distances import LabelledImages
from orchestrator.stages.sources import (
    companion_of,
    is_source_streamed,
    known_classes,
    source_use,
    streamed_source,
    unseen_images,
)

GROUP = ("cat", "dog")


def images(samples: SampleTable, classes: list[str] | None = None, **fields: Any) -> LabelledImages:
    catalogue = Catalogue(
        table="t",
        quarantine="q",
        pixels="p",
        image_size=8,
        data_fingerprint=data_fingerprint(samples.table),
        seconds=0.0,
        **summarise(samples.table),
    )
    reader = PixelReader(
        data=DataConfig(uri="/source"), image_size=8, resize="crop", pixels_uri="/p", fragments_uri="/f"
    )
    return LabelledImages(
        catalogue=catalogue,
        samples=samples,
        reader=reader,
        classes=known_classes(config(classes=classes, **fields), catalogue),
    )


def config(**fields: Any) -> SourceConfig:
    return SourceConfig.model_validate({"uri": "/source", **fields})


TARGET = a_table(["cat", "dog"], pixels="target")


def test_labels_of_the_group_share_its_outputs_and_others_have_their_own() -> None:
    source = images(a_table(["dog", "bird", "cat", "ant"]))
    companion = companion_of(source, config(batch_share=0.25), GROUP, TARGET)
    # cat 0, dog 1, and behind them ant 2, bird 3.
    assert companion.samples.labels.tolist() == [1, 3, 0, 2]
    assert (companion.num_extra, companion.num_dropped, companion.batch_share) == (2, 2, 0.25)
    use = source_use("/source", config(), companion, GROUP)
    assert (use.shared_classes, use.num_other_classes, use.num_images) == (["cat", "dog"], 2, 4)


@pytest.mark.parametrize("penalty", ["coral", "mmd"])
def test_a_source_counts_as_the_experiment_says(penalty: str) -> None:
    wanted = config(batch_share=0.25, weight=0.3, penalty=penalty, penalty_weight=7.0)
    companion = companion_of(images(a_table(["dog", "cat"])), wanted, GROUP, TARGET)
    for found in (companion, source_use("/source", wanted, companion, GROUP)):
        counts = (found.batch_share, found.weight, found.penalty, found.penalty_weight)
        assert counts == (0.25, 0.3, penalty, 7.0)


def test_classes_restrict_the_source_and_must_occur() -> None:
    companion = companion_of(images(a_table(["dog", "bird", "cat"]), ["dog"]), config(), GROUP, TARGET)
    assert companion.samples.labels.tolist() == [1] and companion.num_extra == 0
    with pytest.raises(DataError, match=r"source\.classes must occur in the source data, got fish"):
        images(a_table(["dog"]), ["dog", "fish"])


@pytest.mark.parametrize(
    ("negatives", "label", "extra", "dropped", "weight"), [("reject", 2, 1, 0, 1.0), ("outlier_exposure", 0, 0, 0, 0.5)]
)
def test_negatives_are_all_alike(negatives: str, label: int, extra: int, dropped: int, weight: float) -> None:
    wanted = config(as_negatives=negatives)
    companion = companion_of(images(a_table(["dog", "bird"])), wanted, GROUP, TARGET)
    assert companion.samples.labels.tolist() == [label, label]
    assert (companion.num_extra, companion.num_dropped, companion.weight) == (extra, dropped, weight)
    assert companion.is_uniform == (negatives == "outlier_exposure")
    use = source_use("/source", wanted, companion, GROUP)
    assert (use.shared_classes, use.num_other_classes) == ([], 0)


def test_a_source_is_streamed_where_a_training_image_of_its_classes_is_not_cached() -> None:
    table = a_table(["dog", "bird", "cat", "dog"], splits=("train", "train", "train", "val"))
    assert not is_source_streamed(images(table))
    assert is_source_streamed(images(partly_cached(table, 1)))
    assert not is_source_streamed(images(partly_cached(table, 1), ["dog", "cat"]))
    assert not is_source_streamed(images(partly_cached(table, 3)))


def test_what_is_streamed_is_labelled_by_the_outputs_that_what_is_held_has() -> None:
    source = images(partly_cached(a_table(["dog", "bird", "cat", "ant", "dog"]), 1, 2))
    companion, streamed = (make(source, config(), GROUP, TARGET) for make in (companion_of, streamed_source))
    # No image of bird is held: it has its output all the same.
    assert companion.samples.labels.tolist() == [1, 2, 1] and companion.num_extra == 2
    assert streamed.labels.tolist() == [1, 3, 0, 2, 1]
    assert streamed.rows.column("row").to_pylist() == [0, 1, 2, 3, 4]
    use = source_use("/source", config(), companion, GROUP, streamed)
    assert (use.num_images, use.num_searched, use.shared_classes, use.num_other_classes) == (5, 3, ["cat", "dog"], 2)
    assert source_use("/source", config(), companion, GROUP).num_searched is None


@pytest.mark.parametrize(("negatives", "label"), [("reject", 2), ("outlier_exposure", 0)])
def test_streamed_negatives_are_all_alike_whatever_their_labels(negatives: str, label: int) -> None:
    source = images(partly_cached(a_table(["", "bird", "dog"]), 2), as_negatives=negatives)
    streamed = streamed_source(source, config(as_negatives=negatives), GROUP, TARGET)
    assert streamed.labels.tolist() == [label] * 3


def test_copies_of_the_runs_images_are_not_streamed() -> None:
    source = images(partly_cached(a_table(["dog", "cat", "dog", "cat"], pixels="target"), 3))
    # The run has target/0 and target/1.
    assert streamed_source(source, config(), GROUP, TARGET).rows.column("row").to_pylist() == [2, 3]


@pytest.mark.parametrize("negatives", ["reject", "outlier_exposure"])
def test_negatives_need_no_labels(negatives: str) -> None:
    source = images(a_table(["", "bird", ""], splits=("train", "train", "val")), as_negatives=negatives)
    companion = companion_of(source, config(as_negatives=negatives), GROUP, TARGET)
    assert len(companion.samples) == 2 and len(set(companion.samples.labels.tolist())) == 1
    assert unseen_images(source, TARGET, seed=0).num_rows == 1


def test_what_is_learnt_or_chosen_by_labels_is_not_learnt_from_images_without() -> None:
    unlabelled = a_table(["", "dog", ""])
    assert len(companion_of(images(unlabelled), config(), GROUP, TARGET).samples) == 1
    chosen = images(unlabelled, ["dog"], as_negatives="reject")
    assert len(companion_of(chosen, config(classes=["dog"], as_negatives="reject"), GROUP, TARGET).samples) == 1


def test_what_has_the_pixels_of_an_image_of_the_run_is_left_out() -> None:
    source = images(a_table(["dog", "cat", "dog"], pixels="target"))
    companion = companion_of(source, config(), GROUP, TARGET)
    # The run has target/0 and target/1.
    assert len(companion.samples) == 1
    with pytest.raises(DataError, match="the source must have training images"):
        companion_of(images(a_table(["dog", "cat"], pixels="target")), config(), GROUP, TARGET)


def test_what_the_run_has_left_out_as_a_copy_is_left_out_too() -> None:
    left_out = TARGET.table.set_column(TARGET.table.schema.get_field_index("ok"), "ok", pa.array([True, False]))
    source = images(a_table(["dog", "cat", "dog"], pixels="target"))
    assert len(companion_of(source, config(), GROUP, SampleTable(left_out)).samples) == 1


def test_what_looks_like_an_image_of_the_run_is_left_out_where_the_run_looks_for_near_copies() -> None:
    # Of 256 bits 8 differ, then 64.
    source = images(a_table(["dog", "cat"], looks=(2**8 - 1, 2**64 - 1)))
    target = a_table(["cat"], pixels="target", looks=(0,))
    assert companion_of(source, config(), GROUP, target).samples.labels.tolist() == [0]
    assert len(companion_of(source, config(), GROUP, TARGET).samples) == 2


def test_scores_are_tested_on_what_was_not_trained_on() -> None:
    splits = ("train", "val", "test")
    source = images(a_table(["dog", "bird"] * 1200, splits=splits))
    rows = unseen_images(source, TARGET, seed=0)
    assert rows.num_rows == 1024
    assert set(rows.column("split").to_pylist()) == {"val", "test"}
    assert rows.column("id").to_pylist() == unseen_images(source, TARGET, seed=0).column("id").to_pylist()
    # Places in the pixel cache are what a pass reads by: they go on in one direction.
    assert (np.diff(np.asarray(rows.column("pixel_row"))) > 0).all()
