"""Reads Parquet files: one fragment for each row group, and of that only the columns that are needed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import fs
from pyarrow import parquet as pq

from orchestrator.config import DataConfig
from orchestrator.data.fragments import (
    CONFIG_KEYS,
    WHOLE_SUBSET,
    Field,
    Fragment,
    describe_failure,
    make_broken_rows,
    make_rows,
)
from orchestrator.data.listing import Listing
from orchestrator.errors import ConfigError, DataError

# Listing waits for the store, not for the processor.
_FOOTER_THREADS = 16
# The last one: a file that is no longer what was listed lacks a row group or a column.
_READ_FAILURES = (OSError, pa.ArrowException, LookupError)


@dataclass(frozen=True)
class _Footer:
    """Hold what the end of a file says: its columns and the length of every row group, or why it cannot be read."""

    schema: pa.Schema
    row_counts: tuple[int, ...] = ()
    error: str | None = None


def list_row_groups(
    listing: Listing, config: DataConfig, required: Collection[Field], file_system: fs.FileSystem, root: str
) -> list[Fragment]:
    """Make a fragment of every row group, from the files' footers alone.

    A file that cannot be opened, or lacks a column that others have, is one fragment with an error. Raises
    ConfigError when a required field names no column, or when no file has a column that is named.
    """
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        footers = list(pool.map(lambda file: _read_footer(file_system, f"{root}/{file.path}"), listing.files))
    columns = _columns(config)
    readable = [footer.schema for footer in footers if footer.error is None]
    if readable:
        _check_columns(columns, required, readable)
    _check_identity(config)
    pieces = [
        piece
        for file, footer in zip(listing.files, footers, strict=True)
        for piece in _pieces(file.path, footer, columns.values())
    ]
    return [
        Fragment(
            key=key, format="parquet", files=(path,), row_group=group, first_row=first, num_rows=count, error=error
        )
        for key, (path, group, first, count, error) in enumerate(pieces)
    ]


def read_row_group(
    fragment: Fragment,
    config: DataConfig,
    file_system: fs.FileSystem,
    root: str,
    *,
    with_image: bool,
    rows: Sequence[int] | None,
) -> pa.Table:
    """Read the rows of a fragment, or those at the positions `rows` in it; see `sources.read_fragment`."""
    try:
        table = _read(fragment, config, file_system, root, with_image=with_image)
    except _READ_FAILURES as error:
        table = make_broken_rows(fragment, describe_failure(error), with_image=with_image)
    return table if rows is None else table.take(pa.array(rows, pa.int64()))


def read_text_columns(
    fragment: Fragment, file_system: fs.FileSystem, root: str, columns: Sequence[str]
) -> dict[str, pa.ChunkedArray]:
    """Read these columns of a fragment alone, as texts or dictionaries of texts; a file may lack some of them.

    Raises DataError saying why when the fragment cannot be read.
    """
    try:
        with file_system.open_input_file(f"{root}/{fragment.files[0]}") as stream:
            metadata = pq.read_metadata(stream)
            known = sorted(set(columns) & set(metadata.schema.to_arrow_schema().names))
            # What is stored as a dictionary stays one: its texts are then made once, not for every row.
            reader = pq.ParquetFile(stream, metadata=metadata, pre_buffer=True, read_dictionary=known)
            table = reader.read_row_group(fragment.row_group, columns=known, use_threads=False)
    except _READ_FAILURES as error:
        raise DataError(describe_failure(error)) from error
    return {name: _as_text_or_dictionary(table.column(name)) for name in known}


def known_columns(listing: Listing, file_system: fs.FileSystem, root: str) -> set[str]:
    """Give the columns that any of the files has."""
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        footers = pool.map(lambda file: _read_footer(file_system, f"{root}/{file.path}"), listing.files)
    return {name for footer in footers for name in footer.schema.names}


def _read_footer(file_system: fs.FileSystem, path: str) -> _Footer:
    try:
        with file_system.open_input_file(path) as stream:
            file = pq.ParquetFile(stream)
            groups = range(file.metadata.num_row_groups)
            return _Footer(file.schema_arrow, tuple(file.metadata.row_group(index).num_rows for index in groups))
    except (OSError, pa.ArrowException) as error:
        return _Footer(pa.schema([]), error=describe_failure(error))


def _pieces(
    path: str, footer: _Footer, columns: Collection[str]
) -> Iterator[tuple[str, int | None, int, int, str | None]]:
    missing = sorted(set(columns) - set(footer.schema.names))
    if footer.error is not None:
        yield path, None, 0, 1, footer.error
    elif missing:
        yield path, None, 0, sum(footer.row_counts), f"the file has no column {missing[0]}"
    else:
        first = 0
        for group, count in enumerate(footer.row_counts):
            if count:
                yield path, group, first, count, None
            first += count


def _columns(config: DataConfig) -> dict[Field, str]:
    """Give the column of every field that names one."""
    named: dict[Field, str | None] = {
        "image": config.image,
        "label": config.label,
        "subset": config.subset,
        "split": config.split.column,
        "id": config.id,
        "together": config.split.keep_together,
    }
    return {field: column for field, column in named.items() if column is not None}


def _check_columns(columns: dict[Field, str], required: Collection[Field], schemas: list[pa.Schema]) -> None:
    types = {entry.name: entry.type for schema in schemas for entry in schema}
    for field in CONFIG_KEYS:
        column = columns.get(field)
        if column is None and field not in required:
            continue
        if column not in types:
            raise ConfigError(
                f"{CONFIG_KEYS[field]} must name a column of the Parquet files",
                value=column or "nothing",
                remedy=_suggest(column, sorted(types)),
            )
        if field == "image" and not _holds_images(types[column]):
            raise ConfigError(
                "data.image must name a column of encoded images, binary or a struct with bytes",
                value=f"{column} of type {types[column]}",
                remedy="Name another column.",
            )
        if field != "image" and pa.types.is_nested(types[column]):
            raise ConfigError(
                f"{CONFIG_KEYS[field]} must name a column of texts, numbers or booleans",
                value=f"{column} of type {types[column]}",
                remedy="Name another column.",
            )


def _check_identity(config: DataConfig) -> None:
    if config.verify == "none" and config.id is None:
        raise ConfigError(
            "data.id must name a column when data.verify is none: the digest of an image needs the image",
            value="nothing",
            remedy="Name a column of unique values in data.id, or set data.verify to decode.",
        )


def _suggest(column: str | None, known: list[str]) -> str:
    close = difflib.get_close_matches(column or "", known, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"{hint}They have {', '.join(known) or 'none'}."


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(entry.name == "bytes" and _is_binary(entry.type) for entry in kind)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _read(
    fragment: Fragment, config: DataConfig, file_system: fs.FileSystem, root: str, *, with_image: bool
) -> pa.Table:
    columns = _columns(config)
    image_column = columns.pop("image", None)
    file = fragment.files[0]
    with file_system.open_input_file(f"{root}/{file}") as stream:
        reader = pq.ParquetFile(stream, pre_buffer=True)
        wanted = set(columns.values())
        if with_image and image_column is not None:
            is_struct = pa.types.is_struct(reader.schema_arrow.field(image_column).type)
            wanted.add(f"{image_column}.bytes" if is_struct else image_column)
        # One task has one processor: threads of its own would take others'.
        table = reader.read_row_group(fragment.row_group, columns=sorted(wanted), use_threads=False)
    texts = {field: _as_text(table.column(column)) for field, column in columns.items()}
    if config.subset is None:
        texts["subset"] = pa.array([WHOLE_SUBSET] * fragment.num_rows, pa.string())
    image = None
    if with_image:
        absent = pa.nulls(fragment.num_rows, pa.binary())
        image = absent if image_column is None else _image_bytes(table.column(image_column))
    numbers = range(fragment.first_row, fragment.first_row + fragment.num_rows)
    return make_rows([file] * fragment.num_rows, list(numbers), texts, image=image)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        # Whole numbers beside missing ones often come as floats, the missing ones as not-a-number.
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column.cast(pa.string())


def _as_text_or_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    is_encoded = pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type)
    return column if is_encoded else _as_text(column)


def _image_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
