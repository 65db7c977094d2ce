"""The catalogue pass leaves copies out, and says how many there are."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import ROW_SCHEMA, build_rows

from orchestrator.cluster.ingest import IngestPlan, make_catalogue, read_samples
from orchestrator.config import DataConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.records import Catalogue

pytestmark = pytest.mark.usefixtures("ray_cluster")


def write_with_copies(directory: Path, num_shards: int) -> Path:
    """Write 20 images of two subsets; then six again under other ids, two of these in the other subset."""
    rows = build_rows(subsets={"north": {"cat": 10}, "south": {"cat": 10}}, image_px=16)
    copies = [{**row, "id": f"zz/{row['id']}"} for row in rows if str(row["id"]).startswith("north/")][:6]
    moved = [{**row, "subset": "south"} for row in copies[:2]]
    everything = [*rows, *moved, *copies[2:]]
    directory.mkdir()
    for shard in range(num_shards):
        part = pa.Table.from_pylist(everything[shard::num_shards], schema=ROW_SCHEMA)
        pq.write_table(part, directory / f"{shard}.parquet")
    return directory


def catalogued(data: Path, run: Path, **options: object) -> tuple[Catalogue, SampleTable]:
    columns = {"image": "image", "label": "label", "subset": "subset", "id": "id", "max_bad_fraction": 0.0}
    config = DataConfig.model_validate({"uri": str(data)} | columns | options)
    plan = IngestPlan(
        data=config, image_size=16, resize="crop", seed=0, run_uri=str(run), folder="catalogue", stall_timeout_s=60
    )
    catalogue = make_catalogue(plan, fingerprint="test")
    return catalogue, read_samples(str(run), catalogue)


def test_copies_are_only_counted_unless_asked_for(tmp_path: Path) -> None:
    catalogue, samples = catalogued(write_with_copies(tmp_path / "data", 2), tmp_path / "run")
    assert (catalogue.num_images, catalogue.num_copies_left_out, len(samples.where())) == (26, 0, 26)
    assert catalogue.exact_copies is not None
    assert (catalogue.exact_copies.copies, catalogue.exact_copies.copies_within_subsets) == (6, 4)
    assert catalogue.near_copies is None


@pytest.mark.parametrize("mode", ["exact", "near"])
def test_copies_are_left_out_without_being_bad_rows_and_the_same_in_other_shards(tmp_path: Path, mode: str) -> None:
    found = [
        catalogued(write_with_copies(tmp_path / f"data-{shards}", shards), tmp_path / f"run-{shards}", deduplicate=mode)
        for shards in (1, 3)
    ]
    for catalogue, samples in found:
        assert (catalogue.num_images, catalogue.num_copies_left_out, catalogue.num_quarantined) == (22, 4, 0)
        assert (catalogue.near_copies is not None) == (mode == "near")
        rows = samples.table.take(pa.array(samples.where())).to_pylist()
        splits = {row["pixels"]: {other["split"] for other in rows if other["pixels"] == row["pixels"]} for row in rows}
        assert len(splits) == 20
        assert all(len(sides) == 1 for sides in splits.values())
    assert found[0][0].data_fingerprint == found[1][0].data_fingerprint
