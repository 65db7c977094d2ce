"""Describes the pieces of the input that tasks read one by one, and the rows that they give."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from orchestrator.config import DataFormat
from orchestrator.store_failures import first_line

Field = Literal["image", "label", "subset", "split", "id", "together"]

TEXT_FIELDS: tuple[Field, ...] = ("label", "subset", "split", "id", "together")

WHOLE_SUBSET = "all"
"""The subset of every sample where the data names no subsets."""

CONFIG_KEYS: Mapping[Field, str] = {
    "image": "data.image",
    "label": "data.label",
    "subset": "data.subset",
    "split": "data.split.column",
    "id": "data.id",
    "together": "data.split.keep_together",
}


# What pyarrow's errors of S3 begin with.
_PLACE_IN_STORE = re.compile(r"^When [^\n]*?: (?=AWS Error )")


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """Name a piece of the input: rows of a Parquet row group, lines of a text table, samples of a tar, image files.

    `key` is the position in the listing, `files` are relative to the root, `first_row` counts from the start of
    the file, where the bytes `start_byte` up to `end_byte` hold the lines or samples. What cannot be read at all is
    a fragment with an `error` and its bad rows; `row_errors` are rows, counted like `first_row`, whose fault only
    the whole file shows.
    """

    key: int = 0
    format: DataFormat
    files: tuple[str, ...]
    row_group: int | None = None
    first_row: int = 0
    num_rows: int
    error: str | None = None
    start_byte: int = 0
    end_byte: int = 0
    row_errors: tuple[tuple[int, str], ...] = ()


def number_fragments(fragments: Iterable[Fragment]) -> list[Fragment]:
    """Give every fragment its position in the listing as its key."""
    return [replace(fragment, key=key) for key, fragment in enumerate(fragments)]


def make_rows(
    files: pa.Array | Sequence[str],
    rows: Sequence[int],
    texts: Mapping[Field, pa.Array | pa.ChunkedArray],
    *,
    errors: Sequence[str | None] | None = None,
    image: pa.Array | pa.ChunkedArray | None = None,
) -> pa.Table:
    """Make the table that reading a fragment gives: file, row, the text fields, error, and image where given.

    Texts are strings, null where a field is absent; `row` is int64, `image` large_binary.
    """
    absent = pa.nulls(len(rows), pa.string())
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "file": pa.array(files, pa.string()),
        "row": pa.array(rows, pa.int64()),
        **{field: texts.get(field, absent) for field in TEXT_FIELDS},
        "error": absent if errors is None else pa.array(errors, pa.string()),
    }
    if image is not None:
        columns["image"] = image.cast(pa.large_binary())
    return pa.table(columns)


def make_broken_rows(
    fragment: Fragment, error: str, *, with_image: bool, rows: Sequence[int] | None = None
) -> pa.Table:
    """Make the rows of a fragment, or those at positions `rows`, that cannot be read: fields null, and the error."""
    positions = range(fragment.num_rows) if rows is None else rows
    count = len(positions)
    numbers = [fragment.first_row + position for position in positions]
    image = pa.nulls(count, pa.large_binary()) if with_image else None
    return make_rows([fragment.files[0]] * count, numbers, {}, errors=[error] * count, image=image)


def positions_in(fragment: Fragment, rows: pa.Table) -> list[int]:
    """Give the places of catalogue rows in the fragment that they are of."""
    if fragment.format == "images":
        place = {file: index for index, file in enumerate(fragment.files)}
        return [place[file] for file in rows.column("file").to_pylist()]
    return [row - fragment.first_row for row in rows.column("row").to_pylist()]


def describe_failure(error: Exception) -> str:
    """Say in one line why a file cannot be read, in the same words for every file: reasons are counted."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"the file cannot be read: {os.strerror(error.errno)}"
    reason = _PLACE_IN_STORE.sub("", first_line(error))
    return f"the file cannot be read: {reason.rstrip('.')[:200]}"
