"""Links to files are read, links to folders are not; what is left out is a bad row, or stands beside an index."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from builders import write_image_folder, write_parquet_shards

from orchestrator import storage
from orchestrator.config import DataConfig
from orchestrator.data.catalogue import summarise
from orchestrator.data.image_index import index_folders
from orchestrator.data.sources import list_fragments, listing_digest
from orchestrator.data.templates import PathTemplate
from orchestrator.errors import DataError

MakeCatalogue = Callable[..., pa.Table]
NOT_FOLLOWED = "links to folders are not followed"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, one a link to a file elsewhere; links to folders, in a circle too, and to nothing; a pipe."""
    folder = write_image_folder(tmp_path / "photos", subsets={"north": {"cat": 2}})
    elsewhere = write_image_folder(tmp_path / "elsewhere", subsets={"south": {"cat": 1}})
    (folder / "north" / "cat" / "linked.png").symlink_to(elsewhere / "south" / "cat" / "0.png")
    (folder / "north" / "dog").symlink_to(folder / "north" / "cat")
    (folder / "north" / "up").symlink_to(folder)
    (folder / "south").symlink_to(elsewhere / "south")
    (folder / "north" / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (folder / "north" / "cat" / "itself.png").symlink_to("itself.png")
    os.mkfifo(folder / "north" / "cat" / "pipe.png")
    return folder


def test_a_listing_ends_and_has_every_file_once(photos: Path) -> None:
    tree = storage.list_tree(str(photos))
    assert [Path(file.path).name for file in tree.files] == ["0.png", "1.png", "linked.png"]
    assert tree.left_out == {
        "north/cat/gone.png": "the link leads to nothing",
        "north/cat/itself.png": "the link leads to nothing",
        "north/cat/pipe.png": "it is no plain file",
        "north/dog": NOT_FOLLOWED,
        "north/up": NOT_FOLLOWED,
        "south": NOT_FOLLOWED,
    }


def test_what_is_not_followed_is_a_bad_row_that_is_named(photos: Path, make_catalogue: MakeCatalogue) -> None:
    table = make_catalogue(DataConfig(uri=str(photos)))
    summary = summarise(table)
    assert (summary["num_images"], summary["num_quarantined"]) == (3, 6)
    assert summary["quarantine_reasons"] == {
        "it is no plain file": 1,
        NOT_FOLLOWED: 3,
        "the link leads to nothing": 2,
    }
    bad = table.filter(pa.compute.invert(table.column("ok")))
    assert set(bad.column("file").to_pylist()) == set(storage.list_tree(str(photos)).left_out)


def test_tables_beside_a_link_are_read_once(tmp_path: Path, make_catalogue: MakeCatalogue) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets={"north": {"cat": 4}})
    config = DataConfig(uri=str(data), image="image", label="label", subset="subset", id="id")
    before = listing_digest(config)
    (data / "latest").symlink_to(data)
    assert listing_digest(config) != before
    assert summarise(make_catalogue(config))["num_images"] == 4
    assert [fragment.key for fragment in list_fragments(config)] == [0, 1, 2]


def test_the_input_itself_may_be_a_link(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(photos)
    names = [fragment.files for fragment in list_fragments(DataConfig(uri=str(tmp_path / "data")))]
    assert names[0] == ("north/cat/0.png", "north/cat/1.png", "north/cat/linked.png")


def test_a_folder_of_nothing_but_links_says_so(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "assembled").mkdir()
    (tmp_path / "assembled" / "north").symlink_to(photos / "north")
    with pytest.raises(DataError, match=r"0 files, suffixes: none; north: links to folders are not followed"):
        list_fragments(DataConfig(uri=str(tmp_path / "assembled")))


def test_an_index_names_the_links_that_it_leaves_out(photos: Path) -> None:
    part = index_folders(str(photos), [""], PathTemplate("{subset}/{label}/{name}"), most_files=1000, most_folders=1000)
    assert part.unopened == ()
    assert part.images.column("path").to_pylist() == ["north/cat/0.png", "north/cat/1.png", "north/cat/linked.png"]
    reasons = {row["path"]: row["reason"] for row in part.left_out.to_pylist()}
    assert reasons == storage.list_tree(str(photos)).left_out


def test_a_name_that_is_not_utf8_costs_its_file_alone(tmp_path: Path, make_catalogue: MakeCatalogue) -> None:
    folder = write_image_folder(tmp_path, subsets={"nörd": {"猫": 2}})
    content = (folder / "nörd" / "猫" / "0.png").read_bytes()
    for name in (b"caf\xe9.png", b"caf\xe8.png"):
        Path(os.fsdecode(os.fsencode(folder / "nörd" / "猫") + b"/" + name)).write_bytes(content)
    table = make_catalogue(DataConfig(uri=str(folder)))
    assert summarise(table)["num_images"] == 2
    bad = {row["file"]: row["reason"] for row in table.to_pylist() if not row["ok"]}
    assert bad == {f"nörd/猫/caf\\xe{number}.png": "its name is not UTF-8" for number in (8, 9)}
