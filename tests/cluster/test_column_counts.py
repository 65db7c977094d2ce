"""Labels and attributes are counted straight from the files, in whatever tasks, and bad rows are counted too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import write_image_folder, write_parquet_shards

from orchestrator.cluster import column_counts
from orchestrator.cluster.column_counts import ColumnCounts, count_columns
from orchestrator.cluster.profiling import ProfilePlan, make_label_profile
from orchestrator.config import DataConfig
from orchestrator.diversity.profiling import ProfileSettings
from orchestrator.errors import DataError

SUBSETS = {"even": {"circle": 6, "stripe": 6}, "skewed": {"circle": 9, "stripe": 1}}

pytestmark = pytest.mark.usefixtures("ray_cluster")


def config(directory: Path, **changes: object) -> DataConfig:
    named = {"uri": str(directory), "image": "image", "label": "label", "subset": "subset"}
    return DataConfig.model_validate(named | changes)


def by_subset(counts: pa.Table) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in counts.to_pylist():
        found.setdefault(row["subset"], {})[row["label"]] = row["count"]
    return found


def count(data: DataConfig, *attributes: str) -> ColumnCounts:
    return count_columns(data, attributes, stall_timeout_s=60)


@pytest.mark.parametrize("rows_per_task", [1, 1000])
def test_counts_are_those_of_the_rows_however_they_are_shared_out(
    rows_per_task: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_counts, "_ROWS_PER_TASK", rows_per_task)
    counts = count(config(write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=7)), "id")
    assert by_subset(counts.labels) == SUBSETS
    assert counts.attributes is not None and counts.attributes.num_rows == 22
    assert counts.bad_rows == Counter()


def test_rows_that_cannot_be_counted_are_counted_by_their_reason(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=2)
    table = pa.table(
        {
            "image": pa.array([b""] * 4),
            "label": [None, "  ", "circle", " circle "],
            "subset": ["even", "even", "", "even"],
            "id": list("wxyz"),
        }
    )
    pq.write_table(table, data / "bad-rows.parquet")
    (data / "broken.parquet").write_bytes(b"no Parquet file")
    counts = count(config(data), "id")
    assert by_subset(counts.labels)["even"] == {"circle": 7, "stripe": 6}
    assert counts.attributes is not None and counts.attributes.num_rows == 23
    broken = counts.bad_rows - Counter({"the label is missing": 2, "the subset is missing": 1})
    assert broken.total() == 1 and "cannot be read" in next(iter(broken))


def test_image_folders_are_counted_by_their_paths(tmp_path: Path) -> None:
    data = write_image_folder(tmp_path, subsets=SUBSETS)
    counts = count(DataConfig(uri=str(data), path="{subset}/{label}/{number}.png"), "number")
    assert by_subset(counts.labels) == SUBSETS
    assert counts.attributes is not None and set(counts.attributes.column_names) == {"subset", "attribute 0", "count"}


def test_data_without_a_label_says_why(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path, subsets={"even": {" ": 3}}, num_shards=1)
    with pytest.raises(DataError, match=r"a row with a label and a subset, got 3 bad rows.*the label is missing"):
        count(config(data))


def test_the_profile_of_labels_needs_no_image(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=2)
    settings = ProfileSettings(
        num_labels=0, measures=["feature_diversity"], split="train", min_images=0, seed=0, attributes=["id"]
    )
    plan = ProfilePlan(settings=settings, sample_per_subset=None, stall_timeout_s=60)
    profile, bad_rows = make_label_profile(config(data, image=None), plan)
    assert {found.subset: found.label_counts for found in profile.subsets} == SUBSETS
    assert profile.split == "all"
    assert [found.normalized_label_entropy for found in profile.subsets] == pytest.approx([1.0, 0.469], abs=1e-3)
    assert bad_rows == Counter()
