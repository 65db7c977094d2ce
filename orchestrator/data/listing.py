"""Finds the input files below a path or URI and tells their format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from pyarrow import fs

from orchestrator import storage
from orchestrator.config import DataConfig, DataFormat
from orchestrator.errors import ConfigError, DataError

T = TypeVar("T")

# Listing waits for the store, not for the processor.
_LISTING_THREADS = 16
# Also what Pillow reads with a plugin alone: a bad row says more than a file that is passed over.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".pgm", ".ppm"}
    | {".avif", ".heic", ".heif"}
)

_SUFFIXES: Mapping[DataFormat, frozenset[str]] = {
    "parquet": frozenset({".parquet"}),
    "webdataset": frozenset({".tar"}),
    "csv": frozenset({".csv", ".tsv"}),
    "jsonl": frozenset({".jsonl", ".ndjson"}),
    "images": IMAGE_SUFFIXES,
}


@dataclass(frozen=True)
class InputFile:
    """Name a file relative to the root, with what shows that it has changed."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """Hold the input files of one format, ordered by path, and by path what is not read with the reason."""

    format: DataFormat
    files: tuple[InputFile, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def list_input(config: DataConfig) -> Listing:
    """List the input.

    `auto` is the only format that has files; images beside Parquet files or tars are taken for previews. Raises
    StorageError when the input is not there, DataError when it holds nothing to read, ConfigError when `auto` finds
    several formats.
    """
    _, root = find_root(config.uri)
    tree = storage.list_tree(config.uri)
    found = [_relative(info, root) for info in tree.files]
    by_format = {
        format: tuple(file for file in found if _suffix(file) in suffixes) for format, suffixes in _SUFFIXES.items()
    }
    format = config.format if config.format != "auto" else _recognise(by_format)
    if not by_format[format]:
        seen = sorted({_suffix(file) or "none" for file in found})
        raise DataError(
            "the input must hold tables, tar shards or images",
            value=f"{config.uri} with {len(found)} files, suffixes: {', '.join(seen[:8]) or 'none'}"
            + "".join(f"; {path}: {reason}" for path, reason in list(tree.left_out.items())[:1]),
            remedy=f"Check data.uri and data.format: {_describe_suffixes()}.",
        )
    return Listing(format, by_format[format], tuple(sorted(tree.left_out.items())))


def for_each_file(listing: Listing, work: Callable[[InputFile], T]) -> list[T]:
    """Do some work for every input file at once, such as reading its footer, and give the results in their order."""
    with ThreadPoolExecutor(_LISTING_THREADS) as pool:
        return list(pool.map(work, listing.files))


def find_root(uri: str) -> tuple[fs.FileSystem, str]:
    """Give the file system and the directory that the files' paths are relative to.

    For a URI of a single file it is the directory that holds the file.
    """
    file_system, path = storage.resolve(uri)
    path = path.rstrip("/")
    info = storage.ask(uri, "a path must be readable", lambda: file_system.get_file_info(path))
    if info.type == fs.FileType.File:
        path = str(PurePosixPath(path).parent)
    return file_system, path


def _recognise(by_format: Mapping[DataFormat, tuple[InputFile, ...]]) -> DataFormat:
    present: list[DataFormat] = [format for format, files in by_format.items() if files]
    # Beside a table of paths the images may be what it names, or the data that it describes in passing.
    if "images" in present and present[0] in ("parquet", "webdataset"):
        present.remove("images")
    if len(present) > 1:
        raise ConfigError(
            "data.format must say which files are the data where there are several formats",
            value=f"auto and files of {', '.join(f'{format} ({len(by_format[format])})' for format in present)}",
            remedy=f"Set data.format to {' or '.join(present)}, or name one file in data.uri.",
        )
    return present[0] if present else "images"


def _describe_suffixes() -> str:
    return "; ".join(f"{format} files end in {', '.join(sorted(suffixes))}" for format, suffixes in _SUFFIXES.items())


def _relative(info: fs.FileInfo, root: str) -> InputFile:
    return InputFile(str(info.path)[len(root) :].lstrip("/"), int(info.size), int(info.mtime_ns or 0))


def _suffix(file: InputFile) -> str:
    return PurePosixPath(file.path).suffix.lower()
