from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.config import DataConfig
from orchestrator.data import text_tables
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.errors import ConfigError, DataError

ALL = ("image", "label", "subset")


def table(path: Path, content: str | bytes, **changes: Any) -> DataConfig:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return DataConfig(uri=str(path), **{"image": "image", "label": "label", "subset": "subset", **changes})


def read(config: DataConfig, *, with_image: bool = False) -> list[dict[str, Any]]:
    fragments = list_fragments(config, required=ALL)
    rows: list[dict[str, Any]] = pa.concat_tables(
        [read_fragment(fragment, config, with_image=with_image) for fragment in fragments]
    ).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"b.png,dog", "the line has 2 fields, the header 3"),
        (b"b.png,dog,north,", "the line has 4 fields, the header 3"),
        (b'b.png,"dog,north', "the line is not CSV: unexpected end of data"),
        (b"b.png,d\xffg,north", "the line is not UTF-8"),
    ],
)
def test_a_bad_line_of_csv_is_one_bad_row(tmp_path: Path, line: bytes, reason: str) -> None:
    content = b"image,label,subset\na.png,cat,north\n" + line + b"\nc.png,cow,south\n"
    first, bad, last = read(table(tmp_path / "t.csv", content))
    assert (bad["row"], bad["error"], bad["label"], bad["id"]) == (1, reason, None, None)
    assert (first["error"], first["label"]) == (None, "cat")
    assert (last["row"], last["label"], last["subset"], last["id"]) == (2, "cow", "south", "c.png")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"image": "b.png", "label"', "the line is not JSON"),
        ("[" * 100_000, "the line is not JSON"),
        ('["b.png"]', "the line is no JSON object"),
        ('{"image": "b.png", "label": ["dog"], "subset": "s"}', "the field label holds a list or an object"),
        ('{"image": "b.png", "label": "\\ud800", "subset": "s"}', "the field label holds text that is no Unicode"),
    ],
)
def test_a_bad_line_of_json_is_one_bad_row(tmp_path: Path, line: str, reason: str) -> None:
    good = '{"image": "a.png", "label": "cat", "subset": "s"}'
    first, bad, last = read(table(tmp_path / "t.jsonl", f"{good}\n{line}\n{good}"))
    assert (bad["row"], bad["error"]) == (1, reason)
    assert first["error"] is None and last["row"] == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [("7", "7"), ("7.0", "7"), ("0.5", "0.5"), ("true", "true"), ("null", None), ("NaN", None), ('""', None),
     ('"007"', "007"), ('"2024-01-01"', "2024-01-01")],
)  # fmt: skip
def test_values_of_json_become_the_text_that_they_are(tmp_path: Path, value: str, text: str | None) -> None:
    (row,) = read(table(tmp_path / "t.jsonl", f'{{"image": "a", "label": {value}, "subset": 1}}'))
    assert (row["label"], row["subset"], row["error"]) == (text, "1", None)


def test_texts_of_csv_stay_as_they_are_written(tmp_path: Path) -> None:
    content = '\ufeffimage,label,subset\r\n"a, b.png",007,"say ""x"""\r\n\r\nc.png,2024-01-01,\r\n'
    first, second = read(table(tmp_path / "t.csv", content))
    assert (first["id"], first["label"], first["subset"]) == ("a, b.png", "007", 'say "x"')
    assert (second["row"], second["label"], second["subset"]) == (1, "2024-01-01", None)


def test_rows_are_cut_into_ranges_that_are_read_each_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_tables, "ROWS_PER_FRAGMENT", 3)
    lines = "".join(f"{number}.png,c{number},s\n\n" for number in range(8))
    config = table(tmp_path / "t.csv", f"image,label,subset\n{lines}")
    fragments = list_fragments(config)
    assert [(fragment.first_row, fragment.num_rows) for fragment in fragments] == [(0, 3), (3, 3), (6, 2)]
    assert [row["label"] for row in read(config)] == [f"c{number}" for number in range(8)]
    last = read_fragment(fragments[1], config, with_image=False, rows=[2])
    assert last.select(["row", "label"]).to_pylist() == [{"row": 5, "label": "c5"}]


def test_a_file_without_a_column_that_others_have_is_bad_as_a_whole(tmp_path: Path) -> None:
    table(tmp_path / "a.csv", "image,label,subset\na.png,cat,north\n")
    table(tmp_path / "b.csv", "image,label\nb.png,cat\nc.png,dog\n")
    table(tmp_path / "c.csv", "image,label,subset,label\nb.png,cat,north,x\n")
    table(tmp_path / "d.csv", b"\xff\xfe\nb.png\n")
    table(tmp_path / "e.csv", "")
    config = DataConfig(uri=str(tmp_path), image="image", label="label", subset="subset")
    assert [(row["file"], row["error"]) for row in read(config)] == [
        ("a.csv", None),
        ("b.csv", "the file has no column subset"),
        ("b.csv", "the file has no column subset"),
        ("c.csv", "the file has two columns label"),
        ("d.csv", "the file cannot be read: the line is not UTF-8"),
    ]


@pytest.mark.parametrize("content", ["image,label,subset\na,cat,n\n", '{"image": "a", "label": "cat", "subset": "n"}'])
def test_a_misspelt_column_is_named_beside_those_there_are(tmp_path: Path, content: str) -> None:
    config = table(tmp_path / ("t.csv" if content[0] == "i" else "t.jsonl"), content, label="lable")
    with pytest.raises(
        ConfigError, match=r"data\.label must name a column .*Did you mean label\?.*image, label, subset"
    ):
        list_fragments(config, required=ALL)


def test_a_table_without_rows_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the csv files must hold rows"):
        list_fragments(table(tmp_path / "t.csv", "image,label,subset\n"))


def test_a_table_that_changed_since_the_listing_is_bad_rows(tmp_path: Path) -> None:
    config = table(tmp_path / "t.csv", "image,label,subset\na.png,cat,n\nb.png,dog,n\n")
    (fragment,) = list_fragments(config)
    table(tmp_path / "t.csv", "image,label,subset\na.png,cat,n\n")
    changed = read_fragment(fragment, config, with_image=True)
    assert (
        changed.column("error").to_pylist() == ["the file cannot be read: the file has changed since it was listed"] * 2
    )
    (tmp_path / "t.csv").unlink()
    assert read_fragment(fragment, config, with_image=True, rows=[1]).column("row").to_pylist() == [1]


def test_without_images_only_the_table_is_opened(tmp_path: Path) -> None:
    config = table(tmp_path / "t.csv", "image,label,subset\nnowhere.png,cat,north\n", verify="none")
    (row,) = read(config)
    assert (row["id"], row["error"]) == ("nowhere.png", None)
    (row,) = read(config, with_image=True)
    assert row["error"].startswith("the file cannot be read")
