"""The run's own training images, and no others, are learnt beside the source, by classes of the same name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sample_tables import a_table, partly_cached

from orchestrator.cluster.pretraining_phases import SourceData
from orchestrator.cluster.pretraining_target import TargetData
from orchestrator.config import DataConfig, PretrainConfig, PretrainingTargetConfig
from orchestrator.data.catalogue import SampleTable, data_fingerprint, summarise
from orchestrator.data.identity import sample_keys
from orchestrator.data.reader import PixelReader
from orchestrator.errors import DataError
from orchestrator.records import Catalogue

SPLITS = ("train", "val", "test")


def a_catalogue(table: SampleTable) -> Catalogue:
    return Catalogue(
        table="t",
        quarantine="q",
        pixels="p",
        image_size=8,
        data_fingerprint=data_fingerprint(table.table),
        seconds=0.0,
        **summarise(table.table),
    )


def a_target(table: SampleTable, *, pixels_uri: str | None = "/p", **settings: Any) -> TargetData:
    return TargetData(
        settings=PretrainingTargetConfig.model_validate(settings),
        data_uri="/target",
        catalogue=a_catalogue(table),
        table=table,
        reader=a_reader("/target", pixels_uri),
    )


def a_reader(uri: str, pixels_uri: str | None = "/p") -> PixelReader:
    return PixelReader(data=DataConfig(uri=uri), image_size=8, resize="crop", pixels_uri=pixels_uri, fragments_uri="")


def a_source(table: SampleTable, classes: tuple[str, ...], target: TargetData | None) -> SourceData:
    return SourceData(
        pretrain=PretrainConfig(data=DataConfig(uri="/source")),
        catalogue=a_catalogue(table),
        classes=classes,
        table=table,
        reader=a_reader("/source"),
        target=target,
    )


def test_only_training_images_are_learnt_never_those_that_validate_or_test() -> None:
    table = a_table(["cat", "dog"] * 6, splits=SPLITS)
    companion = a_target(table).companion(["cat", "dog"])
    training = [row["id"] for row in table.table.to_pylist() if row["split"] == "train"]
    assert len(training) == 4
    np.testing.assert_array_equal(companion.samples.keys, sample_keys(training))


def test_classes_of_the_source_share_its_outputs_and_others_have_their_own() -> None:
    target = a_target(a_table(["dog", "fox", "cat", "ant"]), batch_share=0.25, weight=0.5)
    companion = target.companion(["bird", "cat", "dog"])
    # bird 0, cat 1, dog 2, and behind them ant 3, fox 4.
    assert companion.samples.labels.tolist() == [2, 4, 1, 3]
    assert (companion.num_extra, companion.num_dropped) == (2, 2)
    assert (companion.batch_share, companion.weight) == (0.25, 0.5)
    use = target.described(["bird", "cat", "dog"])
    assert (use.shared_classes, use.own_classes, use.num_images) == (["cat", "dog"], ["ant", "fox"], 4)
    assert (use.data_uri, use.data_fingerprint) == ("/target", target.catalogue.data_fingerprint)


def test_all_training_images_are_streamed_where_not_all_are_cached_by_the_outputs_that_held_ones_have() -> None:
    table = a_table(["dog", "fox", "cat", "ant", "cow"], splits=("train", "train", "train", "train", "val"))
    assert not a_target(table).is_streamed and a_target(table).stream(["cat", "dog"]) is None
    target = a_target(partly_cached(table, 1, 2))
    streamed, companion = target.stream(["cat", "dog"]), target.companion(["cat", "dog"])
    # cat 0, dog 1, and behind them ant 2, fox 3.
    assert streamed is not None and streamed.labels.tolist() == [1, 3, 0, 2]
    assert companion.samples.labels.tolist() == [1, 2] and companion.num_extra == 2
    use = target.described(["cat", "dog"])
    assert (use.num_images, use.shared_classes, use.own_classes) == (4, ["cat", "dog"], ["ant", "fox"])


def test_without_cached_pixels_there_is_nothing_to_learn() -> None:
    with pytest.raises(DataError, match=r"the run must have training images whose pixels are cached"):
        a_target(a_table(["cat"]), pixels_uri=None).companion(["cat"])
    with pytest.raises(DataError, match=r"leave pretrain\.with_target out"):
        a_target(a_table(["cat"], splits=("test",))).companion(["cat"])


def test_source_images_that_show_what_the_run_tests_are_left_out_where_the_run_is_known() -> None:
    own = a_table(["cat", "dog", "dog"], pixels="shared", splits=SPLITS)
    table = a_table(["cat", "dog", "dog", "cat", "dog", "cat"], pixels="shared", splits=("train", "val"))
    together = a_source(table, ("cat", "dog"), a_target(own)).labelled()
    alone = a_source(table, ("cat", "dog"), None).labelled()
    # The run has shared/0 to shared/2, of which the source trains on 0 and 2 and validates on 1.
    assert (len(alone.train), len(alone.validation)) == (3, 3)
    assert (len(together.train), len(together.validation)) == (1, 2)
    assert alone.companion is None and alone.output_counts == (2,)
    assert together.companion is not None and len(together.companion.samples) == 1
    with pytest.raises(DataError, match="cached training images that the run has not"):
        a_source(own, ("cat", "dog"), a_target(own)).labelled()
