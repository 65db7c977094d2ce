"""An image folder is listed once by several tasks, and no file is lost between them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from builders import write_image_folder

from orchestrator.cluster.indexing import index_images
from orchestrator.data.templates import PathTemplate
from orchestrator.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("ray_cluster")

TEMPLATE = PathTemplate("{subset}/{label}/{name}")


def silent(line: str) -> None:
    pass


def test_every_file_is_in_the_index_or_beside_it(tmp_path: Path) -> None:
    # More folders than one task opens: the others have to take over what it leaves.
    folder = tmp_path / "photos"
    for number in range(150):
        place = folder / f"site-{number:03}" / "cat"
        place.mkdir(parents=True)
        (place / "0.jpg").write_bytes(b"x" * number)
    (folder / "readme.txt").write_text("notes")
    lines: list[str] = []
    made = index_images(str(folder), str(tmp_path / "index.parquet"), TEMPLATE, say=lines.append)
    assert (made.num_images, made.num_left_out) == (150, 1)
    assert made.reasons == {"the file has no suffix of an image": 1}
    rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
    assert [(row["path"], row["subset"], row["label"], row["size"]) for row in rows] == [
        (f"site-{number:03}/cat/0.jpg", f"site-{number:03}", "cat", number) for number in range(150)
    ]
    assert pq.read_table(made.left_out_uri).column("path").to_pylist() == ["readme.txt"]
    assert lines[-1].startswith("index: 151 files") and "1 bad" in lines[-1]


def test_a_folder_without_a_matching_image_is_an_error_that_shows_one(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "photos", subsets={"north": {"cat": 2}}, template="{label}.{subset}.{name}")
    with pytest.raises(DataError, match=r"2 other files in .*cat.north.0.png, the path does not match"):
        index_images(str(tmp_path / "photos"), str(tmp_path / "index.parquet"), TEMPLATE, say=silent)
    assert not (tmp_path / "index.parquet").exists()
    assert pq.read_table(tmp_path / "_index.left-out.parquet").num_rows == 2


def test_a_mistake_is_found_before_anything_is_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in .parquet"):
        index_images(str(tmp_path / "gone"), str(tmp_path / "index.csv"), TEMPLATE, say=silent)
    with pytest.raises(ConfigError, match="must not name"):
        index_images(str(tmp_path / "gone"), str(tmp_path / "i.parquet"), PathTemplate("{path}/{name}"), say=silent)
