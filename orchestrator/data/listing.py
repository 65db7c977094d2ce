"""Finds the input files below a path or URI and tells their format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pyarrow import fs

from orchestrator import storage
from orchestrator.config import DataConfig
from orchestrator.errors import DataError

PARQUET_SUFFIXES = frozenset({".parquet"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"})


@dataclass(frozen=True)
class InputFile:
    """Name a file relative to the root, with what shows that it has changed."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """Hold the input files of one format, ordered by path."""

    format: Literal["parquet", "images"]
    files: tuple[InputFile, ...]


def list_input(config: DataConfig) -> Listing:
    """List the input. Raises StorageError when it is not there, DataError when it holds nothing to read."""
    _, root = find_root(config.uri)
    found = [_relative(info, root) for info in storage.list_files(config.uri)]
    parquet = tuple(file for file in found if _suffix(file) in PARQUET_SUFFIXES)
    images = tuple(file for file in found if _suffix(file) in IMAGE_SUFFIXES)
    format = config.format if config.format != "auto" else ("parquet" if parquet else "images")
    files = parquet if format == "parquet" else images
    if not files:
        seen = sorted({_suffix(file) or "none" for file in found})
        raise DataError(
            "the input must hold Parquet files or images",
            value=f"{config.uri} with {len(found)} files, suffixes: {', '.join(seen[:8]) or 'none'}",
            remedy=f"Check data.uri and data.format; images end in {', '.join(sorted(IMAGE_SUFFIXES))}.",
        )
    return Listing(format, files)


def find_root(uri: str) -> tuple[fs.FileSystem, str]:
    """Give the file system and the directory that the files' paths are relative to.

    For a URI of a single file it is the directory that holds the file.
    """
    file_system, path = storage.resolve(uri)
    path = path.rstrip("/")
    if file_system.get_file_info(path).type == fs.FileType.File:
        path = str(PurePosixPath(path).parent)
    return file_system, path


def _relative(info: fs.FileInfo, root: str) -> InputFile:
    return InputFile(str(info.path)[len(root) :].lstrip("/"), int(info.size), int(info.mtime_ns or 0))


def _suffix(file: InputFile) -> str:
    return PurePosixPath(file.path).suffix.lower()
