from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import write_image_folder, write_parquet_shards

from orchestrator.config import DataConfig
from orchestrator.data.sources import list_fragments, listing_digest, read_fragment
from orchestrator.errors import ConfigError, DataError, StorageError

MakeConfig = Callable[..., DataConfig]

SUBSETS = {"north": {"cat": 3, "dog": 2}, "south": {"cat": 4}}


def test_parquet_is_recognised_beside_other_files(tmp_path: Path, parquet_config: MakeConfig) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS)
    (tmp_path / "README.md").write_text("about the data")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "preview.png").touch()
    fragments = list_fragments(parquet_config(tmp_path))
    assert [fragment.format for fragment in fragments] == ["parquet", "parquet"]
    assert [fragment.key for fragment in fragments] == [0, 1]


def test_images_are_recognised_in_any_case_of_their_suffix(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets={"north": {"cat": 2}})
    (tmp_path / "north/cat/0.png").rename(tmp_path / "north/cat/0.PNG")
    (tmp_path / "north/cat/notes.txt").touch()
    (fragment,) = list_fragments(DataConfig(uri=str(tmp_path)))
    assert fragment.files == ("north/cat/0.PNG", "north/cat/1.png")


def test_a_table_of_paths_beside_images_is_not_mistaken_for_them_nor_they_for_it(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets={"north": {"cat": 2}})
    (tmp_path / "labels.csv").write_text("image,label,subset\nnorth/cat/0.png,cat,north\n")
    with pytest.raises(ConfigError, match=r"data\.format must say .*csv \(1\), images \(2\).*to csv or images"):
        list_fragments(DataConfig(uri=str(tmp_path), image="image"))
    columns = {"image": "image", "label": "label", "subset": "subset"}
    by_table = list_fragments(DataConfig(uri=str(tmp_path), format="csv", **columns))
    by_file = list_fragments(DataConfig(uri=str(tmp_path / "labels.csv"), **columns))
    assert by_table == by_file
    assert [fragment.format for fragment in by_table] == ["csv"]
    assert list_fragments(DataConfig(uri=str(tmp_path), format="images"))[0].num_rows == 2


def test_tables_of_two_formats_are_ambiguous(tmp_path: Path, parquet_config: MakeConfig) -> None:
    config = parquet_config(write_parquet_shards(tmp_path, subsets=SUBSETS))
    (tmp_path / "shard.tar").touch()
    with pytest.raises(ConfigError, match=r"data\.format must say"):
        list_fragments(config)
    assert len(list_fragments(config.model_copy(update={"format": "parquet"}))) == 2


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_one_file_is_an_input_too(tmp_path: Path, parquet_config: MakeConfig, scheme: str) -> None:
    shard = next(write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=1).iterdir())
    config = parquet_config(tmp_path).model_copy(update={"uri": f"{scheme}{shard}"})
    (fragment,) = list_fragments(config)
    assert fragment.files == (shard.name,)
    assert read_fragment(fragment, config, with_image=True).num_rows == 9


def test_a_folder_without_anything_to_read_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "table.xlsx").touch()
    with pytest.raises(DataError, match=r"with 1 files, suffixes: \.xlsx"):
        list_fragments(DataConfig(uri=str(tmp_path)))


def test_a_format_that_is_asked_for_is_not_guessed(tmp_path: Path) -> None:
    write_parquet_shards(tmp_path, subsets=SUBSETS)
    with pytest.raises(DataError, match="must hold tables, tar shards or images"):
        list_fragments(DataConfig(uri=str(tmp_path), format="images"))


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="must exist"):
        list_fragments(DataConfig(uri=str(tmp_path / "nowhere")))


def test_the_listing_digest_changes_with_any_file(tmp_path: Path, parquet_config: MakeConfig) -> None:
    config = parquet_config(write_parquet_shards(tmp_path, subsets=SUBSETS))
    before = listing_digest(config)
    assert listing_digest(config) == before
    shard = sorted(tmp_path.iterdir())[0]
    os.utime(shard, ns=(1, shard.stat().st_mtime_ns + 1_000_000))
    touched = listing_digest(config)
    shard.rename(tmp_path / "renamed.parquet")
    assert len({before, touched, listing_digest(config)}) == 3


def test_the_listing_digest_ignores_files_that_are_no_input(tmp_path: Path, parquet_config: MakeConfig) -> None:
    config = parquet_config(write_parquet_shards(tmp_path, subsets=SUBSETS))
    before = listing_digest(config)
    (tmp_path / "README.md").write_text("about the data")
    assert listing_digest(config) == before
