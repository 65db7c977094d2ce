from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import write_image_folder

from orchestrator.config import DataConfig
from orchestrator.data import folders
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.errors import ConfigError

SUBSETS = {"north": {"cat": 3, "dog": 2}, "south": {"cat": 4}}
ALL = ("image", "label", "subset")


def read_all(config: DataConfig, *, with_image: bool = False) -> list[dict[str, Any]]:
    tables = [read_fragment(fragment, config, with_image=with_image) for fragment in list_fragments(config)]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def test_labels_and_subsets_come_from_the_path(tmp_path: Path) -> None:
    config = DataConfig(uri=str(write_image_folder(tmp_path, subsets=SUBSETS)))
    rows = read_all(config, with_image=True)
    assert len(rows) == 9
    for row in rows:
        assert row["file"] == row["id"] == f"{row['subset']}/{row['label']}/{Path(row['file']).name}"
        assert row["image"] == (tmp_path / row["file"]).read_bytes()
        assert (row["row"], row["error"], row["split"]) == (0, None, None)


def test_a_template_may_name_the_split_and_nested_names(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets=SUBSETS, template="training/{subset}/{label}/2024/{name}")
    config = DataConfig(uri=str(tmp_path), path="{split}/{subset}/{label}/{name}")
    rows = read_all(config)
    assert {row["split"] for row in rows} == {"training"}
    assert {row["subset"] for row in rows} == {"north", "south"}
    assert {row["label"] for row in rows} == {"cat", "dog"}


def test_a_template_may_name_what_to_keep_together_and_the_id(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets=SUBSETS, template="{subset}/{label}/patient-7/{name}")
    config = DataConfig(
        uri=str(tmp_path),
        path="{subset}/{label}/{patient}/{name}",
        id="name",
        split={"keep_together": "patient"},
    )
    rows = read_all(config)
    assert {row["together"] for row in rows} == {"patient-7"}
    assert {row["id"] for row in rows} == {"0.png", "1.png", "2.png", "3.png"}


def test_a_file_that_does_not_match_is_a_bad_row_whose_image_can_be_read(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets={"north": {"cat": 1}})
    (tmp_path / "stray.jpg").write_bytes(b"stray")
    stray = read_all(DataConfig(uri=str(tmp_path)), with_image=True)[-1]
    assert stray["file"] == stray["id"] == "stray.jpg"
    assert stray["error"] == "the path does not match {subset}/{label}/{name}"
    assert stray["image"] == b"stray"
    assert stray["label"] is None


def test_a_file_that_vanished_since_the_listing_is_a_bad_row(tmp_path: Path) -> None:
    config = DataConfig(uri=str(write_image_folder(tmp_path, subsets={"north": {"cat": 2}})))
    (fragment,) = list_fragments(config)
    (tmp_path / fragment.files[0]).unlink()
    gone, there = read_fragment(fragment, config, with_image=True).to_pylist()
    assert gone["error"].startswith("the file cannot be read")
    assert gone["image"] is None
    assert there["error"] is None


def test_images_are_not_opened_unless_asked_for(tmp_path: Path) -> None:
    config = DataConfig(uri=str(write_image_folder(tmp_path, subsets={"north": {"cat": 1}})))
    (fragment,) = list_fragments(config)
    (tmp_path / fragment.files[0]).unlink()
    assert read_fragment(fragment, config, with_image=False).column("error").to_pylist() == [None]


def test_files_are_dealt_to_fragments_in_order_and_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "FILES_PER_FRAGMENT", 4)
    config = DataConfig(uri=str(write_image_folder(tmp_path, subsets=SUBSETS)))
    fragments = list_fragments(config, required=ALL)
    assert [fragment.num_rows for fragment in fragments] == [4, 4, 1]
    files = [file for fragment in fragments for file in fragment.files]
    assert files == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    some = read_fragment(fragments[1], config, with_image=False, rows=[2, 0])
    assert some.column("file").to_pylist() == [fragments[1].files[2], fragments[1].files[0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "{label}/{name}"}, r"data\.path must name the subset"),
        ({"path": "{subset}/{name}"}, r"data\.path must name the label"),
        ({"path": "{subset"}, r"data\.path must be a template"),
        ({"id": "serial"}, r"data\.id must be one of the names in data\.path"),
        ({"split": {"column": "fold"}}, r"data\.split\.column must be one of the names"),
        ({"split": {"keep_together": "patient"}}, r"data\.split\.keep_together must be one of the names"),
    ],
)
def test_a_template_without_what_is_needed_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_image_folder(tmp_path, subsets={"north": {"cat": 1}})
    with pytest.raises(ConfigError, match=message):
        list_fragments(DataConfig(uri=str(tmp_path), **changes), required=ALL)


def test_prediction_needs_no_labels_in_the_path(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets={"north": {"cat": 1}}, template="{name}")
    (row,) = read_all(DataConfig(uri=str(tmp_path), path="{name}"), with_image=True)
    assert (row["label"], row["subset"], row["error"]) == (None, "all", None)
