"""Reads the pixels of catalogue rows: from the cache where they are cached, else from their files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.config import DataConfig
from orchestrator.data.decoding import decode_image, resize_image
from orchestrator.data.fragments import positions_in
from orchestrator.data.pixels import PixelCache
from orchestrator.data.sources import Fragment, read_fragment
from orchestrator.errors import DataError


def write_fragments(uri: str, fragments: list[Fragment]) -> None:
    """Keep the listing, so that later stages find a sample's file without listing again."""
    storage.write_bytes(uri, json.dumps([asdict(fragment) for fragment in fragments]).encode())


@lru_cache(maxsize=2)
def read_fragments(uri: str) -> tuple[Fragment, ...]:
    """Read the listing, once for each process."""
    return tuple(_restore(entry) for entry in storage.read_json(uri))


def _restore(entry: dict[str, Any]) -> Fragment:
    row_errors = tuple((row, error) for row, error in entry["row_errors"])
    return Fragment(**{**entry, "files": tuple(entry["files"]), "row_errors": row_errors})


BLOCK_ROWS = 256
"""The most rows of a block that a task predicts or decodes."""


@dataclass(frozen=True, kw_only=True)
class PixelReader:
    """Say where the pixels of a catalogue are; small and picklable, opened where it is used.

    `pixels_uri` is the cache's directory or None; `fragments_uri` the listing of the catalogue.
    """

    data: DataConfig
    image_size: int
    resize: Literal["crop", "squash"]
    pixels_uri: str | None
    fragments_uri: str

    @property
    def reads_single_rows(self) -> bool:
        """Tell whether a row's file is read without the rows beside it; of Parquet a whole row group is."""
        return all(fragment.format != "parquet" for fragment in read_fragments(self.fragments_uri))

    def read(self, rows: pa.Table) -> NDArray[np.uint8]:
        """Give the pixels of catalogue rows, in their order: uint8 [n, image_size, image_size, 3].

        Rows that are not cached must be of one fragment. Raises DataError when a file has changed since.
        """
        cached = np.asarray(rows.column("pixel_row")) >= 0
        size = self.image_size
        pixels = np.empty((rows.num_rows, size, size, 3), dtype=np.uint8)
        if cached.any():
            pixels[cached] = self._from_cache(rows.filter(pa.array(cached)))
        if not cached.all():
            contents = self.read_contents(rows.filter(pa.array(~cached)))
            pixels[~cached] = [resize_image(decode_image(content), size, self.resize) for content in contents]
        return pixels

    def read_contents(self, rows: pa.Table) -> list[bytes]:
        """Give the encoded images of catalogue rows of one fragment, in their order."""
        fragment = read_fragments(self.fragments_uri)[rows.column("fragment")[0].as_py()]
        table = read_fragment(fragment, self.data, with_image=True, rows=positions_in(fragment, rows))
        contents: list[bytes | None] = table.column("image").to_pylist()
        for row, content in zip(table.select(["file", "row", "error"]).to_pylist(), contents, strict=True):
            if content is None:
                raise DataError(
                    "a catalogued image must stay readable",
                    value=f"{row['file']} row {row['row']}: {row['error'] or 'the image is missing'}",
                    remedy="Put the file back, or run the stage catalogue again.",
                )
        return [content for content in contents if content is not None]

    def _from_cache(self, rows: pa.Table) -> NDArray[np.uint8]:
        assert self.pixels_uri is not None
        cache = PixelCache.open(
            self.pixels_uri,
            np.asarray(rows.column("fragment"), dtype=np.int32),
            np.asarray(rows.column("pixel_row"), dtype=np.int32),
        )
        return cache.take(np.arange(rows.num_rows))


def number_rows(rows: pa.Table) -> pa.Table:
    """Add the column position: the place of each row in the catalogue's order, which no resharding changes.

    What is found out block by block is put back by it.
    """
    return rows.append_column("position", pa.array(np.arange(rows.num_rows)))


def blocks_of(rows: pa.Table, max_rows: int) -> list[pa.Table]:
    """Cut catalogue rows into blocks of one fragment each, of at most `max_rows` rows, in a fixed order."""
    fragments = np.asarray(rows.column("fragment"))
    order = np.lexsort((np.asarray(rows.column("row")), fragments))
    borders = np.flatnonzero(np.diff(fragments[order])) + 1
    return [
        rows.take(pa.array(members[start : start + max_rows]))
        for members in np.split(order, borders)
        for start in range(0, len(members), max_rows)
    ]


def is_streamed(rows: pa.Table) -> bool:
    """Tell whether training samples are streamed: some of them are not cached."""
    return bool((np.asarray(rows.column("pixel_row")) < 0).any())


def streamed_blocks(rows: pa.Table) -> tuple[pa.Table, ...] | None:
    """Give the training samples as blocks to stream when they have to be."""
    return tuple(blocks_of(rows, BLOCK_ROWS)) if is_streamed(rows) else None
