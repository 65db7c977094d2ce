from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import storage
from orchestrator.config import DataConfig
from orchestrator.data.image_files import ImageRoot


@pytest.fixture
def root(tmp_path: Path) -> ImageRoot:
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "deep" / "a.png").write_bytes(b"inside")
    (tmp_path / "outside.png").write_bytes(b"outside")
    return ImageRoot.of(DataConfig(uri="unused", image_root=str(tmp_path / "root")))


def test_relative_paths_are_below_the_root(root: ImageRoot) -> None:
    image, errors = root.read(["deep/a.png", "./deep/../deep//a.png", None, ""])
    assert image.to_pylist() == [b"inside", b"inside", None, None]
    assert errors == [None] * 4


def test_a_path_that_leaves_the_root_is_refused_by_name(root: ImageRoot) -> None:
    image, errors = root.read(["../outside.png", "deep/../../outside.png", "..", "deep/a.png"])
    assert image.to_pylist() == [None, None, None, b"inside"]
    assert errors[:2] == [
        "the path ../outside.png leaves data.image_root",
        "the path deep/../../outside.png leaves data.image_root",
    ]
    assert errors[2:] == ["the path .. leaves data.image_root", None]


def test_absolute_paths_and_uris_are_read_as_they_are(root: ImageRoot, tmp_path: Path) -> None:
    image, errors = root.read([str(tmp_path / "outside.png"), f"file://{tmp_path}/outside.png"])
    assert image.to_pylist() == [b"outside"] * 2
    assert errors == [None, None]


def test_what_cannot_be_read_says_why(root: ImageRoot) -> None:
    image, errors = root.read(["nowhere.png", "deep", "gopher://host/a.png", "a\0.png"])
    assert image.null_count == 4
    assert all(errors)
    assert "gopher" in str(errors[2])


def test_by_default_the_root_is_the_directory_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").touch()
    for uri in (tmp_path, tmp_path / "labels.csv"):
        assert ImageRoot.of(DataConfig(uri=str(uri))).path == str(tmp_path)


def test_a_table_on_disk_names_images_in_object_stores(tmp_path: Path, s3_bucket: str) -> None:
    storage.write_bytes(f"{s3_bucket}/images/a.png", b"in the root")
    storage.write_bytes(f"{s3_bucket}/other/b.png", b"elsewhere")
    root = ImageRoot.of(DataConfig(uri=str(tmp_path), image_root=f"{s3_bucket}/images"))
    image, errors = root.read(["a.png", f"{s3_bucket}/other/b.png", "../other/b.png", f"{s3_bucket}/none.png"])
    assert image.to_pylist() == [b"in the root", b"elsewhere", None, None]
    assert errors[:2] == [None, None]
    assert all(errors[2:])
