from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.config import DataConfig
from orchestrator.data.catalogue import SampleTable, summarise
from orchestrator.data.duplicates import deduplicate

PACS = Path(os.environ.get("ORCHESTRATOR_PACS", Path(__file__).parents[3] / "shared/data/pacs"))

pytestmark = pytest.mark.skipif(not PACS.is_dir(), reason=f"the PACS shards are not at {PACS}")


@pytest.fixture(scope="module")
def pacs() -> DataConfig:
    return DataConfig(
        uri=str(PACS), image="image", label="label", subset="site", id="path", split={"keep_together": "path"}
    )


def test_labels_of_all_shards_are_read_without_opening_an_image(
    pacs: DataConfig, make_catalogue: Callable[..., pa.Table]
) -> None:
    table = make_catalogue(pacs.model_copy(update={"verify": "none"}))
    summary = summarise(table)
    assert (summary["num_images"], summary["num_quarantined"]) == (9991, 0)
    assert len(summary["subsets"]) == 24
    assert summary["labels"] == ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"]
    assert len(set(table.column("id").to_pylist())) == 9991
    share = len(SampleTable(table).where(split="test")) / 9991
    assert share == pytest.approx(0.15, abs=0.015)


@pytest.mark.slow
def test_near_copies_are_the_known_ones(pacs: DataConfig, make_catalogue: Callable[..., pa.Table]) -> None:
    table = make_catalogue(pacs.model_copy(update={"deduplicate": "near"}), image_size=8, cache_fraction=0.0)
    hashes = table.column("perceptual").to_pylist()
    assert all(hashes)
    _, counts = deduplicate(table, pacs.model_copy(update={"deduplicate": "near"}), 0)
    assert counts["near_copies"] is not None and counts["near_copies"].copies == 11


def test_the_images_of_a_shard_are_decoded_and_cached(
    pacs: DataConfig, make_catalogue: Callable[..., pa.Table], tmp_path: Path
) -> None:
    shard = sorted(PACS.glob("photo-*.parquet"))[0]
    table = make_catalogue(pacs.model_copy(update={"uri": str(shard)}), tmp_path, image_size=96)
    summary = summarise(table)
    assert summary["num_quarantined"] == 0
    assert summary["num_cached"] == summary["num_images"] > 500
