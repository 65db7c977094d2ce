"""Keeps what frozen stages give for samples in files that runs share, checked against their digests."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.data.manifests import Manifest
from orchestrator.data.node_files import OpenArrays, map_array, node_directory
from orchestrator.errors import DataError, StorageError

# Every mapped file holds a file descriptor, of which a process commonly has 1024; pixel caches take some too.
_MAX_OPEN_ENTRIES = 128
_OWN_FILE = re.compile(r"([0-9a-f]{32})\.(npy|json|used)")
# A writer renames its temporary file within minutes: an older one was left by a process that was killed.
_ABANDONED_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class ActivationStore:
    """Hold entries, each the rows [n, d] of some samples: a .npy file, and its manifest, which is written last.

    `uri` is a directory of a disk or an object store that any number of processes and runs may share. On a disk a
    lock keeps the two files of an entry together. Object stores have none: an entry that is written and evicted at
    once may lose a file there; it is then missing, never wrong. Small and picklable.
    """

    uri: str
    max_bytes: int

    def entries(self) -> dict[str, int]:
        """List the entries that have both files, with the bytes of their rows' file; nothing is opened."""
        return {name: files["npy"].size for name, files in self._listing().items() if {"npy", "json"} <= files.keys()}

    def has(self, name: str) -> bool:
        """Tell whether an entry has both files."""
        return storage.exists(self._file(name, "json")) and storage.exists(self._file(name, "npy"))

    def check(self, name: str) -> bool:
        """Tell whether an entry is there and whole: reads all its bytes."""
        return self._download(name) is not None

    def write(self, name: str, rows: NDArray[Any]) -> int:
        """Write an entry of rows [n, d], replacing what is there, and give the bytes of its file."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(rows), allow_pickle=False)
        content = buffer.getvalue()
        manifest = Manifest.of(content, shape=list(rows.shape), dtype=str(rows.dtype))
        self._write_files(name, content, manifest)
        return len(content)

    def read(self, name: str) -> NDArray[Any]:
        """Map the rows [n, d] of an entry, read-only, after comparing its bytes with their digest once a process.

        A remote entry is fetched once a node. Raises DataError when the entry is missing or damaged; a damaged one
        is removed, so that the next pass makes it anew.
        """
        rows = self._open(name) if self.is_local else self._fetch(name)
        if rows is None:
            rows = self._open_or_remove(name)
        if rows is None:
            raise DataError(
                "an entry of the activation cache must be there and whole",
                value=self._file(name, "npy"),
                remedy="The next search makes it anew.",
            )
        return rows

    def touch(self, names: Iterable[str]) -> None:
        """Mark entries as used now; those that are not there are left alone."""
        for name in names:
            if self.is_local:
                try:
                    os.utime(self._path(name, "json"))
                except FileNotFoundError:
                    continue
            else:
                # Nothing renews the time of an object but writing it; a third one keeps the entry itself as it is.
                storage.write_bytes(self._file(name, "used"), b"")

    def evict(self, keep: Collection[str]) -> int:
        """Remove the entries used longest ago until all take at most `max_bytes`; give how many went.

        Those in `keep` stay, even when they alone take more. A file that another process has mapped stays readable
        to it.
        """
        if self.is_local:
            self._remove_abandoned()
        listing = self._listing()
        total = sum(_bytes_of(files) for files in listing.values())
        removed = 0
        for name, files in sorted(listing.items(), key=lambda item: (_last_use(item[1]), item[0])):
            if total <= self.max_bytes:
                break
            if name not in keep and self._remove(name, _last_use(files)):
                total -= _bytes_of(files)
                removed += 1
        return removed

    @property
    def is_local(self) -> bool:
        """Tell whether the store is on a disk of this machine."""
        return storage.is_local(self.uri)

    def _file(self, name: str, suffix: str) -> str:
        return storage.join(self.uri, f"{name}.{suffix}")

    def _path(self, name: str, suffix: str) -> Path:
        return storage.local_path(self._file(name, suffix))

    def _write_files(self, name: str, content: bytes, manifest: Manifest) -> None:
        with self._lock(name):
            storage.write_bytes(self._file(name, "npy"), content)
            storage.write_bytes(self._file(name, "json"), manifest.to_json())

    def _open(self, name: str) -> NDArray[Any] | None:
        """Map the rows of a local entry; None when it is missing or damaged. Raises OSError for anything else."""
        path = self._path(name, "npy")
        try:
            manifest = Manifest.parse(self._path(name, "json").read_bytes())
            if manifest is None or not _is_whole(path, *_version(path), manifest.digest, manifest.size):
                return None
            rows = map_array(path)
        except (FileNotFoundError, ValueError, EOFError):
            return None
        as_described = {"shape": list(rows.shape), "dtype": str(rows.dtype)} == manifest.facts
        return rows if as_described else None

    def _fetch(self, name: str) -> NDArray[Any] | None:
        """Map this node's copy of a remote entry, fetching it when there is none; None when it cannot be had."""
        copies = ActivationStore(uri=str(node_directory(self.uri, "activations")), max_bytes=self.max_bytes)
        rows = copies._open(name)
        if rows is not None:
            return rows
        _trim(copies)
        with FileLock(_lock_path(copies.uri, f"fetch-{name[:2]}")):
            if (rows := copies._open(name)) is not None:
                return rows
            found = self._download(name)
            if found is None:
                return None
            copies._write_files(name, *found)
            return copies._open(name)

    def _download(self, name: str) -> tuple[bytes, Manifest] | None:
        """Read an entry's file with its manifest; None when it is missing or damaged, StorageError for the rest."""
        try:
            manifest = Manifest.parse(storage.read_bytes(self._file(name, "json")))
            content = storage.read_bytes(self._file(name, "npy"))
        except StorageError:
            # A store that does not answer says nothing about the entry.
            if self.has(name):
                raise
            return None
        return (content, manifest) if manifest is not None and manifest.describes(content) else None

    def _open_or_remove(self, name: str) -> NDArray[Any] | None:
        """Map a local entry that a writer may just have finished; remove what is not whole."""
        with self._lock(name):
            rows = self._open(name) if self.is_local else None
            if rows is None:
                self._delete(name)
            return rows

    def _remove(self, name: str, last_use: int) -> bool:
        """Remove an entry unless it was used after `last_use`, a time in ns; tell whether."""
        with self._lock(name):
            if self.is_local:
                manifest = self._path(name, "json")
                if manifest.exists() and manifest.stat().st_mtime_ns > last_use:
                    return False
            self._delete(name)
        return True

    def _delete(self, name: str) -> None:
        # The manifest first: without it there is no entry, whatever else is left.
        for suffix in ("json", "used", "npy"):
            _delete_file(self._file(name, suffix))

    def _listing(self) -> dict[str, dict[str, Any]]:
        """List the store's own files by entry and suffix; what else lies there is not its business."""
        found: dict[str, dict[str, Any]] = {}
        for file in storage.list_files(self.uri) if storage.exists(self.uri) else []:
            match = _OWN_FILE.fullmatch(file.base_name)
            if match is not None:
                found.setdefault(match[1], {})[match[2]] = file
        return found

    def _lock(self, name: str) -> AbstractContextManager[object]:
        # One of 256 locks, not one for each name: they are files, and stay.
        return FileLock(_lock_path(self.uri, name[:2])) if self.is_local else nullcontext()

    def _remove_abandoned(self) -> None:
        directory = storage.local_path(self.uri)
        for path in directory.glob(".*.npy.*") if directory.exists() else []:
            if _age(path) > _ABANDONED_S:
                path.unlink(missing_ok=True)


@dataclass(eq=False, kw_only=True)
class StoredActivations:
    """Take the stored rows of samples by position: sample i is row `rows[i]` of the entry of shard `shards[i]`.

    `entries` has the names of the entries by view and shard; a row has `width` numbers of the NumPy type `dtype`.
    Entries are opened when they are first read. Instances are small and can be pickled.
    """

    store: ActivationStore
    entries: tuple[tuple[str, ...], ...]
    shards: NDArray[np.int32]
    rows: NDArray[np.int32]
    width: int
    dtype: str
    _open: OpenArrays[tuple[int, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._open = OpenArrays(self._open_entry, _MAX_OPEN_ENTRIES)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Give the bytes of all rows in one view."""
        return len(self) * self.width * np.dtype(self.dtype).itemsize

    def take(self, positions: NDArray[np.int64], draw: int) -> NDArray[Any]:
        """Copy the rows [n, width] at `positions`, in that order and with repeats, in view `draw` modulo the views.

        Raises DataError when an entry is missing or damaged, OSError or StorageError when it cannot be read.
        """
        view = draw % len(self.entries)
        shards = self.shards[positions]
        taken = np.empty((len(positions), self.width), dtype=self.dtype)
        # One entry after the other: however many there are, each is opened once a call.
        order = np.argsort(shards, kind="stable")
        places = zip(order.tolist(), shards[order].tolist(), self.rows[positions[order]].tolist(), strict=True)
        for index, shard, row in places:
            taken[index] = self._open.get((view, shard))[row]
        return taken

    def check(self) -> None:
        """Open every entry that has a row of these samples: each is compared with its digest once in a process.

        Raises DataError when one is missing or damaged, OSError or StorageError when it cannot be read.
        """
        for shard in np.unique(self.shards).tolist():
            for view in range(len(self.entries)):
                self._open.get((view, shard))

    def load(self, draw: int = 0) -> NDArray[Any]:
        """Copy the rows [n, width] of all positions in one view: for sets small enough to be held in memory."""
        view = draw % len(self.entries)
        loaded = np.empty((len(self), self.width), dtype=self.dtype)
        order = np.argsort(self.shards, kind="stable")
        needed, starts = np.unique(self.shards[order], return_index=True)
        for shard, members in zip(needed.tolist(), np.split(order, starts[1:]), strict=False):
            loaded[members] = self._open.get((view, shard))[self.rows[members]]
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def _open_entry(self, place: tuple[int, int]) -> NDArray[Any]:
        view, shard = place
        return self.store.read(self.entries[view][shard])


@lru_cache(maxsize=2**12)
def entry_bytes(num_rows: int, width: int, dtype: str) -> int:
    """Give the size of the file of an entry of `num_rows` rows of `width` numbers."""
    header = io.BytesIO()
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (num_rows, width)}
    np.lib.format.write_array_header_1_0(header, described)
    return len(header.getvalue()) + num_rows * width * np.dtype(dtype).itemsize


def _delete_file(uri: str) -> None:
    try:
        storage.delete(uri)
    except StorageError:
        # Another process may have been faster; anything else is an error.
        if storage.exists(uri):
            raise


def _lock_path(uri: str, name: str) -> Path:
    path = storage.local_path(uri) / ".locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _bytes_of(files: dict[str, Any]) -> int:
    return sum(int(file.size) for file in files.values())


def _last_use(files: dict[str, Any]) -> int:
    """Give the time of an entry's last use in ns: that of its manifest or its mark, else of whatever is there."""
    marks = [files[suffix] for suffix in ("json", "used") if suffix in files] or list(files.values())
    return max(int(file.mtime_ns) for file in marks)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _version(path: Path) -> tuple[int, int, int]:
    """Give what changes when a file is written anew: inode, time of change in ns, bytes."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=2**16)
def _is_whole(path: Path, inode: int, changed_ns: int, size: int, digest: str, expected_size: int) -> bool:
    """Compare a file with its digest, once for each process and version of the file."""
    return Manifest(digest=digest, size=expected_size).describes_file(path)


@lru_cache(maxsize=8)
def _trim(copies: ActivationStore) -> None:
    """Bound this node's copies of a remote store, once for each process that adds to them."""
    copies.evict(keep=())
