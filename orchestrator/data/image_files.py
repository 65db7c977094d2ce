"""Reads image files: those of a folder, and those that a column of paths names."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import fs

from orchestrator import storage
from orchestrator.config import DataConfig
from orchestrator.data.fragments import describe_failure
from orchestrator.data.listing import find_root
from orchestrator.errors import DataError, StorageError, UnavailableError
from orchestrator.store_failures import patiently

# Reading small files waits for the disk or the store, not for the processor.
_READ_THREADS = 8

# pyarrow's names for the file systems of schemes.
_TYPE_NAMES = {"file": "local", "gs": "gcs"}

FilePlace = tuple[fs.FileSystem, str]
"""A file system and a path in it."""


@dataclass(frozen=True)
class ImageRoot:
    """Find the image files that a table names.

    A relative path is below the root and cannot leave it; an absolute path or a URI is read as it is.
    """

    file_system: fs.FileSystem
    path: str

    @classmethod
    def of(cls, config: DataConfig) -> ImageRoot:
        """Take `image_root`, by default the directory of `uri`."""
        return cls(*(find_root(config.uri) if config.image_root is None else storage.resolve(config.image_root)))

    def read(self, paths: Sequence[str | None]) -> tuple[pa.Array, list[str | None]]:
        """Read the files at `paths`: large_binary [n], null where there is no path or no file, and why or None.

        Raises UnavailableError when a store does not answer.
        """
        buckets: dict[str, FilePlace] = {}
        places: list[FilePlace | None] = []
        errors: list[str | None] = []
        for path in paths:
            place, error = None, None
            try:
                place = self._locate(path, buckets) if path else None
            except UnavailableError:
                raise
            except (DataError, StorageError) as failure:
                error = str(failure)
            places.append(place)
            errors.append(error)
        contents, failures = read_places(places)
        return contents, [error or failure for error, failure in zip(errors, failures, strict=True)]

    def identity(self, path: str) -> str:
        """Give a path relative to the root where it is below it, else as it is: moved with the root it stays."""
        scheme, is_uri, rest = path.partition("://")
        whole = f"{self.path.rstrip('/')}/"
        if _is_absolute(path):
            is_here = self.file_system.type_name == _TYPE_NAMES.get(scheme if is_uri else "file", scheme)
            place = posixpath.normpath(rest if is_uri else path)
            return place.removeprefix(whole) if is_here and place.startswith(whole) else path
        below = posixpath.normpath(path)
        return path if below == ".." or below.startswith("../") else below

    def _locate(self, path: str, buckets: dict[str, FilePlace]) -> FilePlace:
        scheme, is_uri, rest = path.partition("://")
        if path.startswith("/") or scheme == "file":
            return storage.resolve(path)
        if is_uri:
            # Opening a file system takes longer than a read: one for all files of a bucket.
            bucket, _, key = rest.partition("/")
            uri = f"{scheme}://{bucket}"
            if uri not in buckets:
                buckets[uri] = storage.resolve(uri)
            file_system, base = buckets[uri]
            return file_system, f"{base.rstrip('/')}/{key}"
        below = posixpath.normpath(path)
        if below == ".." or below.startswith("../"):
            raise DataError(f"the path {path[:200]} leaves data.image_root")
        return self.file_system, f"{self.path.rstrip('/')}/{below}"


def path_identities(paths: Sequence[str | None], config: DataConfig) -> list[str | None]:
    """Give the identities of images that are told by their paths; None where there is no path. See `identity`."""
    if not any(path and _is_absolute(path) for path in paths):
        # The place of the root does not matter, and need not be looked for.
        root = ImageRoot(fs.LocalFileSystem(), "")
    else:
        root = ImageRoot.of(config)
    return [root.identity(path) if path else path for path in paths]


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or "://" in path


def read_places(places: Sequence[FilePlace | None]) -> tuple[pa.Array, list[str | None]]:
    """Read files: large_binary [n], null where there is none or it cannot be read, and why it cannot or None.

    Raises UnavailableError when a store does not answer.
    """
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        read = list(pool.map(_read_place, places))
    return pa.array([content for content, _ in read], pa.large_binary()), [failure for _, failure in read]


def _read_place(place: FilePlace | None) -> tuple[bytes | None, str | None]:
    if place is None:
        return None, None
    file_system, path = place

    def read() -> bytes:
        with file_system.open_input_file(path) as stream:
            return bytes(stream.read())

    try:
        return patiently(read, what=path), None
    except (OSError, pa.ArrowException) as error:
        return None, describe_failure(error)
