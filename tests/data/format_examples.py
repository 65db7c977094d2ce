"""The same few samples in every format that can be read, good and bad ones."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from builders import NOT_AN_IMAGE, build_rows
from pyarrow import parquet as pq

from orchestrator.config import DataConfig

Sample = dict[str, Any]
WriteFormat = Callable[[Path, list[list[Sample]]], DataConfig]

COLUMNS = {"image": "image", "label": "label", "subset": "subset", "id": "id", "split": {"column": "split"}}


def make_samples() -> list[Sample]:
    """Nine good samples; one that is no image, one without an image, one without a label."""
    rows = build_rows(subsets={"north": {"cat": 3, "dog": 2}, "south": {"cat": 4}}, image_px=8)
    samples = [{**row, "id": str(row["id"]).replace("/", "-")} for row in rows]
    first = samples[0]
    samples.insert(2, {**first, "id": "corrupt", "image": NOT_AN_IMAGE})
    samples.insert(5, {**first, "id": "imageless", "image": None})
    samples.append({**first, "id": "unlabelled", "label": None})
    return [{**sample, "split": ("train", "val")[number % 2]} for number, sample in enumerate(samples)]


def write_tar(path: Path, entries: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar of plain files in the given order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_images(directory: Path, samples: Iterable[Sample]) -> None:
    """Write the images that there are, as <id>.png."""
    directory.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        if sample["image"] is not None:
            (directory / f"{sample['id']}.png").write_bytes(sample["image"])


def _with_paths(shard: list[Sample], folder: str = "") -> list[Sample]:
    return [{**sample, "image": f"{folder}{sample['id']}.png"} for sample in shard]


def _parquet(directory: Path, shards: list[list[Sample]]) -> DataConfig:
    directory.mkdir(parents=True)
    for number, shard in enumerate(shards):
        pq.write_table(pa.Table.from_pylist(shard), directory / f"{number}.parquet")
    return DataConfig(uri=str(directory), **COLUMNS)


def _parquet_structs(directory: Path, shards: list[list[Sample]]) -> DataConfig:
    """Every other image is a path alone."""
    outside = [sample for shard in shards for sample in shard[::2]]
    structs = [
        [
            {**sample, "image": {"bytes": None if place % 2 == 0 else sample["image"], "path": f"{sample['id']}.png"}}
            for place, sample in enumerate(shard)
        ]
        for shard in shards
    ]
    config = _parquet(directory, structs)
    write_images(directory, outside)
    return config


def _parquet_paths(directory: Path, shards: list[list[Sample]]) -> DataConfig:
    for shard in shards:
        write_images(directory.with_name("images"), shard)
    config = _parquet(directory, [_with_paths(shard, "./") for shard in shards])
    return config.model_copy(update={"image_root": str(directory.with_name("images"))})


def _csv(directory: Path, shards: list[list[Sample]], suffix: str = "csv", delimiter: str = ",") -> DataConfig:
    for number, shard in enumerate(shards):
        write_images(directory / "images", shard)
        with (directory / f"{number}.{suffix}").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(shard[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(_with_paths(shard, "images/"))
    return DataConfig(uri=str(directory), format="csv", **COLUMNS)


def _tsv(directory: Path, shards: list[list[Sample]]) -> DataConfig:
    return _csv(directory, shards, "tsv", "\t")


def _jsonl(directory: Path, shards: list[list[Sample]]) -> DataConfig:
    for number, shard in enumerate(shards):
        write_images(directory / "images", shard)
        lines = [json.dumps(sample) for sample in _with_paths(shard, "images/")]
        (directory / f"{number}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return DataConfig(uri=str(directory), format="jsonl", **COLUMNS)


def _entries(sample: Sample) -> Iterable[tuple[str, bytes]]:
    if sample["image"] is not None:
        yield f"{sample['id']}.png", sample["image"]
    if sample["label"] is not None:
        yield f"{sample['id']}.cls", f"{sample['label']}\n".encode()
    yield f"{sample['id']}.json", json.dumps({"subset": sample["subset"], "split": sample["split"]}).encode()


def _webdataset(directory: Path, shards: list[list[Sample]]) -> DataConfig:
    for number, shard in enumerate(shards):
        write_tar(directory / f"{number}.tar", (entry for sample in shard for entry in _entries(sample)))
    return DataConfig(uri=str(directory), **{**COLUMNS, "label": "cls", "id": "__key__"})


def _images(directory: Path, shards: list[list[Sample]]) -> DataConfig:
    for number, shard in enumerate(shards):
        for sample in shard:
            label = "" if sample["label"] is None else f"/{sample['label']}"
            path = directory / f"{number}/{sample['split']}/{sample['subset']}{label}/{sample['id']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample["image"] or b"")
    return DataConfig(uri=str(directory), path="{shard}/{split}/{subset}/{label}/{id}.png", id="id")


FORMATS: Mapping[str, WriteFormat] = {
    "parquet": _parquet,
    "parquet structs": _parquet_structs,
    "parquet paths": _parquet_paths,
    "csv": _csv,
    "tsv": _tsv,
    "jsonl": _jsonl,
    "webdataset": _webdataset,
    "images": _images,
}
