from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import write_image_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import storage
from orchestrator.config import DataConfig
from orchestrator.data import image_index
from orchestrator.data.image_index import (
    IndexPart,
    check_index_uri,
    describe_index,
    index_folders,
    index_schema,
    left_out_uri,
    write_index,
    write_left_out,
)
from orchestrator.data.sources import list_fragments
from orchestrator.data.templates import PathTemplate
from orchestrator.errors import ConfigError, StorageError

TEMPLATE = PathTemplate("{subset}/{label}/{name}")
SUBSETS = {"north": {"cat": 3, "dog": 2}, "south": {"cat": 4}}


def open_all(
    uri: str, template: PathTemplate = TEMPLATE, *, most_files: int = 10_000, most_folders: int = 100
) -> IndexPart:
    parts, waiting = [], [""]
    while waiting:
        parts.append(index_folders(uri, waiting, template, most_files=most_files, most_folders=most_folders))
        waiting = list(parts[-1].unopened)
    return IndexPart(
        pa.concat_tables([part.images for part in parts]), pa.concat_tables([part.left_out for part in parts]), ()
    )


def test_an_image_has_its_path_its_fields_its_size_and_its_time(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets=SUBSETS)
    images = open_all(str(tmp_path)).images
    assert images.num_rows == 9
    assert images.column_names == ["path", "subset", "label", "size", "mtime_ns"]
    assert images.schema.field("path").type == pa.string()
    for row in images.to_pylist():
        found = (tmp_path / row["path"]).stat()
        assert row["path"].startswith(f"{row['subset']}/{row['label']}/")
        assert (row["size"], row["mtime_ns"]) == (found.st_size, found.st_mtime_ns)


def test_every_name_of_the_template_but_name_is_a_column() -> None:
    schema = index_schema(PathTemplate("{split}/{subset}/{label}/{camera}_{name}"))
    assert schema.names == ["path", "split", "subset", "label", "camera", "size", "mtime_ns"]
    with pytest.raises(ConfigError, match="must not name path, size, mtime_ns"):
        index_schema(PathTemplate("{size}/{label}/{name}"))


def test_other_files_are_left_out_with_the_reason_and_hidden_ones_passed_over(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets={"north": {"cat": 1}})
    (tmp_path / "north" / "stray.jpg").write_bytes(b"stray")
    (tmp_path / "north" / "cat" / "notes.txt").write_text("notes")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.jpg").write_bytes(b"")
    (tmp_path / "north" / "_thumbs").mkdir()
    (tmp_path / "north" / "_thumbs" / "a.jpg").write_bytes(b"")
    part = open_all(str(tmp_path))
    assert part.images.num_rows == 1
    assert {row["path"]: (row["size"], row["reason"]) for row in part.left_out.to_pylist()} == {
        "north/stray.jpg": (5, "the path does not match {subset}/{label}/{name}"),
        "north/cat/notes.txt": (5, "the file has no suffix of an image"),
    }


def test_a_folder_that_cannot_be_listed_is_left_out_but_the_root_is_an_error(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets={"north": {"cat": 1}})
    part = index_folders(str(tmp_path), ["gone", "north"], TEMPLATE, most_files=10, most_folders=10)
    assert part.images.num_rows == 1
    [row] = part.left_out.to_pylist()
    assert row["path"] == "gone" and row["reason"].startswith("the folder cannot be listed")
    with pytest.raises(StorageError):
        open_all(str(tmp_path / "gone"))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    folders=st.dictionaries(st.text("ab/", min_size=1, max_size=5), st.integers(0, 4), max_size=8),
    most_files=st.integers(1, 6),
    most_folders=st.integers(1, 3),
)
def test_however_the_folders_are_shared_out_every_file_is_found_once(
    tmp_path_factory: pytest.TempPathFactory, folders: dict[str, int], most_files: int, most_folders: int
) -> None:
    root = tmp_path_factory.mktemp("folder")
    for folder, count in folders.items():
        place = root / folder.strip("/")
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (place / f"{number}.jpg").write_bytes(b"")
    part = open_all(str(root), most_files=most_files, most_folders=most_folders)
    found = part.images.column("path").to_pylist() + part.left_out.column("path").to_pylist()
    assert sorted(found) == sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))


def test_an_index_is_ordered_by_path_like_a_listing_of_the_folder(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "photos", subsets={**SUBSETS, "north-east": {"é": 2}})
    images = open_all(str(tmp_path / "photos"), most_folders=1).images
    write_index(str(tmp_path / "index.parquet"), images.take(pa.array(range(images.num_rows))[::-1]))
    read = pq.read_table(tmp_path / "index.parquet")
    assert read.schema.field("path").type == pa.string()
    listed = [file for fragment in list_fragments(DataConfig(uri=str(tmp_path / "photos"))) for file in fragment.files]
    assert read.column("path").to_pylist() == listed


def test_row_groups_are_as_long_as_fragments_and_never_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pa.table({"path": [f"{number:04}" for number in range(1000)]})
    monkeypatch.setattr(image_index, "FILES_PER_FRAGMENT", 100)
    for most, groups in ((10_000, 10), (4, 4)):
        monkeypatch.setattr(image_index, "MOST_ROW_GROUPS", most)
        write_index(str(tmp_path / "index.parquet"), images)
        assert pq.ParquetFile(tmp_path / "index.parquet").num_row_groups == groups
        assert pq.read_table(tmp_path / "index.parquet").equals(images)


def test_what_is_left_out_stands_beside_the_index_hidden_from_a_listing(tmp_path: Path) -> None:
    uri = str(tmp_path / "index.parquet")
    left_out = pa.table({"path": ["b", "a"], "size": [1, 2], "reason": ["x", "y"]})
    write_left_out(uri, left_out)
    assert pq.read_table(left_out_uri(uri)).column("path").to_pylist() == ["a", "b"]
    assert storage.list_files(str(tmp_path)) == []
    write_left_out(uri, left_out.slice(0, 0))
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_named_for_parquet() -> None:
    check_index_uri("s3://bucket/index.parquet")
    with pytest.raises(ConfigError, match=r"must end in .parquet, got photos.csv"):
        check_index_uri("photos.csv")


def test_the_section_of_an_experiment_names_what_the_template_does() -> None:
    template = PathTemplate("{split}/{label}/{name}")
    assert describe_index("/data/index.parquet", "/data/photos", template) == {
        "uri": "/data/index.parquet",
        "image": "path",
        "image_root": "/data/photos",
        "id": "path",
        "label": "label",
        "split": {"column": "split"},
    }


def test_a_folder_on_an_object_store_is_indexed_like_one_on_a_disk(tmp_path: Path, s3_bucket: str) -> None:
    write_image_folder(tmp_path / "photos", subsets=SUBSETS)
    (tmp_path / "photos" / "readme.txt").write_text("notes")
    for path in (tmp_path / "photos").rglob("*.*"):
        storage.write_bytes(f"{s3_bucket}/photos/{path.relative_to(tmp_path / 'photos')}", path.read_bytes())
    local, remote = open_all(str(tmp_path / "photos")), open_all(f"{s3_bucket}/photos", most_folders=2)
    kept = ["path", "subset", "label", "size"]
    assert remote.images.select(kept).sort_by("path").equals(local.images.select(kept).sort_by("path"))
    assert remote.left_out.equals(local.left_out)
    write_index(f"{s3_bucket}/index.parquet", remote.images)
    assert storage.read_table(f"{s3_bucket}/index.parquet").num_rows == 9
