"""Data that is moved, copied or mounted elsewhere is the same data: identities, splits and cache keys stay."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import build_rows, write_image_folder, write_parquet_shards
from format_examples import write_tar
from pyarrow import parquet as pq

from orchestrator.config import AugmentConfig, DataConfig
from orchestrator.data.activation_keys import ActivationKey
from orchestrator.data.catalogue import data_fingerprint
from orchestrator.data.image_files import ImageRoot, path_identities
from orchestrator.records import BackboneSpec

SUBSETS = {"north": {"cat": 9, "dog": 8}, "south": {"cat": 6}}
PLACES = ["fragment", "file", "row"]


def _folder(root: Path) -> DataConfig:
    return DataConfig(uri=str(write_image_folder(root / "photos", subsets=SUBSETS)))


def _bytes(root: Path) -> DataConfig:
    return DataConfig(
        uri=str(write_parquet_shards(root / "tables", subsets=SUBSETS)), image="image", label="label", subset="subset"
    )


def _tars(root: Path) -> DataConfig:
    rows = build_rows(subsets=SUBSETS)
    entries: list[tuple[str, Any]] = []
    for number, row in enumerate(rows):
        entries += [(f"{number}.png", row["image"]), (f"{number}.cls", str(row["label"]).encode())]
    write_tar(root / "tars" / "0.tar", entries)
    return DataConfig(uri=str(root / "tars"), label="cls")


def _paths(root: Path, prefix: str, format: str) -> DataConfig:
    photos = write_image_folder(root / "photos", subsets=SUBSETS)
    rows = [
        {"file": f"{prefix}{path.relative_to(photos)}", "label": path.parts[-2], "subset": path.parts[-3]}
        for path in sorted(photos.rglob("*.png"))
    ]
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), root / "index.parquet")
    else:
        lines = [",".join(row.values()) for row in rows]
        (root / "index.csv").write_text("\n".join(["file,label,subset", *lines]))
    return DataConfig(
        uri=str(root / f"index.{format}"), image="file", image_root=str(photos), label="label", subset="subset"
    )


WAYS: dict[str, Callable[[Path], DataConfig]] = {
    "folder": _folder,
    "bytes": _bytes,
    "tars": _tars,
    "csv of relative paths": lambda root: _paths(root, "./", "csv"),
    "csv of absolute paths": lambda root: _paths(root, f"{root}/photos/", "csv"),
    "parquet of absolute paths": lambda root: _paths(root, f"{root}/photos/", "parquet"),
    "parquet of uris": lambda root: _paths(root, f"file://{root}/photos/", "parquet"),
}


def key_of(table: pa.Table) -> dict[int, str]:
    key = ActivationKey(
        contents=table.column("content").to_pylist(),
        ids=table.column("id").to_pylist(),
        spec=BackboneSpec(name="resnet18", kwargs={}, image_size=8, mean=(0.0,) * 3, std=(1.0,) * 3, resize="crop"),
        weights="w",
        precision="fp32",
        view=1,
        augment=AugmentConfig(views=2, flip=True),
        seed=0,
    )
    return key.names({1: "fp32"})


@pytest.mark.parametrize("way", WAYS)
def test_moved_data_has_the_same_identities_splits_and_cache_keys(
    way: str, tmp_path: Path, make_catalogue: Callable[..., pa.Table]
) -> None:
    (tmp_path / "here").mkdir()
    before = make_catalogue(WAYS[way](tmp_path / "here"))
    # Made again elsewhere: absolute paths in tables are those of the new place.
    shutil.rmtree(tmp_path / "here")
    (tmp_path / "mnt" / "there").mkdir(parents=True)
    after = make_catalogue(WAYS[way](tmp_path / "mnt" / "there"))
    assert after.drop_columns(PLACES).equals(before.drop_columns(PLACES))
    assert before.num_rows == 23 and all(before.column("ok").to_pylist())
    assert data_fingerprint(before) == data_fingerprint(after)
    assert key_of(before) == key_of(after)


def test_what_lies_elsewhere_is_told_by_its_whole_path(tmp_path: Path) -> None:
    config = DataConfig(uri="unused", image_root=str(tmp_path))
    paths = ["a//b.png", "./b.png", "../b.png", "/other/b.png", f"{tmp_path}/b.png", "s3://bucket/b.png", None, ""]
    found = ["a/b.png", "b.png", "../b.png", "/other/b.png", "b.png", "s3://bucket/b.png", None, ""]
    assert path_identities(paths, config) == found
    assert path_identities(["/x/../other/b.png"], config) == ["/x/../other/b.png"]


def test_identities_in_a_bucket_are_relative_too(s3_bucket: str) -> None:
    root = ImageRoot.of(DataConfig(uri="unused", image_root=f"{s3_bucket}/photos"))
    assert root.identity(f"{s3_bucket}/photos/a/b.png") == "a/b.png"
    assert root.identity(f"{s3_bucket}/photos-2/b.png") == f"{s3_bucket}/photos-2/b.png"
