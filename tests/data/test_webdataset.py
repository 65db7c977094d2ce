from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from format_examples import write_tar

from orchestrator.config import DataConfig
from orchestrator.data import webdataset
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.errors import ConfigError

ALL = ("image", "label", "subset")


def sample(key: str, image: bytes = b"pixels", **fields: object) -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", image), (f"{key}.json", json.dumps({"label": "cat", "subset": "n", **fields}).encode())]


def config(directory: Path, **changes: Any) -> DataConfig:
    return DataConfig(uri=str(directory), **{"label": "label", "subset": "subset", "id": "__key__", **changes})


def read(data: DataConfig, *, with_image: bool = True) -> list[dict[str, Any]]:
    fragments = list_fragments(data, required=ALL)
    tables = [read_fragment(fragment, data, with_image=with_image) for fragment in fragments]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def test_labels_come_from_entries_or_from_fields_of_the_json(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [*sample("deep/0", label=3, patient="p"), ("deep/0.cls", b" 7 \n")])
    (by_field,) = read(config(tmp_path, split={"keep_together": "patient"}))
    (by_entry,) = read(config(tmp_path, label="cls", id=None))
    assert (by_field["label"], by_field["id"], by_field["together"]) == ("3", "deep/0", "p")
    assert (by_field["image"], by_field["file"], by_field["row"]) == (b"pixels", "a.tar", 0)
    assert (by_entry["label"], by_entry["id"]) == ("7", None)


def test_samples_of_entries_that_do_not_stand_together_are_bad_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "SAMPLES_PER_FRAGMENT", 2)
    (first, late), second, third = sample("a"), sample("b"), sample("c")
    write_tar(tmp_path / "a.tar", [first, *second, *third, late])
    write_tar(tmp_path / "b.tar", sample("a"))
    rows = read(config(tmp_path))
    unordered = "the entries of a do not stand together in the tar"
    assert [(row["file"], row["row"], row["error"]) for row in rows] == [
        ("a.tar", 0, unordered), ("a.tar", 1, None), ("a.tar", 2, None), ("a.tar", 3, unordered), ("b.tar", 0, None),
    ]  # fmt: skip
    last = list_fragments(config(tmp_path))[1]
    assert read_fragment(last, config(tmp_path), with_image=True, rows=[1]).column("error").to_pylist() == [unordered]


def test_the_rest_of_a_tar_that_is_cut_off_is_one_bad_row(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [entry for key in "abcde" for entry in sample(key, b"x" * 5000)])
    path.write_bytes(path.read_bytes()[:18_000])
    rows = read(config(tmp_path))
    assert [(row["row"], row["id"]) for row in rows] == [(0, "a"), (1, "b"), (2, None)]
    assert rows[1]["image"] == b"x" * 5000
    assert rows[2]["error"].startswith("the file cannot be read: the entry c.jpg ends beyond")


def test_a_file_that_is_no_tar_is_one_bad_row(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", sample("a"))
    (tmp_path / "b.tar").write_bytes(b"not a tar" * 1000)
    good, bad = read(config(tmp_path))
    assert good["error"] is None
    assert (bad["file"], bad["row"]) == ("b.tar", 0) and bad["error"].startswith("the file cannot be read")


def test_a_refused_sample_is_a_bad_row_among_good_ones(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [*sample("a"), ("../b.jpg", b"x"), *sample("c")])
    assert [row["error"] for row in read(config(tmp_path))] == [None, "the entry ../b.jpg leaves the archive", None]


def test_one_of_several_images_must_be_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [*sample("a"), ("a.seg.png", b"mask")])
    (row,) = read(config(tmp_path))
    assert row["error"] == "the sample has several images, name one in data.image: jpg, seg.png"
    (row,) = read(config(tmp_path, image="seg.png"))
    assert (row["error"], row["image"]) == (None, b"mask")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{", "the entry json is not JSON"), (b"[1]", "the entry json is no JSON object"),
     (b"\xff", "the entry json is not UTF-8"), (b'{"label": [1]}', "the field label holds a list or an object")],
)  # fmt: skip
def test_a_json_entry_that_cannot_be_read_is_a_bad_row(tmp_path: Path, content: bytes, reason: str) -> None:
    write_tar(tmp_path / "a.tar", [*sample("a"), ("b.jpg", b"x"), ("b.json", content)])
    assert [row["error"] for row in read(config(tmp_path))] == [None, reason]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"label": "lable"},
            r"data\.label must name an entry .*Did you mean label\?.*__key__, jpg, json, label, subset",
        ),
        ({"subset": None}, r"data\.subset must name an entry"),
        ({"image": "png"}, r"data\.image must name an entry"),
        ({"id": None, "verify": "none"}, r"data\.id must name .*__key__"),
    ],
)
def test_a_name_that_no_sample_has_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_tar(tmp_path / "a.tar", sample("a"))
    with pytest.raises(ConfigError, match=message):
        list_fragments(config(tmp_path, **changes), required=ALL)


def test_the_path_of_a_tar_may_name_the_subset(tmp_path: Path) -> None:
    write_tar(tmp_path / "north" / "000.tar", sample("a"))
    write_tar(tmp_path / "south" / "000.tar", sample("a"))
    write_tar(tmp_path / "stray.tar", sample("a"))
    rows = read(config(tmp_path, path="{subset}/{name}", subset=None))
    assert [row["subset"] for row in rows[:2]] == ["north", "south"]
    assert rows[2]["error"] == "the path does not match {subset}/{name}"


def test_prediction_needs_nothing_but_the_image(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("a.jpg", b"one"), ("b.png", b"two")])
    data = DataConfig(uri=str(tmp_path), image="image", path="{name}")
    (fragment,) = list_fragments(data)
    assert read_fragment(fragment, data, with_image=True).column("image").to_pylist() == [b"one", b"two"]


def test_a_fragment_ends_at_the_samples_or_bytes_that_it_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", [entry for key in "abcde" for entry in sample(key, b"x" * 5000)])
    monkeypatch.setattr(webdataset, "SAMPLES_PER_FRAGMENT", 2)
    assert [fragment.num_rows for fragment in list_fragments(config(tmp_path))] == [2, 2, 1]
    monkeypatch.setattr(webdataset, "BYTES_PER_FRAGMENT", 1000)
    assert [fragment.num_rows for fragment in list_fragments(config(tmp_path))] == [1] * 5
    assert [row["id"] for row in read(config(tmp_path))] == list("abcde")


class CountingFiles:
    """Open files that count the bytes that are read of them."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def open_input_file(self, path: str) -> io.FileIO:
        files = self

        class Counting(io.FileIO):
            def readinto(self, buffer: Any, /) -> int:
                count = super().readinto(buffer) or 0
                files.num_bytes += count
                return count

            def read(self, size: int | None = -1, /) -> bytes:
                content = super().read(size) or b""
                files.num_bytes += len(content)
                return content

            def read_at(self, size: int, offset: int) -> bytes:
                self.seek(offset)
                return self.read(size)

        return Counting(path)


def test_of_the_images_only_those_that_are_asked_for_are_read(tmp_path: Path) -> None:
    image = b"x" * 1_000_000
    write_tar(tmp_path / "a.tar", [entry for key in "abcdefgh" for entry in sample(key, image)])
    data = config(tmp_path)
    (fragment,) = list_fragments(data)
    read_bytes = []
    for with_image, rows in ((False, None), (True, [5]), (True, None)):
        files = CountingFiles()
        table = webdataset.read_samples(fragment, data, files, str(tmp_path), with_image=with_image, rows=rows)
        assert table.column("error").null_count == table.num_rows
        read_bytes.append(files.num_bytes)
    none, one, all_of_them = read_bytes
    assert none < 0.2 * 8 * len(image)
    assert abs(one - none - len(image)) < 1000
    assert 8 * len(image) < all_of_them < 8.1 * len(image)
