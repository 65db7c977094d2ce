"""Gives processes of one machine array files that they share in memory, wherever the files lie."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from orchestrator import storage

Key = TypeVar("Key", bound=Hashable)


def node_file(uri: str, name: str, purpose: str) -> Path:
    """Give the path on this machine of the file `name` in the directory `uri`.

    A file that lies elsewhere is fetched once a node, by the first process to ask, into its scratch directory for
    `purpose`. Raises StorageError when it cannot be fetched; a local one may be missing.
    """
    if storage.is_local(uri):
        return storage.local_path(storage.join(uri, name))
    path = node_directory(uri, purpose) / name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            storage.write_bytes(str(path), storage.read_bytes(storage.join(uri, name)))
    return path


def node_directory(uri: str, purpose: str) -> Path:
    """Give the directory of this machine that holds copies of the files in the remote directory `uri`."""
    return storage.scratch_directory(purpose) / storage.digest(uri)


def map_array(path: Path) -> NDArray[Any]:
    """Map a .npy file into memory. Raises OSError, ValueError or EOFError when it is missing or damaged."""
    with storage.ONE_NPY_HEADER:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    # A plain array over the map: indexing numpy.memmap itself costs more than the copy of a small row.
    found: NDArray[Any] = np.asarray(mapped)
    return found


class OpenArrays(Generic[Key]):
    """Keep the arrays used last open, at most `most`: each holds a file descriptor, of which there are few."""

    def __init__(self, open_array: Callable[[Key], NDArray[Any]], most: int) -> None:
        self._open = open_array
        self._most = most
        self._arrays: OrderedDict[Key, NDArray[Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, key: Key) -> NDArray[Any]:
        """Give an array, opening it when it is not open."""
        array = self._arrays.get(key)
        if array is None:
            array = self._open(key)
            self._arrays[key] = array
            if len(self._arrays) > self._most:
                self._arrays.popitem(last=False)
        else:
            # The one used last stands last: the first is the one to close.
            self._arrays.move_to_end(key)
        return array
