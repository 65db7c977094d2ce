import multiprocessing
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from orchestrator import storage
from orchestrator.errors import StorageError


def test_what_is_written_is_read_and_parents_are_made(tmp_path: Path) -> None:
    uri = storage.join(str(tmp_path), "deep", "below", "file.bin")
    storage.write_bytes(uri, b"content")
    assert storage.read_bytes(uri) == b"content"
    assert storage.exists(uri)


def test_writing_again_replaces_the_whole_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    storage.write_bytes(uri, b"a longer first content")
    storage.write_bytes(uri, b"short")
    assert storage.read_bytes(uri) == b"short"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "file")
    storage.write_bytes(uri, b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        storage.write_bytes(uri, b"new")
    assert storage.read_bytes(uri) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    contents = {bytes([letter]) * 200_000 for letter in b"ab"}
    storage.write_bytes(uri, min(contents))
    writer = multiprocessing.get_context("spawn").Process(target=write_in_turn, args=(uri, sorted(contents)))
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add(storage.read_bytes(uri))
    writer.join()
    assert writer.exitcode == 0
    assert seen <= contents


def write_in_turn(uri: str, contents: list[bytes]) -> None:
    for turn in range(100):
        storage.write_bytes(uri, contents[turn % len(contents)])


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "file"), b"")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        storage.read_bytes(str(tmp_path / "nowhere"))
    assert not storage.exists(str(tmp_path / "nowhere"))


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="writable"):
        storage.write_bytes(str(tmp_path / "file" / "below"), b"")


def test_a_local_uri_is_the_same_as_its_path(tmp_path: Path) -> None:
    storage.write_bytes(f"file://{tmp_path}/file", b"content")
    assert storage.read_bytes(str(tmp_path / "file")) == b"content"
    assert storage.is_local(f"file://{tmp_path}") and storage.is_local(str(tmp_path))
    assert not storage.is_local("s3://bucket/folder")


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    storage.write_bytes("~/file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_an_unknown_scheme_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gopher://"):
        storage.resolve("gopher://host/folder")


def test_listing_is_recursive_sorted_and_leaves_out_hidden_files(tmp_path: Path) -> None:
    for name in ("b.png", "a/2.png", "a/1.png", ".hidden", "_SUCCESS", ".git/config", "a/_temporary/3.png"):
        storage.write_bytes(storage.join(str(tmp_path), name), b"")
    listed = [entry.path.removeprefix(f"{tmp_path}/") for entry in storage.list_files(str(tmp_path))]
    assert listed == ["a/1.png", "a/2.png", "b.png"]


def test_a_root_below_a_hidden_directory_is_listed(tmp_path: Path) -> None:
    root = tmp_path / ".cache" / "data"
    storage.write_bytes(str(root / "file"), b"")
    assert [Path(entry.path).name for entry in storage.list_files(str(root))] == ["file"]


def test_listing_a_file_gives_the_file(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "_file"), b"12345")
    (entry,) = storage.list_files(str(tmp_path / "_file"))
    assert entry.size == 5


def test_listing_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="must exist"):
        storage.list_files(str(tmp_path / "nowhere"))


def test_deleting_removes_files_and_directories_and_forgives_absence(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "folder" / "file"), b"")
    storage.delete(str(tmp_path / "folder" / "file"))
    assert (tmp_path / "folder").exists()
    storage.delete(str(tmp_path / "folder"))
    storage.delete(str(tmp_path / "folder"))
    assert list(tmp_path.iterdir()) == []


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert storage.digest({"a": 1, "b": 2}, [3]) == storage.digest({"b": 2, "a": 1}, [3])
    assert storage.digest(1, 2) != storage.digest(2, 1)
    assert storage.digest([1, 2]) != storage.digest(1, 2)
    assert storage.digest(1) != storage.digest("1")
    assert len(storage.digest()) == 16


def test_a_digest_of_bytes_does_not_depend_on_the_chunks() -> None:
    assert storage.digest_bytes([b"ab", b"c"]) == storage.digest_bytes([memoryview(b"abc")])
    assert storage.digest_bytes([b"ab"]) != storage.digest_bytes([b"ba"])


def test_json_is_read_and_damage_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "good.json"), b'{"a": [1]}')
    storage.write_bytes(str(tmp_path / "torn.json"), b'{"a": [1')
    assert storage.read_json(str(tmp_path / "good.json")) == {"a": [1]}
    with pytest.raises(StorageError, match=r"torn\.json"):
        storage.read_json(str(tmp_path / "torn.json"))


def test_tables_in_parts_are_one_file_with_a_row_group_for_each(tmp_path: Path) -> None:
    uri = str(tmp_path / "folder" / "table.parquet")
    parts = [pa.table({"number": [start, start + 1]}) for start in (0, 2, 4)]
    storage.write_table_parts(uri, iter(parts))
    assert storage.read_table(uri).equals(pa.concat_tables(parts))
    assert parquet.ParquetFile(uri).num_row_groups == 3
    assert list(storage.read_table_parts(uri)) == parts
    assert storage.digest_file(uri) == storage.digest_bytes([storage.read_bytes(uri)])


def test_a_table_without_rows_is_read_as_one_part(tmp_path: Path) -> None:
    uri = str(tmp_path / "table.parquet")
    nothing = pa.table({"number": pa.array([], pa.int64())})
    storage.write_table_parts(uri, [nothing])
    assert list(storage.read_table_parts(uri)) == [nothing]
    assert next(iter(storage.read_table_parts(uri, without=["number"]))).num_columns == 0


def test_columns_that_are_not_wanted_are_not_read(tmp_path: Path) -> None:
    uri = str(tmp_path / "table.parquet")
    lists = pa.FixedSizeListArray.from_arrays(pa.array([0.5] * 4), 2)
    table = pa.table({"id": ["a", "b"], "probabilities": lists, "label": [0, 1]})
    storage.write_table_parts(uri, [table.slice(0, 1), table.slice(1)])
    found = pa.concat_tables(storage.read_table_parts(uri, without=["probabilities"]))
    assert found.equals(table.select(["id", "label"]))


def test_parts_that_fail_leave_the_file_as_it_was(tmp_path: Path) -> None:
    uri = str(tmp_path / "table.parquet")
    storage.write_table_parts(uri, [pa.table({"number": [1]})])

    def failing() -> Iterator[pa.Table]:
        yield pa.table({"number": [2]})
        raise KeyError("lost")

    with pytest.raises(KeyError):
        storage.write_table_parts(uri, failing())
    assert storage.read_table(uri).to_pylist() == [{"number": 1}]
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]
