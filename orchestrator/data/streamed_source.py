"""Holds the rows of a source that is streamed, with what each is learnt by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.data.reader import PixelReader

_TARGET = "target"
READ_COLUMNS = ("fragment", "file", "row", "pixel_row")
"""What of a catalogue reading needs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedSource:
    """Hold the catalogue rows of a source's training images, with what each is learnt by, and what reads them."""

    rows: pa.Table
    reader: PixelReader

    @classmethod
    def of(cls, rows: pa.Table, targets: NDArray[np.int64], reader: PixelReader) -> StreamedSource:
        """Take catalogue rows and their labels [n], and of the catalogue's columns what reading needs."""
        return cls(rows=rows.select(READ_COLUMNS).append_column(_TARGET, pa.array(targets)), reader=reader)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Give what each image is learnt by, int64 [n]."""
        return _labels(self.rows)


def read_labelled(reader: PixelReader, rows: pa.Table) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Give pixels [n, S, S, 3] and labels [n] of rows of a streamed source. Raises what reading raises."""
    return reader.read(rows), _labels(rows)


def _labels(rows: pa.Table) -> NDArray[np.int64]:
    return np.asarray(rows.column(_TARGET), dtype=np.int64)
