from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders import NOT_AN_IMAGE, build_rows, encode_image, write_image_folder, write_parquet_shards
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet as pq

from orchestrator.config import DataConfig
from orchestrator.data.catalogue import CATALOGUE_SCHEMA, SampleTable, assemble, data_fingerprint, examine, summarise
from orchestrator.data.fragments import make_rows
from orchestrator.data.identity import image_digest, pixel_digest, stable_fraction
from orchestrator.errors import DataError

MakeConfig = Callable[..., DataConfig]
MakeCatalogue = Callable[..., pa.Table]

SUBSETS = {"north": {"cat": 20, "dog": 10}, "south": {"cat": 15, "cow": 5, "dog": 5}}
PLACES = ["file", "row", "fragment", "pixel_row"]
CONFIG = DataConfig(uri="unused", image="image", label="label", subset="subset", id="id")
IMAGE = encode_image(np.zeros((4, 4, 3), dtype=np.uint8))


def read_table(*, image: bytes | None = IMAGE, **fields: str | None) -> pa.Table:
    """Make the table of a fragment of one row."""
    texts: dict[str, str | None] = {"label": "cat", "subset": "north", "id": "a", **fields}
    error = texts.pop("error", None)
    columns: Any = {field: pa.array([text], pa.string()) for field, text in texts.items()}
    return make_rows(["f.parquet"], [7], columns, errors=[error], image=pa.array([image], pa.binary()))


def examine_row(config: DataConfig = CONFIG, *, cache_fraction: float = 1.0, **fields: Any) -> dict[str, Any]:
    table, _ = examine(read_table(**fields), config, 3, 8, "crop", 0, cache_fraction)
    row: dict[str, Any] = table.to_pylist()[0]
    return row


def with_split(**split: Any) -> DataConfig:
    return DataConfig(uri="unused", image="image", label="label", subset="subset", id="id", split=split)


def split_of(table: pa.Table) -> dict[str, str]:
    return dict(zip(table.column("id").to_pylist(), table.column("split").to_pylist(), strict=True))


def write_shards(directory: Path, rows: list[dict[str, object]], names: list[str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        shard = rows[number :: len(names)]
        if shard:
            pq.write_table(pa.Table.from_pylist(shard), directory / f"{name}.parquet")
    return directory


# One row.


def test_a_usable_row_says_where_its_pixels_are() -> None:
    row = examine_row(label="  cat ", subset="north\n")
    assert row == {
        "id": "a", "subset": "north", "label": "cat", "split": row["split"], "split_given": False,
        "file": "f.parquet", "row": 7, "ok": True, "reason": "", "copy_of": "",
        "content": image_digest(IMAGE), "pixels": pixel_digest(np.zeros((4, 4, 3), dtype=np.uint8)), "perceptual": "",
        "together": "", "fragment": 3, "pixel_row": 0, "tasks": [],
    }  # fmt: skip
    assert row["split"] in ("train", "val", "test")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"label": None}, "the label is missing"),
        ({"label": "  "}, "the label is missing"),
        ({"subset": None}, "the subset is missing"),
        ({"subset": ""}, "the subset is missing"),
        ({"id": None}, "the id is missing"),
        ({"image": None}, "the image is missing"),
        ({"image": b""}, "the image is missing"),
        ({"image": NOT_AN_IMAGE}, "the image is of no known format"),
        ({"image": encode_image(np.zeros((64, 64, 3), dtype=np.uint8), "JPEG")[:-20]}, "the image is truncated"),
        ({"error": "the file cannot be read: gone", "label": None}, "the file cannot be read: gone"),
    ],
)
def test_an_unusable_row_keeps_its_place_and_says_why(fields: dict[str, Any], reason: str) -> None:
    row = examine_row(**fields)
    assert not row["ok"]
    assert row["reason"] == reason
    assert (row["file"], row["row"], row["fragment"]) == ("f.parquet", 7, 3)
    assert (row["split"], row["pixel_row"]) == ("", -1)


@pytest.mark.parametrize(("needs_label", "reason"), [(True, "the label is missing"), (False, "")])
def test_a_row_without_a_label_is_usable_where_none_is_needed(needs_label: bool, reason: str) -> None:
    table, pixels = examine(read_table(label=None), CONFIG, 3, 8, "crop", 0, 1.0, needs_label=needs_label)
    (row,) = table.to_pylist()
    assert (row["ok"], row["reason"], row["label"]) == (not needs_label, reason, "")
    assert len(pixels) == int(not needs_label)
    assert summarise(table)["labels"] == []


def test_without_a_column_of_identities_a_row_is_what_its_bytes_are() -> None:
    config = CONFIG.model_copy(update={"id": None})
    assert examine_row(config, id=None)["id"] == image_digest(IMAGE)


def test_a_split_column_decides_and_is_quarantined_where_it_is_not_understood() -> None:
    config = with_split(column="fold")
    assert examine_row(config, split="Validation")["split"] == "val"
    assert examine_row(config, split="holdout")["reason"] == "the split 'holdout' is not train, val or test"
    assert examine_row(config, split=None)["reason"] == "the split is missing"


def test_without_verification_no_image_is_looked_at() -> None:
    config = CONFIG.model_copy(update={"verify": "none"})
    table, pixels = examine(read_table().drop_columns(["image"]), config, 0, 8, "crop", 0, 1.0)
    (row,) = table.to_pylist()
    assert (row["ok"], row["content"], row["pixel_row"]) == (True, "", -1)
    assert len(pixels) == 0


def test_the_columns_of_every_catalogue_are_the_same() -> None:
    for fields in ({}, {"label": None}):
        table, _ = examine(read_table(**fields), CONFIG, 0, 8, "crop", 0, 1.0)
        assert table.schema == CATALOGUE_SCHEMA


# Whole catalogues.


def test_bad_rows_and_files_are_quarantined_and_the_rest_is_complete(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS, bad_rows=3)
    (tmp_path / "zz.parquet").write_bytes(b"not parquet")
    table = make_catalogue(parquet_config(tmp_path))
    summary = summarise(table)
    assert (summary["num_images"], summary["num_quarantined"], summary["num_cached"]) == (55, 4, 55)
    assert summary["labels"] == ["cat", "cow", "dog"]
    reasons = summary["quarantine_reasons"]
    assert reasons.pop("the image is of no known format") == 3
    assert list(reasons.values()) == [1]
    north, south = summary["subsets"]
    assert (north.subset, north.train + north.val + north.test, north.quarantined) == ("north", 30, 3)
    assert (south.subset, south.train + south.val + south.test, south.quarantined) == ("south", 25, 0)


def test_counts_by_split_are_those_of_the_table(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    table = make_catalogue(parquet_config(write_parquet_shards(tmp_path, subsets=SUBSETS)))
    samples = SampleTable(table)
    for count in summarise(table)["subsets"]:
        for split in ("train", "val", "test"):
            assert getattr(count, split) == len(samples.where(subsets=[count.subset], split=split))


def test_the_catalogue_is_the_same_however_the_samples_are_sharded(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    tables = [
        make_catalogue(
            parquet_config(write_parquet_shards(tmp_path / str(shards), subsets=SUBSETS, num_shards=shards, bad_rows=2))
        )
        for shards in (1, 2, 7)
    ]
    first = tables[0].drop_columns(PLACES)
    for table in tables[1:]:
        assert table.drop_columns(PLACES).equals(first)
        assert data_fingerprint(table) == data_fingerprint(tables[0])


def test_parts_may_arrive_in_any_order(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    table = make_catalogue(parquet_config(write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=3)))
    parts = [table.filter(pa.compute.equal(table.column("fragment"), key)) for key in (2, 0, 1)]
    assert assemble(parts).equals(table)


def test_no_part_at_all_makes_an_empty_catalogue() -> None:
    assert assemble([]).schema == CATALOGUE_SCHEMA
    assert summarise(assemble([]))["num_images"] == 0


@pytest.mark.parametrize("column", ["id", "subset", "label", "split", "content", "together"])
def test_the_fingerprint_changes_with_what_a_sample_is(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue, column: str
) -> None:
    table = make_catalogue(parquet_config(write_parquet_shards(tmp_path, subsets={"north": {"cat": 3}})))
    values = table.column(column).to_pylist()
    index = table.schema.get_field_index(column)
    changed = table.set_column(index, column, pa.array(["other", *values[1:]]))
    assert data_fingerprint(changed) != data_fingerprint(table)


def test_bad_rows_are_no_part_of_the_fingerprint(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    fingerprints = {
        data_fingerprint(
            make_catalogue(parquet_config(write_parquet_shards(tmp_path / str(bad), subsets=SUBSETS, bad_rows=bad)))
        )
        for bad in (0, 3)
    }
    assert len(fingerprints) == 1


def test_the_fingerprint_keeps_neighbouring_texts_apart() -> None:
    def fingerprint(ids: list[str]) -> str:
        rows = [dict.fromkeys(CATALOGUE_SCHEMA.names, "") | {"id": identity, "ok": True} for identity in ids]
        for row in rows:
            row.update(row=0, fragment=0, pixel_row=0, split_given=False)
        return data_fingerprint(pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))

    assert fingerprint(["a", "bc"]) != fingerprint(["ab", "c"])


def test_the_cache_holds_every_usable_image_at_the_working_size(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=3, image_px=16, bad_rows=2)
    table = make_catalogue(parquet_config(data), tmp_path / "pixels", image_size=16)
    originals = {row["id"]: row["image"] for row in build_rows(subsets=SUBSETS, image_px=16)}
    for row in table.to_pylist():
        if row["ok"]:
            cached = np.load(tmp_path / "pixels" / f"{row['fragment']}.npy")[row["pixel_row"]]
            content = originals[row["id"]]
            assert isinstance(content, bytes)
            np.testing.assert_array_equal(cached, np.asarray(Image.open(io.BytesIO(content))))


def test_a_cache_of_a_part_of_the_data_holds_the_samples_of_lowest_hash(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    config = parquet_config(write_parquet_shards(tmp_path / "data", subsets=SUBSETS))
    table = make_catalogue(config, tmp_path / "pixels", cache_fraction=0.4, seed=5)
    for row in table.to_pylist():
        assert (row["pixel_row"] >= 0) == (stable_fraction(row["id"], 5) < 0.4)
    cached = sum(len(np.load(path)) for path in (tmp_path / "pixels").iterdir())
    assert 0 < cached == summarise(table)["num_cached"] < 55


def test_an_image_folder_has_paths_as_identities_and_bad_files_in_quarantine(
    tmp_path: Path, make_catalogue: MakeCatalogue
) -> None:
    write_image_folder(tmp_path, subsets=SUBSETS, format="JPEG")
    (tmp_path / "north/cat/broken.jpg").write_bytes(NOT_AN_IMAGE)
    (tmp_path / "stray.jpg").write_bytes(NOT_AN_IMAGE)
    table = make_catalogue(DataConfig(uri=str(tmp_path)))
    assert table.column("id").to_pylist() == table.column("file").to_pylist()
    bad = {row["file"]: row["reason"] for row in table.to_pylist() if not row["ok"]}
    assert bad == {
        "north/cat/broken.jpg": "the image is of no known format",
        "stray.jpg": "the path does not match {subset}/{label}/{name}",
    }


def test_a_split_in_the_path_is_used(tmp_path: Path, make_catalogue: MakeCatalogue) -> None:
    for split in ("train", "valid", "testing"):
        write_image_folder(tmp_path / split, subsets={"north": {"cat": 2}})
    table = make_catalogue(DataConfig(uri=str(tmp_path), path="{split}/{subset}/{label}/{name}"))
    assert sorted(table.column("split").to_pylist()) == ["test", "test", "train", "train", "val", "val"]


# Splits of whole data sets.

SHARD_NAMES = st.lists(st.text(alphabet="abcxyz019", min_size=1, max_size=5), min_size=1, max_size=6, unique=True)
FAST = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NO_IMAGES: dict[str, Any] = {"verify": "none"}


@given(names=SHARD_NAMES, seed=st.integers(0, 2**32 - 1))
@FAST
def test_splits_are_complete_and_survive_renamed_reordered_and_recut_shards(
    tmp_path_factory: pytest.TempPathFactory,
    parquet_config: MakeConfig,
    make_catalogue: MakeCatalogue,
    names: list[str],
    seed: int,
) -> None:
    rows: list[dict[str, object]] = [
        {"image": b"", "label": "cat", "subset": "north", "id": f"sample-{number}"} for number in range(60)
    ]
    one = write_shards(tmp_path_factory.mktemp("one"), rows, ["only"])
    shuffled = random.Random(seed).sample(rows, len(rows))
    many = write_shards(tmp_path_factory.mktemp("many"), shuffled, names)
    splits = split_of(make_catalogue(parquet_config(one, **NO_IMAGES), seed=seed))
    assert split_of(make_catalogue(parquet_config(many, **NO_IMAGES), seed=seed)) == splits
    assert splits.keys() == {row["id"] for row in rows}
    assert set(splits.values()) <= {"train", "val", "test"}


@given(number_added=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
@FAST
def test_added_samples_do_not_move_others_to_another_split(
    tmp_path_factory: pytest.TempPathFactory,
    parquet_config: MakeConfig,
    make_catalogue: MakeCatalogue,
    number_added: int,
    seed: int,
) -> None:
    rows: list[dict[str, object]] = [
        {"image": b"", "label": "cat", "subset": "north", "id": f"sample-{number}"}
        for number in range(40 + number_added)
    ]
    few = write_shards(tmp_path_factory.mktemp("few"), rows[:40], ["a"])
    more = write_shards(tmp_path_factory.mktemp("more"), rows[::-1], ["a", "b"])
    before = split_of(make_catalogue(parquet_config(few, **NO_IMAGES), seed=seed))
    after = split_of(make_catalogue(parquet_config(more, **NO_IMAGES), seed=seed))
    assert {key: after[key] for key in before} == before


@given(patients=st.lists(st.sampled_from(["p1", "p2", "p3", None]), min_size=1, max_size=30), seed=st.integers(0, 99))
@FAST
def test_samples_that_belong_together_never_straddle_splits(
    tmp_path_factory: pytest.TempPathFactory,
    parquet_config: MakeConfig,
    make_catalogue: MakeCatalogue,
    patients: list[str | None],
    seed: int,
) -> None:
    rows: list[dict[str, object]] = [
        {"image": b"", "label": "cat", "subset": "north", "id": f"sample-{number}", "patient": patient}
        for number, patient in enumerate(patients)
    ]
    schema = pa.schema([(name, pa.string()) for name in ("label", "subset", "id", "patient")])
    directory = tmp_path_factory.mktemp("together")
    table = pa.Table.from_pylist(rows, schema=schema).append_column("image", pa.array([b""] * len(rows)))
    pq.write_table(table, directory / "a.parquet")
    kept = parquet_config(directory, split={"keep_together": "patient"}, **NO_IMAGES)
    splits = split_of(make_catalogue(kept, seed=seed))
    alone = split_of(make_catalogue(parquet_config(directory, **NO_IMAGES), seed=seed))
    for patient in ("p1", "p2", "p3"):
        assert len({splits[str(row["id"])] for row in rows if row["patient"] == patient}) <= 1
    for row in rows:
        if row["patient"] is None:
            assert splits[str(row["id"])] == alone[str(row["id"])]


def test_the_same_image_twice_is_never_in_two_splits(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    rows = build_rows(subsets={"north": {"cat": 30}}, image_px=8)
    write_shards(tmp_path, [*rows, *rows], ["a", "b", "c"])
    table = make_catalogue(parquet_config(tmp_path, id=None))
    pairs = set(zip(table.column("id").to_pylist(), table.column("split").to_pylist(), strict=True))
    assert table.num_rows == 60
    assert len(pairs) == 30


# Questions to the table.


def test_where_gives_usable_rows_of_the_subsets_and_split_in_table_order(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    table = make_catalogue(parquet_config(write_parquet_shards(tmp_path, subsets=SUBSETS, bad_rows=2)))
    rows = table.to_pylist()
    expected = [i for i, row in enumerate(rows) if row["ok"] and row["subset"] == "south" and row["split"] == "train"]
    positions = SampleTable(table).where(subsets=["south", "unknown"], split="train")
    assert positions.dtype == np.int64
    assert positions.tolist() == expected
    assert len(SampleTable(table).where()) == 55
    assert len(SampleTable(table).where(subsets=[])) == 0


def test_labels_become_places_in_the_list_of_classes(
    tmp_path: Path, parquet_config: MakeConfig, make_catalogue: MakeCatalogue
) -> None:
    table = make_catalogue(parquet_config(write_parquet_shards(tmp_path, subsets=SUBSETS)))
    samples, classes = SampleTable(table), ("dog", "cow", "cat")
    positions = samples.where()[::-1]
    indices = samples.class_indices(positions, classes)
    assert indices.dtype == np.int64
    labels = table.column("label").to_pylist()
    assert [classes[index] for index in indices] == [labels[position] for position in positions]
    with pytest.raises(DataError, match="cow"):
        samples.class_indices(positions, ("dog", "cat"))
