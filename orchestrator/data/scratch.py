"""Keeps numbers that are too many for memory in files of this machine, for as long as they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.errors import StorageError


@dataclass(frozen=True, kw_only=True, eq=False)
class ScratchRows:
    """Hold rows [n, width] of one type in a file, zero until they are put there.

    The file is mapped for one call at a time: what was read or written stays in no process.
    """

    file: IO[bytes]
    num_rows: int
    width: int
    dtype: np.dtype[np.floating]

    def put(self, places: NDArray[np.int64], values: NDArray[np.floating]) -> None:
        """Write rows [m, width] to their places [m]."""
        if len(places):
            self._map("r+")[places] = values

    def take(self, places: NDArray[np.int64]) -> NDArray[np.floating]:
        """Read the rows [m, width] at these places [m], in their order."""
        if not len(places):
            return np.zeros((0, self.width), dtype=self.dtype)
        # Indexing by positions copies.
        return np.asarray(self._map("r")[places])

    def _map(self, mode: Literal["r", "r+"]) -> np.memmap[Any, np.dtype[np.floating]]:
        return np.memmap(self.file, dtype=self.dtype, mode=mode, shape=(self.num_rows, self.width))


@contextmanager
def scratch_rows(num_rows: int, width: int, dtype: type[np.floating]) -> Iterator[ScratchRows]:
    """Give rows in a file of this machine's cache that has no name, so that nothing of it outlives this process.

    Raises StorageError where there is no space for all of them.
    """
    folder, kind = storage.scratch_directory("predictions"), np.dtype(dtype)
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(TemporaryFile(dir=folder))
            _reserve(file, num_rows * width * kind.itemsize)
        except OSError as error:
            raise StorageError("the cache directory must have space", value=str(folder), remedy=str(error)) from error
        yield ScratchRows(file=file, num_rows=num_rows, width=width, dtype=kind)


def _reserve(file: IO[bytes], size: int) -> None:
    """Make a file as large as all that will be in it."""
    file.truncate(size)
    if size and hasattr(os, "posix_fallocate"):
        # A disk that is full when a map is written to would end the process without a word.
        os.posix_fallocate(file.fileno(), 0, size)
