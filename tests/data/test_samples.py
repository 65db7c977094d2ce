from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders import write_parquet_shards

from orchestrator.config import DataConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.samples import CachedSamples

CLASSES = ("cat", "cow", "dog")
SUBSETS = {"north": {"cat": 12, "dog": 6}, "south": {"cat": 5, "cow": 7}}


@pytest.fixture
def half_cached(
    tmp_path: Path, parquet_config: Callable[..., DataConfig], make_catalogue: Callable[..., pa.Table]
) -> tuple[SampleTable, str]:
    config = parquet_config(write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=3))
    table = make_catalogue(config, tmp_path / "pixels", cache_fraction=0.5)
    return SampleTable(table), str(tmp_path / "pixels")


def test_labels_and_pixels_belong_to_the_same_cached_samples(half_cached: tuple[SampleTable, str]) -> None:
    table, uri = half_cached
    positions = table.where(split="train")[::-1]
    samples = CachedSamples.of(table, positions, uri, CLASSES)
    rows = [row for row in table.table.take(pa.array(positions)).to_pylist() if row["pixel_row"] >= 0]
    assert 0 < len(samples) == len(rows) < len(positions)
    assert [CLASSES[label] for label in samples.labels] == [row["label"] for row in rows]
    taken = samples.take(np.arange(len(samples)))
    for pixels, row in zip(taken, rows, strict=True):
        np.testing.assert_array_equal(pixels, np.load(f"{uri}/{row['fragment']}.npy")[row["pixel_row"]])


def test_samples_travel_to_another_process(half_cached: tuple[SampleTable, str]) -> None:
    table, uri = half_cached
    samples = CachedSamples.of(table, table.where(), uri, CLASSES)
    sent = pickle.loads(pickle.dumps(samples))
    np.testing.assert_array_equal(sent.labels, samples.labels)
    np.testing.assert_array_equal(sent.take(np.array([3, 3, 0])), samples.take(np.array([3, 3, 0])))


@pytest.mark.parametrize("nothing", ["no cache", "no positions"])
def test_there_may_be_no_samples(half_cached: tuple[SampleTable, str], nothing: str) -> None:
    table, uri = half_cached
    if nothing == "no cache":
        samples = CachedSamples.of(table, table.where(), None, CLASSES)
    else:
        samples = CachedSamples.of(table, table.where(subsets=[]), uri, CLASSES)
    assert len(samples) == 0
    assert samples.labels.dtype == np.int64
