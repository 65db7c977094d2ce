"""Lists the input in fragments and reads them, whatever the format."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from orchestrator import storage
from orchestrator.config import DataConfig
from orchestrator.data.folders import list_chunks, read_files
from orchestrator.data.fragments import Field, Fragment, make_broken_rows
from orchestrator.data.listing import find_root, list_input
from orchestrator.data.parquet import list_row_groups, read_row_group
from orchestrator.errors import DataError

__all__ = ["Field", "Fragment", "list_fragments", "listing_digest", "read_fragment"]

_IMAGE_ALONE: tuple[Field, ...] = ("image",)


def list_fragments(config: DataConfig, *, required: Collection[Field] = _IMAGE_ALONE) -> list[Fragment]:
    """List the input in fragments: row groups of Parquet files, or chunks of image files, ordered by path.

    `required` are the fields that must be given: image alone for prediction, image and label for a source task,
    image, label and subset for a catalogue. Raises ConfigError naming the field and the columns that there are,
    StorageError or DataError when there is nothing to read.
    """
    listing = list_input(config)
    if listing.format == "images":
        return list_chunks(listing, config, required)
    file_system, root = find_root(config.uri)
    fragments = list_row_groups(listing, config, required, file_system, root)
    if not fragments:
        raise DataError("the Parquet files must hold rows", value=f"none in {config.uri}", remedy="Check data.uri.")
    return fragments


def listing_digest(config: DataConfig) -> str:
    """Digest the path, size and time of change of every input file; no file is opened."""
    listing = list_input(config)
    return storage.digest(listing.format, [(file.path, file.size, file.mtime_ns) for file in listing.files])


def read_fragment(
    fragment: Fragment, config: DataConfig, *, with_image: bool, rows: Sequence[int] | None = None
) -> pa.Table:
    """Read the needed columns of a fragment, or of the rows at the positions `rows` in it, in that order.

    Columns: file (relative to the root), row (int64, counted in the file; 0 for an image file), label, subset,
    split, id, together and error (strings, null where absent), and image (large_binary) with `with_image`.
    What cannot be read becomes rows with an error, never an exception.
    """
    file_system, root = find_root(config.uri)
    if fragment.error is not None:
        table = make_broken_rows(fragment, fragment.error, with_image=with_image)
        return table if rows is None else table.take(pa.array(rows, pa.int64()))
    read = read_files if fragment.format == "images" else read_row_group
    return read(fragment, config, file_system, root, with_image=with_image, rows=rows)
