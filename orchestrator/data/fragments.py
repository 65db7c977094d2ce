"""Describes the pieces of the input that tasks read one by one, and the rows that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

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


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """Name a piece of the input: a row group of a Parquet file, or some image files.

    `key` is the position in the listing, `files` are relative to the root, `first_row` counts from the start of
    the file. A file that cannot be opened is a fragment with an `error` and one bad row.
    """

    key: int
    format: Literal["parquet", "images"]
    files: tuple[str, ...]
    row_group: int | None
    first_row: int
    num_rows: int
    error: str | None


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


def make_broken_rows(fragment: Fragment, error: str, *, with_image: bool) -> pa.Table:
    """Make the rows of a fragment that cannot be read: all fields null, and the error."""
    count = fragment.num_rows
    rows = range(fragment.first_row, fragment.first_row + count)
    image = pa.nulls(count, pa.large_binary()) if with_image else None
    return make_rows([fragment.files[0]] * count, list(rows), {}, errors=[error] * count, image=image)


def positions_in(fragment: Fragment, rows: pa.Table) -> list[int]:
    """Give the places of catalogue rows in the fragment that they are of."""
    if fragment.format == "images":
        place = {file: index for index, file in enumerate(fragment.files)}
        return [place[file] for file in rows.column("file").to_pylist()]
    return [row - fragment.first_row for row in rows.column("row").to_pylist()]


def describe_failure(error: Exception) -> str:
    """Say in one line why a file cannot be read."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"the file cannot be read: {lines[0].rstrip('.')[:200]}"
