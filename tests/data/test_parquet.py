from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import write_parquet_shards
from pyarrow import parquet as pq

from orchestrator.config import DataConfig
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.errors import ConfigError, DataError

MakeConfig = Callable[..., DataConfig]

SUBSETS = {"north": {"cat": 3, "dog": 2}, "south": {"cat": 4}}
ALL = ("image", "label", "subset")


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def damage_column(path: Path, column: str) -> None:
    """Overwrite the stored pages of a column, so that reading it fails and reading others does not."""
    group = pq.read_metadata(path).row_group(0)
    chunk = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(bytes(content))


def test_every_row_group_is_a_fragment_that_counts_rows_from_the_start_of_its_file(
    tmp_path: Path, parquet_config: MakeConfig
) -> None:
    columns = {name: [f"{name}{i}" for i in range(7)] for name in ("label", "subset", "id")}
    write(tmp_path / "a.parquet", {"image": [b"x"] * 7, **columns}, row_group_size=3)
    fragments = list_fragments(parquet_config(tmp_path))
    assert [(f.row_group, f.first_row, f.num_rows) for f in fragments] == [(0, 0, 3), (1, 3, 3), (2, 6, 1)]
    second = read_fragment(fragments[1], parquet_config(tmp_path), with_image=False)
    assert second.column("row").to_pylist() == [3, 4, 5]
    assert second.column("id").to_pylist() == ["id3", "id4", "id5"]
    assert second.column("file").to_pylist() == ["a.parquet"] * 3


def test_an_empty_file_has_no_fragment(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path, subsets={"north": {"cat": 1}}, num_shards=3)
    assert [fragment.num_rows for fragment in list_fragments(parquet_config(tmp_path))] == [1]


def test_files_without_any_row_are_no_input(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path, subsets={"north": {"cat": 0}})
    with pytest.raises(DataError, match="must hold rows"):
        list_fragments(parquet_config(tmp_path))


def test_rows_are_read_in_the_order_asked_for(tmp_path: Path, parquet_config: MakeConfig) -> None:
    config = parquet_config(write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=1))
    (fragment,) = list_fragments(config)
    whole = read_fragment(fragment, config, with_image=True)
    some = read_fragment(fragment, config, with_image=True, rows=[5, 0, 5])
    assert some.to_pylist() == [whole.to_pylist()[index] for index in (5, 0, 5)]


def test_columns_that_are_not_needed_are_not_read(tmp_path: Path, parquet_config: MakeConfig) -> None:
    path = write(
        tmp_path / "a.parquet",
        {"image": [b"x" * 50] * 4, "label": list("abab"), "subset": ["s"] * 4, "id": list("wxyz"), "note": ["n"] * 4},
        compression="none",
    )  # fmt: skip
    damage_column(path, "image")
    damage_column(path, "note")
    config = parquet_config(tmp_path)
    (fragment,) = list_fragments(config)
    assert read_fragment(fragment, config, with_image=False).column("label").to_pylist() == list("abab")
    broken = read_fragment(fragment, config, with_image=True)
    assert broken.column("image").null_count == 4
    assert all(error.startswith("the file cannot be read") for error in broken.column("error").to_pylist())
    assert broken.column("row").to_pylist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([3, None, 5], pa.int64()), ["3", None, "5"]),
        (pa.array([3.0, float("nan"), 5.0]), ["3", None, "5"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
        (pa.array(["a", "b", None], pa.large_string()), ["a", "b", None]),
        (pa.nulls(3), [None, None, None]),
    ],
    ids=["int", "float", "bool", "dictionary", "large_string", "null"],
)
def test_labels_of_any_simple_type_become_text(
    tmp_path: Path, parquet_config: MakeConfig, values: pa.Array, texts: list[str | None]
) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"] * 3, "label": values, "subset": values, "id": list("abc")})
    config = parquet_config(tmp_path)
    (fragment,) = list_fragments(config)
    table = read_fragment(fragment, config, with_image=False)
    assert table.column("label").to_pylist() == texts
    assert table.schema.field("label").type == pa.string()


def test_images_may_be_structs_of_bytes_and_path(tmp_path: Path, parquet_config: MakeConfig) -> None:
    images = [{"bytes": b"one", "path": "1.png"}, {"bytes": None, "path": "2.png"}, None]
    text = {name: list("abc") for name in ("label", "subset", "id")}
    write(tmp_path / "a.parquet", {"image": images, **text})
    config = parquet_config(tmp_path)
    (fragment,) = list_fragments(config)
    assert read_fragment(fragment, config, with_image=True).column("image").to_pylist() == [b"one", None, None]


def test_one_column_may_serve_two_purposes(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=1)
    config = parquet_config(tmp_path, split={"keep_together": "subset"})
    (fragment,) = list_fragments(config)
    table = read_fragment(fragment, config, with_image=False)
    assert table.column("together").to_pylist() == table.column("subset").to_pylist()


def test_without_a_column_of_subsets_all_samples_are_one_subset(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=1)
    config = parquet_config(tmp_path, subset=None)
    (fragment,) = list_fragments(config, required=("image", "label"))
    assert set(read_fragment(fragment, config, with_image=False).column("subset").to_pylist()) == {"all"}


def test_a_file_that_is_not_parquet_is_one_bad_row(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=1)
    (tmp_path / "z.parquet").write_bytes(b"not parquet at all")
    config = parquet_config(tmp_path)
    good, bad = list_fragments(config, required=ALL)
    assert good.error is None
    (row,) = read_fragment(bad, config, with_image=True).to_pylist()
    assert row["file"] == "z.parquet"
    assert row["error"].startswith("the file cannot be read")
    assert row["image"] is None


def test_a_file_without_a_column_that_others_have_is_bad_as_a_whole(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=1)
    write(tmp_path / "z.parquet", {"image": [b"x", b"y"], "label": ["a", "b"], "subset": ["s", "s"]})
    config = parquet_config(tmp_path)
    bad = list_fragments(config)[-1]
    assert read_fragment(bad, config, with_image=True).column("error").to_pylist() == ["the file has no column id"] * 2


@pytest.mark.parametrize(
    "remaining",
    [
        {"label": ["a"] * 9},
        {"image": [b"x"], "label": ["a"], "subset": ["s"], "id": ["i"]},
        {"image": [1] * 9, "label": ["a"] * 9, "subset": ["s"] * 9, "id": ["i"] * 9},
    ],
)
def test_a_file_that_changed_since_the_listing_is_bad_rows(
    tmp_path: Path, parquet_config: MakeConfig, remaining: dict[str, Any]
) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=1)
    config = parquet_config(tmp_path)
    (fragment,) = list_fragments(config)
    write(tmp_path / fragment.files[0], remaining)
    table = read_fragment(fragment, config, with_image=True)
    assert table.num_rows == 9
    assert table.column("error").null_count == 0


@pytest.mark.parametrize("key", ["image", "label", "subset"])
def test_a_required_field_without_a_column_is_named_beside_the_columns_there_are(
    tmp_path: Path, parquet_config: MakeConfig, key: str
) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS)
    with pytest.raises(ConfigError, match=f"data.{key} must name .*They have id, image, label, subset"):
        list_fragments(parquet_config(tmp_path, **{key: None}), required=ALL)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"label": "lable"}, "data.label"),
        ({"id": "idd"}, "data.id"),
        ({"split": {"column": "split"}}, "data.split.column"),
        ({"split": {"keep_together": "patient"}}, "data.split.keep_together"),
    ],
)
def test_a_column_that_no_file_has_is_named_with_its_field(
    tmp_path: Path, parquet_config: MakeConfig, changes: dict[str, Any], key: str
) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS)
    with pytest.raises(ConfigError, match=f"{key} must name"):
        list_fragments(parquet_config(tmp_path, **changes))


def test_a_misspelt_column_gets_a_suggestion(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS)
    with pytest.raises(ConfigError, match=r"got lable\. Did you mean label\?"):
        list_fragments(parquet_config(tmp_path, label="lable"))


def test_a_column_of_the_wrong_type_is_refused(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write(tmp_path / "a.parquet", {"image": [1], "label": [["a"]], "subset": ["s"], "id": ["i"]})
    with pytest.raises(ConfigError, match="encoded images"):
        list_fragments(parquet_config(tmp_path))
    with pytest.raises(ConfigError, match=r"data\.label must name a column of texts"):
        list_fragments(parquet_config(tmp_path, image=None), required=())


def test_identity_without_opening_images_needs_a_column(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS)
    with pytest.raises(ConfigError, match=r"data\.id must name a column when data\.verify is none"):
        list_fragments(parquet_config(tmp_path, id=None, verify="none"))
