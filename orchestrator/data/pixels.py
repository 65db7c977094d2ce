"""Keeps decoded pixels in one file a fragment, mapped into memory where they are read."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.errors import DataError

# Every mapped file holds a file descriptor, of which a process commonly has 1024.
_MAX_OPEN_SHARDS = 256


def write_pixels(uri: str, key: int, pixels: NDArray[np.uint8]) -> None:
    """Write the pixels of one fragment, uint8 [n, size, size, 3], whole or not at all.

    A task that is run again writes the same file again.
    """
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    storage.write_bytes(_shard_uri(uri, key), buffer.getvalue())


@dataclass(eq=False)
class PixelCache:
    """Read cached pixels by position: sample i is row `rows[i]` of the file of fragment `shards[i]`.

    Files on this machine's disks are mapped, so that all its processes share one copy in memory. Others are
    fetched once a node into its cache directory, and mapped there. Instances are small and can be pickled.
    """

    uri: str
    shards: NDArray[np.int32]
    rows: NDArray[np.int32]
    _maps: OrderedDict[int, NDArray[np.uint8]] = field(default_factory=OrderedDict, init=False, repr=False)

    @classmethod
    def open(cls, uri: str, shards: NDArray[np.int32], rows: NDArray[np.int32]) -> PixelCache:
        """Open a cache directory; files are opened when they are first read."""
        return cls(uri, shards, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy the pixels at `positions`, in that order and with repeats: uint8 [n, size, size, 3].

        An empty cache gives [0, 0, 0, 3]. Raises DataError when a file of the cache is missing or damaged,
        StorageError when it cannot be fetched.
        """
        shards, rows = self.shards[positions], self.rows[positions]
        # Any file tells the shape of an image: one that is needed anyway, unless nothing is.
        known = shards if len(shards) else self.shards
        shape = self._shard(int(known[0])).shape[1:] if len(known) else (0, 0, 3)
        pixels = np.empty((len(positions), *shape), dtype=np.uint8)
        # One file after the other: however many there are, each is opened once a call. Copying image by image
        # took half the time of NumPy's indexing by arrays (batches of 32 from 20 files at 96 px).
        for index in np.argsort(shards, kind="stable").tolist():
            pixels[index] = self._shard(int(shards[index]))[rows[index]]
        return pixels

    def __getstate__(self) -> tuple[str, NDArray[np.int32], NDArray[np.int32]]:
        return self.uri, self.shards, self.rows

    def __setstate__(self, state: tuple[str, NDArray[np.int32], NDArray[np.int32]]) -> None:
        self.uri, self.shards, self.rows = state
        self._maps = OrderedDict()

    def _shard(self, key: int) -> NDArray[np.uint8]:
        mapped = self._maps.pop(key, None)
        if mapped is None:
            mapped = _map(_local_shard(self.uri, key))
        # The one used last stands last: the first is the one to close.
        self._maps[key] = mapped
        if len(self._maps) > _MAX_OPEN_SHARDS:
            self._maps.popitem(last=False)
        return mapped


def _shard_uri(uri: str, key: int) -> str:
    return storage.join(uri, f"{key}.npy")


def _local_shard(uri: str, key: int) -> Path:
    """Give the path of a fragment's pixels on this machine, fetching them when they are elsewhere."""
    if storage.is_local(uri):
        return storage.local_path(_shard_uri(uri, key))
    return _fetched_shard(uri, key, storage.scratch_directory("pixels") / storage.digest(uri))


def _fetched_shard(uri: str, key: int, directory: Path) -> Path:
    """Give the copy of a fragment's pixels in a directory of this machine, made by the first process to ask."""
    path = directory / f"{key}.npy"
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            storage.write_bytes(str(path), storage.read_bytes(_shard_uri(uri, key)))
    return path


def _map(path: Path) -> NDArray[np.uint8]:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            "a file of the pixel cache must be readable",
            value=path,
            remedy=f"Remove the catalogue to make it anew ({error}).",
        ) from error
    # A plain array over the map: indexing numpy.memmap itself costs more than the copy of a small image.
    pixels: NDArray[np.uint8] = np.asarray(mapped)
    return pixels
