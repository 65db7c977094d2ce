"""Data as people have it: each oddity is read, or costs its own row with a reason; none is lost without a word."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders import NOT_AN_IMAGE, class_image, encode_image
from PIL import Image
from pyarrow import parquet as pq

from orchestrator.config import DataConfig
from orchestrator.data.catalogue import summarise
from orchestrator.data.fragments import describe_failure
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.data.text_columns import read_columns

MakeCatalogue = Callable[..., pa.Table]
PICTURE = class_image("cat", np.random.default_rng(0), 24)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def test_every_image_of_a_folder_is_used_or_named(tmp_path: Path, make_catalogue: MakeCatalogue) -> None:
    image, turned = Image.fromarray(PICTURE), Image.Exif()
    turned[0x112] = 6
    good = {
        "UPPER.JPG": saved(image, "JPEG"),
        "camera.jfif": saved(image, "JPEG"),
        "print.jpeg": saved(image.convert("CMYK"), "JPEG"),
        "turned.jpg": saved(image, "JPEG", exif=turned),
        "deep.png": encode_image(PICTURE[..., 0].astype(np.uint16) * 257),
        "moving.gif": saved(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "ünï 猫 #?%20.png": encode_image(PICTURE),
        "dot.png": encode_image(PICTURE[:1, :1]),
        "strip.png": encode_image(np.zeros((1, 20_000, 3), dtype=np.uint8)),
    }
    bad = {"phone.heic": NOT_AN_IMAGE, "empty.png": b"", "cut.jpg": good["UPPER.JPG"][:200]}
    (tmp_path / "north" / "cat").mkdir(parents=True)
    for name, content in {**good, **bad, "notes.txt": b"no image"}.items():
        (tmp_path / "north" / "cat" / name).write_bytes(content)
    table = make_catalogue(DataConfig(uri=str(tmp_path)))
    used = {Path(row["file"]).name for row in table.to_pylist() if row["ok"]}
    named = {Path(row["file"]).name: row["reason"] for row in table.to_pylist() if not row["ok"]}
    assert used == set(good)
    assert named == {
        "phone.heic": "the image is of no known format",
        "empty.png": "the image is missing",
        "cut.jpg": "the image is truncated",
    }


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,label\na.png,cat\n",
        "file;label\r\na.png;cat\r\n",
        "file\tlabel\na.png\tcat\n",
        '"file";"label"\na.png;cat',
    ],
)
def test_a_csv_may_come_from_a_spreadsheet(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_image(PICTURE))
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    config = DataConfig(uri=str(tmp_path / "t.csv"), image="file", label="label")
    [fragment] = list_fragments(config)
    rows = read_fragment(fragment, config, with_image=True)
    assert rows.select(["label", "error"]).to_pylist() == [{"label": "cat", "error": None}]


def test_texts_with_commas_stay_whole_where_the_header_has_commas(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_image(PICTURE))
    (tmp_path / "t.csv").write_text("file,label\na.png,cat; big\n")
    config = DataConfig(uri=str(tmp_path / "t.csv"), image="file", label="label")
    [fragment] = list_fragments(config)
    assert read_fragment(fragment, config, with_image=False).column("label").to_pylist() == ["cat; big"]


@pytest.mark.parametrize("kind", ["bytes", "texts", "dictionary"])
def test_a_text_that_is_not_utf8_costs_its_row_alone(kind: str, tmp_path: Path) -> None:
    labels = pa.array([b"cat", b"d\xffg", None, b"cow"], pa.binary())
    if kind != "bytes":
        # As other writers leave it: pyarrow trusts what a file says of itself.
        labels = pa.Array.from_buffers(pa.string(), 4, labels.buffers())
    column = labels.dictionary_encode() if kind == "dictionary" else labels
    pq.write_table(pa.table({"image": [encode_image(PICTURE)] * 4, "label": column}), tmp_path / "a.parquet")
    config = DataConfig(uri=str(tmp_path), image="image", label="label")
    [fragment] = list_fragments(config)
    rows = read_fragment(fragment, config, with_image=True)
    assert rows.column("label").to_pylist() == ["cat", None, None, "cow"]
    assert rows.column("error").null_count == 4
    assert read_columns(fragment, config, []).column("label").to_pylist() == ["cat", None, None, "cow"]


def test_nulls_and_empty_values_are_bad_rows_with_their_reasons(tmp_path: Path, make_catalogue: MakeCatalogue) -> None:
    image = encode_image(PICTURE)
    rows = {
        "image": [image, None, b"", image, image],
        "label": ["cat", "cat", "cat", None, " "],
        "subset": ["a"] * 5,
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"")
    summary = summarise(make_catalogue(DataConfig(uri=str(tmp_path), image="image", label="label", subset="subset")))
    assert summary["num_images"] == 1
    assert summary["quarantine_reasons"] == {
        "the file cannot be read: Parquet file size is 0 bytes": 1,
        "the image is missing": 2,
        "the label is missing": 2,
    }


def test_files_that_are_missing_have_one_reason(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("\n".join(f'{{"file": "{number}.png", "label": "x"}}' for number in range(3)))
    config = DataConfig(uri=str(tmp_path), image="file", label="label")
    [fragment] = list_fragments(config)
    errors = set(read_fragment(fragment, config, with_image=True).column("error").to_pylist())
    assert errors == {"the file cannot be read: No such file or directory"}
    refused = OSError("When reading information for key 'a' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject")
    assert describe_failure(refused) == "the file cannot be read: AWS Error ACCESS_DENIED during HeadObject"
