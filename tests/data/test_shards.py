from __future__ import annotations

import json
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
from orchestrator.data.catalogue import assemble, data_fingerprint, examine
from orchestrator.data.identity import image_digest
from orchestrator.data.shards import (
    SHARD_SCHEMA,
    Shard,
    ShardFile,
    describe_shards,
    further_columns,
    make_shards,
    plan_shards,
    plan_tasks,
    quarantine_table,
    write_shard,
)
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.data.text_columns import read_columns, read_tasks
from orchestrator.errors import ConfigError, DataError

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


def write_all(config: DataConfig, folder: Path, rows_per_shard: int, columns: Sequence[str] = ()) -> list[ShardFile]:
    fragments = list_fragments(config)
    counts = [fragment.num_rows for fragment in fragments]
    written = []
    for task in plan_tasks(plan_shards(counts, rows_per_shard), counts):
        for shard, rows in zip(task, make_shards(task, dict(enumerate(fragments)), config, columns), strict=True):
            written.append(write_shard(str(folder), f"shard-{shard.number}.parquet", rows, config, columns))
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
    config = DataConfig(uri="/in")
    assert describe_shards("/out", ["label"], config) == {"uri": "/out", "image": "image", "id": "id", "label": "label"}
    assert describe_shards("/out", ["label", "subset", "split", "together"], config)["split"] == {
        "column": "split",
        "keep_together": "together",
    }


def test_the_section_of_an_experiment_keeps_what_is_true_of_shards_too() -> None:
    split = {"fractions": {"val": 0.1, "test": 0.2}, "keep_together": "sequence"}
    config = DataConfig.model_validate(
        {"uri": "/in", "tasks": ["foot"], "deduplicate": "near", "image_root": "/photos", "label": "x", "split": split}
    )
    section = describe_shards("/out", ["label", "together"], config)
    assert section["split"] == {"fractions": {"val": 0.1, "test": 0.2}, "keep_together": "together"}
    assert (section["tasks"], section["deduplicate"], section["label"]) == (["foot"], "near", "label")
    assert "image_root" not in section


def as_bytes(image: object) -> bytes:
    assert isinstance(image, bytes)
    return image


ATTRIBUTES = ("weather", "subset")


def write_tasks(format: str, directory: Path) -> DataConfig:
    """Write samples with two labels, an attribute and what is kept together; one has no second label."""
    rows = [
        {**row, "foot": {"cat": "soft", "dog": "hard"}[str(row["label"])], "weather": ("wet", "dry")[number % 2]}
        for number, row in enumerate(build_rows(subsets=SUBSETS))
    ]
    rows = [{**row, "scene": f"s{number // 3}"} for number, row in enumerate(rows)]
    split = {"keep_together": "scene", "fractions": {"val": 0.3, "test": 0.3}}
    directory.mkdir()
    if format == "images":
        for row in rows:
            folder = directory / "/".join(str(row[name]) for name in ("subset", "label", "foot", "weather", "scene"))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{str(row['id']).replace('/', '-')}.png").write_bytes(as_bytes(row["image"]))
        path = "{subset}/{label}/{foot}/{weather}/{scene}/{name}"
        return DataConfig(uri=str(directory), path=path, tasks=["foot"], split=split)
    rows[0]["foot"] = None
    named = {"label": "label", "tasks": ["foot"], "subset": "subset", "id": "id", "split": split}
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), directory / "x.parquet")
        return DataConfig(uri=str(directory), image="image", **named)
    for row in rows:
        (directory / f"{str(row['id']).replace('/', '-')}.png").write_bytes(as_bytes(row["image"]))
    lines = [json.dumps({**row, "image": f"{str(row['id']).replace('/', '-')}.png"}) for row in rows]
    (directory / "x.jsonl").write_text("\n".join(lines))
    return DataConfig(uri=str(directory / "x.jsonl"), image="image", **named)


@pytest.mark.parametrize("format", ["parquet", "jsonl", "images"])
def test_shards_hold_the_labels_of_every_task_and_the_attributes(format: str, tmp_path: Path) -> None:
    def read(config: DataConfig) -> tuple[str, list[dict[str, Any]]]:
        parts, attributes = [], []
        for fragment in list_fragments(config):
            rows = read_fragment(fragment, config, with_image=True)
            found = read_columns(fragment, config, ATTRIBUTES)
            attributes += found.append_column("bytes", rows.column("image")).to_pylist()
            parts.append(examine(rows, config, fragment.key, 8, "crop", 0, 0.0, read_tasks(fragment, config))[0])
        return data_fingerprint(assemble(parts)), sorted(attributes, key=lambda row: str(row["bytes"]))

    config = write_tasks(format, tmp_path / "data")
    columns = further_columns(config, ATTRIBUTES, list_fragments(config)[0].format)
    assert columns == ("foot", "weather")
    written = write_all(config, tmp_path / "out", 5, columns)
    fields = {field for made in written for field in made.fields}
    section = describe_shards(str(tmp_path / "out"), fields, config)
    # Identity, subset, labels of all tasks, split, content and what is kept together.
    assert read(DataConfig.model_validate(section)) == read(config)


def test_bad_rows_have_no_further_columns(tmp_path: Path) -> None:
    config = write_tasks("parquet", tmp_path / "data")
    (tmp_path / "data" / "y.parquet").write_bytes(b"no table")
    written = write_all(config, tmp_path / "out", 9, ("foot",))
    assert [len(made.quarantined) for made in written] == [0, 1]
    assert sum(made.num_rows for made in written) == 17


def test_a_further_column_must_not_take_the_name_of_another() -> None:
    config = DataConfig(uri="/in", image="image", label="species", tasks=["label"])
    with pytest.raises(ConfigError, match=r"must not be named like one of every shard.*, got label"):
        further_columns(config, [], "parquet")
    assert further_columns(DataConfig(uri="/in", subset="subset"), ["subset", "a", "a"], "csv") == ("a",)
