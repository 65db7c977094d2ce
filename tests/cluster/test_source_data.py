"""The samples of a source task go with the numbers of their subsets, also where not all are cached or learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tiny_experiments import experiment_dict

from orchestrator import storage
from orchestrator.cluster.pretraining_phases import SourceData
from orchestrator.cluster.streams import DecodeImages
from orchestrator.config import ExperimentConfig
from orchestrator.data.catalogue import CATALOGUE_SCHEMA, assemble, data_fingerprint, summarise
from orchestrator.data.identity import sample_keys
from orchestrator.data.pixels import write_pixels
from orchestrator.data.reader import PixelReader
from orchestrator.experiment_file import validate_experiment
from orchestrator.records import Catalogue

LABELS, SUBSETS, SPLITS = ("cat", "dog", "ant"), ("north", "south"), ("train", "train", "val", "test")


def a_table() -> pa.Table:
    """48 samples in which label, subset and split go through all combinations; every fifth one is not cached."""
    plain = {"file": "a", "reason": "", "copy_of": "", "content": "", "perceptual": "", "together": ""}
    rows: list[dict[str, Any]] = [
        {
            **plain,
            "id": f"{number:05}",
            "label": LABELS[number % 3],
            "subset": SUBSETS[number // 3 % 2],
            "split": SPLITS[number // 6 % 4],
            "split_given": True,
            "row": number,
            "ok": True,
            "pixels": str(number),
            "fragment": 0,
            "pixel_row": -1 if number % 5 == 0 else number,
        }
        for number in range(48)
    ]
    return assemble([pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)])


def a_reader(config: ExperimentConfig, directory: Path) -> PixelReader:
    pixels = str(directory / "p")
    return PixelReader(data=config.data, image_size=8, resize="crop", pixels_uri=pixels, fragments_uri="")


def a_source(directory: Path, table: pa.Table, pretrain: dict[str, Any]) -> SourceData:
    storage.write_table(str(directory / "table.parquet"), table)
    catalogue = Catalogue(
        table="table.parquet",
        quarantine="q",
        pixels="p",
        image_size=8,
        data_fingerprint=data_fingerprint(table),
        seconds=0.0,
        **summarise(table),
    )
    config = validate_experiment(experiment_dict(directory, directory, pretrain=pretrain))
    return SourceData.of(config, str(directory), catalogue, reader=a_reader(config, directory))


def test_what_is_not_cached_is_streamed_with_the_rest(tmp_path: Path) -> None:
    pretrain = {"classes": ["dog", "cat"], "data": {"uri": "/source"}}
    source = a_source(tmp_path, a_table(), pretrain)
    blocks = source.stream
    assert blocks is not None
    streamed = sorted(row for block in blocks for row in block.column("row").to_pylist())
    learnt = [number for number in range(48) if LABELS[number % 3] != "ant" and SPLITS[number // 6 % 4] == "train"]
    assert streamed == learnt and any(number % 5 == 0 for number in learnt)
    assert len(source.labelled().train) < len(learnt)


def test_images_are_streamed_whatever_their_labels(tmp_path: Path) -> None:
    table = a_table()
    labels = ["" if number % 2 else label for number, label in enumerate(table.column("label").to_pylist())]
    table = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    objective = {"objective": "simsiam_then_supervised", "data": {"uri": "/source"}}
    sources = [
        a_source(tmp_path, table, {"objective": "simsiam", "data": {"uri": "/source"}}),
        a_source(tmp_path, table, {**objective, "classes": ["dog", "cat"]}),
    ]
    for source in sources:
        assert source.image_stream is not None
        streamed = sorted(row for block in source.image_stream for row in block.column("row").to_pylist())
        assert streamed == [number for number in range(48) if SPLITS[number // 6 % 4] == "train"]
        assert len(source.images().train) < len(streamed)


def test_where_all_is_cached_nothing_is_streamed(tmp_path: Path) -> None:
    table = a_table()
    place = table.column_names.index("pixel_row")
    held = table.set_column(place, "pixel_row", table.column("row"))
    source = a_source(tmp_path, held, {"data": {"uri": "/source"}})
    assert source.stream is None and source.image_stream is None


def test_where_a_class_that_is_not_cached_is_not_learnt_images_alone_are_streamed(tmp_path: Path) -> None:
    table = a_table()
    numbers = np.arange(48)
    rows = pa.array(np.where(numbers % 3 == LABELS.index("ant"), -1, numbers), pa.int32())
    table = table.set_column(table.column_names.index("pixel_row"), "pixel_row", rows)
    pretrain = {"objective": "simsiam_then_supervised", "classes": ["dog", "cat"], "data": {"uri": "/source"}}
    source = a_source(tmp_path, table, pretrain)
    assert source.stream is None and source.image_stream is not None


def test_streamed_images_come_with_the_keys_of_their_samples(tmp_path: Path) -> None:
    config = validate_experiment(experiment_dict(tmp_path, tmp_path))
    pixels = np.arange(48 * 8 * 8 * 3, dtype=np.int64).reshape(48, 8, 8, 3).astype(np.uint8)
    write_pixels(str(tmp_path / "p"), 0, pixels)
    rows = a_table().filter(pc.greater_equal(a_table().column("pixel_row"), 0)).slice(3, 7)
    columns = DecodeImages(a_reader(config, tmp_path))(rows)
    assert sorted(columns) == ["key", "pixels"]
    np.testing.assert_array_equal(columns["key"], sample_keys(rows.column("id").to_pylist()))
    np.testing.assert_array_equal(columns["pixels"], pixels[np.asarray(rows.column("row"))])


def test_subsets_are_those_of_the_cached_samples_of_the_classes_that_are_learnt(tmp_path: Path) -> None:
    source = a_source(tmp_path, a_table(), {"objective": "reptile", "classes": ["dog", "cat"]})
    samples, train, validation = source.labelled_by_subset()
    assert samples.classes == ("dog", "cat")
    for cached, subsets, splits in ((samples.train, train, (0, 1)), (samples.validation, validation, (2,))):
        # The row in the cache is the number that everything else is told by.
        numbers = cached.pixels.rows
        assert set(numbers // 6 % 4) == set(splits) and not np.any(numbers % 5 == 0)
        np.testing.assert_array_equal(cached.labels, [("dog", "cat").index(LABELS[number % 3]) for number in numbers])
        names = np.array(SUBSETS)[numbers // 3 % 2]
        assert len(subsets) == len(cached) > 4
        assert len({(name, int(subset)) for name, subset in zip(names, subsets, strict=True)}) == 2
        assert len(set(subsets)) == 2
