"""Lists the input in fragments and reads them, whatever the format."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import pyarrow as pa
from pyarrow import fs

from orchestrator import storage
from orchestrator.config import DataConfig, DataFormat
from orchestrator.data.folders import list_chunks, read_files
from orchestrator.data.fragments import Field, Fragment, make_broken_rows, number_fragments
from orchestrator.data.listing import Listing, find_root, list_input
from orchestrator.data.parquet import list_row_groups, read_row_group
from orchestrator.data.text_tables import list_line_ranges, read_lines
from orchestrator.data.webdataset import list_samples, read_samples
from orchestrator.errors import DataError

__all__ = ["Field", "Fragment", "list_fragments", "listing_digest", "read_fragment"]

_IMAGE_ALONE: tuple[Field, ...] = ("image",)


class _List(Protocol):
    """List the fragments of one format."""

    def __call__(
        self, listing: Listing, config: DataConfig, required: Collection[Field], file_system: fs.FileSystem, root: str
    ) -> list[Fragment]: ...


class _Read(Protocol):
    """Read a fragment of one format."""

    def __call__(
        self,
        fragment: Fragment,
        config: DataConfig,
        file_system: fs.FileSystem,
        root: str,
        *,
        with_image: bool,
        rows: Sequence[int] | None,
    ) -> pa.Table: ...


_FORMATS: Mapping[DataFormat, tuple[_List, _Read]] = {
    "parquet": (list_row_groups, read_row_group),
    "csv": (list_line_ranges, read_lines),
    "jsonl": (list_line_ranges, read_lines),
    "webdataset": (list_samples, read_samples),
    "images": (list_chunks, read_files),
}


def list_fragments(config: DataConfig, *, required: Collection[Field] = _IMAGE_ALONE) -> list[Fragment]:
    """List the input in fragments: rows of tables, samples of tars, or chunks of image files, ordered by path.

    `required` are the fields that must be given: image alone for prediction, image and label for a source task,
    image, label and subset for a catalogue. A link to a folder is not followed: it is a bad row. Raises ConfigError
    naming the field and the columns that there are, StorageError or DataError when there is nothing to read.
    """
    listing = list_input(config)
    file_system, root = find_root(config.uri)
    list_format, _ = _FORMATS[listing.format]
    fragments = list_format(listing, config, required, file_system, root)
    if not fragments:
        raise DataError(
            f"the {listing.format} files must hold rows", value=f"none in {config.uri}", remedy="Check data.uri."
        )
    return number_fragments([*fragments, *_left_out(listing)])


def _left_out(listing: Listing) -> list[Fragment]:
    """Make a bad row of everything that is not read, so that it is counted and named."""
    return [
        Fragment(format=listing.format, files=(path,), num_rows=1, error=reason) for path, reason in listing.left_out
    ]


def listing_digest(config: DataConfig) -> str:
    """Digest the path, size and time of change of every input file; no file is opened.

    Images that a table names are none of the input files: what replaces one under its old name goes unnoticed.
    """
    listing = list_input(config)
    files: list[tuple[object, ...]] = [(file.path, file.size, file.mtime_ns) for file in listing.files]
    return storage.digest(listing.format, [*files, *listing.left_out])


def read_fragment(
    fragment: Fragment, config: DataConfig, *, with_image: bool, rows: Sequence[int] | None = None
) -> pa.Table:
    """Read the needed columns of a fragment, or of the rows at the positions `rows` in it, in that order.

    Columns: file (relative to the root), row (int64, counted in the file; 0 for an image file), label, subset,
    split, id, together and error (strings, null where absent), and image (large_binary) with `with_image`, without
    which no image is read.
    What cannot be read becomes rows with an error, never an exception: but a store that goes on failing says nothing
    about a row, and raises UnavailableError.
    """
    file_system, root = find_root(config.uri)
    if fragment.error is not None:
        return make_broken_rows(fragment, fragment.error, with_image=with_image, rows=rows)
    _, read_format = _FORMATS[fragment.format]
    return read_format(fragment, config, file_system, root, with_image=with_image, rows=rows)
