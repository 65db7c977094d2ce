from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import build_rows, write_image_folder, write_parquet_shards
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import DataConfig
from orchestrator.data import shards as shards_module
from orchestrator.data.identity import image_digest
from orchestrator.data.shards import (
    SHARD_SCHEMA,
    Shard,
    ShardFile,
    describe_shards,
    make_shards,
    plan_shards,
    plan_tasks,
    quarantine_table,
    write_shard,
)
from orchestrator.data.sources import list_fragments
from orchestrator.errors import DataError

MakeConfig = Callable[..., DataConfig]
SUBSETS = {"north": {"cat": 7, "dog": 4}, "south": {"cat": 6}}
LENGTHS = st.lists(st.integers(0, 40) | st.integers(100, 300), max_size=12)


def rows_of(shards: Sequence[Shard]) -> list[tuple[int, int]]:
    return [
        (piece.fragment, row) for shard in shards for piece in shard.pieces for row in range(piece.start, piece.stop)
    ]


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 50))
def test_every_row_is_in_exactly_one_shard_in_order(lengths: list[int], rows_per_shard: int) -> None:
    shards = plan_shards(lengths, rows_per_shard)
    assert rows_of(shards) == [(fragment, row) for fragment, count in enumerate(lengths) for row in range(count)]
    assert [shard.number for shard in shards] == list(range(len(shards)))


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 50))
def test_every_shard_but_the_last_is_full(lengths: list[int], rows_per_shard: int) -> None:
    sizes = [shard.num_rows for shard in plan_shards(lengths, rows_per_shard)]
    assert len(sizes) == -(-sum(lengths) // rows_per_shard)
    assert all(size == rows_per_shard for size in sizes[:-1])
    assert all(size > 0 for size in sizes)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 50))
def test_tasks_keep_every_shard_and_read_no_fragment_more_than_twice(lengths: list[int], rows_per_shard: int) -> None:
    shards = plan_shards(lengths, rows_per_shard)
    tasks = plan_tasks(shards, lengths)
    assert [shard for task in tasks for shard in task] == shards
    read = Counter(
        fragment for task in tasks for fragment in {piece.fragment for shard in task for piece in shard.pieces}
    )
    assert max(read.values(), default=0) <= 2


def test_short_fragments_make_a_task_of_every_shard_and_a_long_one_is_cut_up_by_one_task() -> None:
    many = plan_shards([100] * 20, 250)
    assert [len(task) for task in plan_tasks(many, [100] * 20)] == [1] * 8
    long = plan_shards([1000, 100], 100)
    assert [len(task) for task in plan_tasks(long, [1000, 100])] == [10, 1]


def write_all(config: DataConfig, folder: Path, rows_per_shard: int) -> list[ShardFile]:
    fragments = list_fragments(config)
    counts = [fragment.num_rows for fragment in fragments]
    written = []
    for task in plan_tasks(plan_shards(counts, rows_per_shard), counts):
        for shard, rows in zip(task, make_shards(task, dict(enumerate(fragments)), config), strict=True):
            written.append(write_shard(str(folder), f"shard-{shard.number}.parquet", rows, config))
    return written


def read_all(folder: Path, written: list[ShardFile]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.concat_tables([pq.read_table(folder / made.name) for made in written]).to_pylist()
    return rows


@pytest.mark.parametrize("rows_per_shard", [1, 4, 17, 100])
def test_shards_hold_every_sample_once_with_its_bytes(
    tmp_path: Path, parquet_config: MakeConfig, rows_per_shard: int
) -> None:
    config = parquet_config(write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=3))
    written = write_all(config, tmp_path / "out", rows_per_shard)
    assert [made.num_rows for made in written[:-1]] == [rows_per_shard] * (len(written) - 1)
    found = {row["id"]: row for row in read_all(tmp_path / "out", written)}
    assert len(found) == 17
    for row in build_rows(subsets=SUBSETS):
        assert found[str(row["id"])] == {**row, "split": None, "together": None}
    assert {field for made in written for field in made.fields} == {"label", "subset"}


def test_an_image_folder_brings_its_paths_as_identities_and_its_split(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "data", subsets=SUBSETS, template="training/{subset}/{label}/{name}")
    config = DataConfig(uri=str(tmp_path / "data"), path="{split}/{subset}/{label}/{name}")
    written = write_all(config, tmp_path / "out", 5)
    rows = read_all(tmp_path / "out", written)
    assert sorted(row["id"] for row in rows) == sorted(
        str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*.png")
    )
    assert all(row["image"] == (tmp_path / "data" / row["id"]).read_bytes() for row in rows)
    assert {row["split"] for row in rows} == {"training"}


def test_without_a_column_of_identities_a_row_is_what_its_bytes_are(tmp_path: Path, parquet_config: MakeConfig) -> None:
    config = parquet_config(write_parquet_shards(tmp_path / "data", subsets=SUBSETS), id=None)
    for row in read_all(tmp_path / "out", write_all(config, tmp_path / "out", 5)):
        assert row["id"] == image_digest(row["image"])


def test_rows_that_cannot_be_read_are_set_aside_with_their_reason(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path / "data", subsets={"north": {"cat": 3}}, num_shards=1)
    missing = {"image": [None, b""], "label": ["cat"] * 2, "subset": ["north"] * 2, "id": ["none", "empty"]}
    pq.write_table(
        pa.table(missing, schema=pq.read_schema(next((tmp_path / "data").glob("*")))), tmp_path / "data/x.parquet"
    )
    (tmp_path / "data" / "y.parquet").write_bytes(b"no table")
    written = write_all(parquet_config(tmp_path / "data"), tmp_path / "out", 2)
    assert len(read_all(tmp_path / "out", written)) == 3
    bad = quarantine_table(written).to_pylist()
    assert [(row["file"], row["row"], row["id"]) for row in bad] == [
        ("x.parquet", 0, "none"),
        ("x.parquet", 1, "empty"),
        ("y.parquet", 0, None),
    ]
    assert [row["reason"] for row in bad[:2]] == ["the image is missing"] * 2
    assert bad[2]["reason"].startswith("the file cannot be read")


def test_a_shard_of_bad_rows_alone_is_an_empty_table(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path / "data", subsets={"north": {"cat": 3}}, num_shards=1)
    (tmp_path / "data" / "a.parquet").write_bytes(b"no table")
    written = write_all(parquet_config(tmp_path / "data"), tmp_path / "out", 1)
    assert [made.num_rows for made in written] == [0, 1, 1, 1]
    assert pq.read_table(tmp_path / "out" / written[0].name).schema.equals(SHARD_SCHEMA)
    assert written[0].fields == []


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, parquet_config: MakeConfig) -> None:
    config = parquet_config(write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=3))
    first, second = (write_all(config, tmp_path / name, 4) for name in ("first", "second"))
    assert first == second
    for made in first:
        content = (tmp_path / "first" / made.name).read_bytes()
        assert content == (tmp_path / "second" / made.name).read_bytes()
        assert len(content) == made.num_bytes


def test_a_shard_has_row_groups_for_parallel_readers(
    tmp_path: Path, parquet_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "ROWS_PER_GROUP", 4)
    config = parquet_config(write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=3))
    [made] = write_all(config, tmp_path / "out", 100)
    metadata = pq.ParquetFile(tmp_path / "out" / made.name).metadata
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [4, 4, 4, 4, 1]


def test_a_fragment_that_lost_rows_since_it_was_listed_is_an_error(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets={"north": {"cat": 3}})
    config = DataConfig(uri=str(tmp_path))
    [fragment] = list_fragments(config)
    shards = plan_shards([4], 4)
    with pytest.raises(DataError, match="must keep the 4 rows"):
        list(make_shards(shards, {0: replace(fragment, num_rows=4)}, config))


def test_the_section_of_an_experiment_names_the_fields_that_rows_have() -> None:
    assert describe_shards("/out", ["label"]) == {"uri": "/out", "image": "image", "id": "id", "label": "label"}
    assert describe_shards("/out", ["label", "subset", "split", "together"])["split"] == {
        "column": "split",
        "keep_together": "together",
    }
