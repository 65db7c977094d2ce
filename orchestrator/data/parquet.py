"""Reads Parquet files: one fragment for each row group, and of that only the columns that are needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import fs
from pyarrow import parquet as pq

from orchestrator.config import DataConfig
from orchestrator.data.columns import named_columns, require_columns, require_identity
from orchestrator.data.fragments import (
    CONFIG_KEYS,
    WHOLE_SUBSET,
    Field,
    Fragment,
    describe_failure,
    make_broken_rows,
    make_rows,
    number_fragments,
)
from orchestrator.data.image_files import ImageRoot, path_identities
from orchestrator.data.listing import Listing, for_each_file
from orchestrator.data.multi_label import field_text
from orchestrator.errors import ConfigError, DataError
from orchestrator.store_failures import patiently

PATHS_PER_FRAGMENT = 1024
"""The most image files that one fragment names; a row group that holds paths is cut into several."""

# The last one: a file that is no longer what was listed lacks a row group or a column.
_READ_FAILURES = (OSError, pa.ArrowException, LookupError)


@dataclass(frozen=True)
class _RowGroup:
    """Hold the number of rows of a row group, and whether their images are paths alone."""

    num_rows: int
    holds_paths: bool


@dataclass(frozen=True)
class _Footer:
    """Hold what the end of a file says: its columns and its row groups, or why it cannot be read."""

    schema: pa.Schema
    row_groups: tuple[_RowGroup, ...] = ()
    error: str | None = None


def list_row_groups(
    listing: Listing, config: DataConfig, required: Collection[Field], file_system: fs.FileSystem, root: str
) -> list[Fragment]:
    """Make a fragment of every row group, from the files' footers alone; of every 1,024 rows where they hold paths.

    A file that cannot be opened, or lacks a column that others have, is one fragment with an error. Raises
    ConfigError when a required field names no column, or when no file has a column that is named.
    """
    footers = for_each_file(listing, lambda file: _read_footer(file_system, f"{root}/{file.path}", config.image))
    columns = named_columns(config)
    readable = [footer.schema for footer in footers if footer.error is None]
    if readable:
        types = {entry.name: entry.type for schema in readable for entry in schema}
        require_columns(columns, required, types, what="a column of the Parquet files")
        _require_types(columns, types, lists_labels=config.is_multi_label)
        if not (config.image is not None and _is_text(types[config.image])):
            require_identity(config, remedy="Name a column of unique values in data.id")
    return number_fragments(
        fragment
        for file, footer in zip(listing.files, footers, strict=True)
        for fragment in _cut(file.path, footer, columns.values())
    )


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
    positions = range(fragment.num_rows) if rows is None else rows
    try:
        table = patiently(
            lambda: _read_columns(fragment, config, file_system, root, with_image=with_image), what=fragment.files[0]
        )
        if rows is not None:
            table = _chosen(table, rows)
        return _to_rows(fragment, config, table, positions, with_image=with_image)
    except _READ_FAILURES as error:
        return make_broken_rows(fragment, describe_failure(error), with_image=with_image, rows=rows)


def read_text_columns(
    fragment: Fragment, file_system: fs.FileSystem, root: str, columns: Sequence[str]
) -> dict[str, pa.ChunkedArray]:
    """Read these columns of a fragment alone, as texts or dictionaries of texts; a file may lack some of them.

    Raises DataError saying why when the fragment cannot be read, UnavailableError when the store does not answer.
    """

    def read() -> pa.Table:
        with file_system.open_input_file(f"{root}/{fragment.files[0]}") as stream:
            metadata = pq.read_metadata(stream)
            known = sorted(set(columns) & set(metadata.schema.to_arrow_schema().names))
            # What is stored as a dictionary stays one: its texts are then made once, not for every row.
            reader = pq.ParquetFile(stream, metadata=metadata, pre_buffer=True, read_dictionary=known)
            table = reader.read_row_group(fragment.row_group, columns=known, use_threads=False)
            return _rows_of(fragment, table, metadata).select(known)

    try:
        table = patiently(read, what=fragment.files[0])
    except _READ_FAILURES as error:
        raise DataError(describe_failure(error)) from error
    return {name: _as_text_or_dictionary(table.column(name)) for name in table.column_names}


def known_columns(listing: Listing, file_system: fs.FileSystem, root: str) -> set[str]:
    """Give the columns of texts, numbers or booleans that any of the files has."""
    footers = for_each_file(listing, lambda file: _read_footer(file_system, f"{root}/{file.path}", None))
    return {entry.name for footer in footers for entry in footer.schema if not pa.types.is_nested(entry.type)}


def _chosen(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """Give the rows at these positions, in slices: Arrow cannot gather out of more than 2 GiB of `binary`."""
    positions = np.asarray(rows, dtype=np.int64)
    runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
    return pa.concat_tables([table.slice(int(run[0]) if len(run) else 0, len(run)) for run in runs])


def _read_footer(file_system: fs.FileSystem, path: str, image: str | None) -> _Footer:
    def read() -> _Footer:
        with file_system.open_input_file(path) as stream:
            file = pq.ParquetFile(stream)
            schema = file.schema_arrow
            groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
            kind = schema.field(image).type if image in schema.names else pa.null()
            row_groups = tuple(_RowGroup(group.num_rows, _holds_paths(group, image, kind)) for group in groups)
            return _Footer(schema, row_groups)

    try:
        return patiently(read, what=path)
    except (OSError, pa.ArrowException) as error:
        return _Footer(pa.schema([]), error=describe_failure(error))


def _holds_paths(group: pq.RowGroupMetaData, image: str | None, kind: pa.DataType) -> bool:
    """Tell whether the images of a row group lie elsewhere; for structs, whether all their bytes are null."""
    if not pa.types.is_struct(kind):
        return _is_text(kind)
    chunks = (group.column(index) for index in range(group.num_columns))
    found = next((chunk for chunk in chunks if chunk.path_in_schema == f"{image}.bytes"), None)
    if found is None:
        return True
    statistics = found.statistics
    return statistics is not None and statistics.has_null_count and statistics.null_count == group.num_rows


def _cut(path: str, footer: _Footer, columns: Collection[str]) -> Iterator[Fragment]:
    num_rows = sum(group.num_rows for group in footer.row_groups)
    missing = sorted(set(columns) - set(footer.schema.names))
    if footer.error is not None:
        yield Fragment(format="parquet", files=(path,), num_rows=1, error=footer.error)
    elif missing:
        error = f"the file has no column {missing[0]}"
        yield Fragment(format="parquet", files=(path,), num_rows=num_rows, error=error)
    else:
        first = 0
        for index, group in enumerate(footer.row_groups):
            end, step = first + group.num_rows, PATHS_PER_FRAGMENT if group.holds_paths else max(1, group.num_rows)
            for row in range(first, end, step):
                count = min(step, end - row)
                yield Fragment(format="parquet", files=(path,), row_group=index, first_row=row, num_rows=count)
            first = end


def _require_types(columns: Mapping[Field, str], types: Mapping[str, pa.DataType], *, lists_labels: bool) -> None:
    for field, column in columns.items():
        kind = types[column]
        if field == "image" and not (_is_binary(kind) or _is_text(kind) or _is_image_struct(kind)):
            raise ConfigError(
                "data.image must name a column of encoded images, structs of bytes and path, or paths",
                value=f"{column} of type {kind}",
                remedy="Name another column.",
            )
        if field == "label" and lists_labels and _is_list(kind):
            continue
        if field != "image" and pa.types.is_nested(kind):
            raise ConfigError(
                f"{CONFIG_KEYS[field]} must name a column of texts, numbers or booleans",
                value=f"{column} of type {kind}",
                remedy="Name another column.",
            )


def _is_list(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list) and not pa.types.is_nested(kind.value_type)


def _is_image_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(
        (entry.name == "bytes" and _is_binary(entry.type)) or (entry.name == "path" and _is_text(entry.type))
        for entry in kind
    )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _read_columns(
    fragment: Fragment, config: DataConfig, file_system: fs.FileSystem, root: str, *, with_image: bool
) -> pa.Table:
    """Read the needed columns of a fragment's rows. Raises one of _READ_FAILURES."""
    columns = named_columns(config)
    image = columns.pop("image", None)
    with file_system.open_input_file(f"{root}/{fragment.files[0]}") as stream:
        reader = pq.ParquetFile(stream, pre_buffer=True)
        wanted = set(columns.values())
        # The path of an image is its identity where no column is.
        is_identity = image is not None and config.id is None and _is_text(reader.schema_arrow.field(image).type)
        if image is not None and (with_image or is_identity):
            wanted.add(image)
        # One task has one processor: threads of its own would take others'.
        table = reader.read_row_group(fragment.row_group, columns=sorted(wanted), use_threads=False)
        return _rows_of(fragment, table, reader.metadata).select(sorted(wanted))


def _rows_of(fragment: Fragment, row_group: pa.Table, metadata: pq.FileMetaData) -> pa.Table:
    """Cut a fragment's rows out of its row group. Raises LookupError when they are not there any more."""
    earlier = sum(metadata.row_group(index).num_rows for index in range(fragment.row_group or 0))
    rows = row_group.slice(fragment.first_row - earlier, fragment.num_rows)
    if rows.num_rows != fragment.num_rows:
        raise LookupError("the file has changed since it was listed")
    return rows


def _to_rows(
    fragment: Fragment, config: DataConfig, table: pa.Table, positions: Sequence[int], *, with_image: bool
) -> pa.Table:
    """Turn the read columns into the rows of a fragment, and read the images that they name."""
    columns = named_columns(config)
    image_column = columns.pop("image", None)
    count = len(positions)
    label = columns.pop("label", None)
    texts = {field: _as_text(table.column(column)) for field, column in columns.items()}
    errors: list[str | None] | None = None
    if label is not None:
        texts["label"], errors = _labels(table.column(label), label, config)
    if config.subset is None:
        texts["subset"] = pa.array([WHOLE_SUBSET] * count, pa.string())
    contents = paths = None
    if image_column in table.column_names:
        contents, paths = _images(table.column(image_column))
    if config.id is None and paths is not None:
        texts["id"] = pa.array(path_identities(paths.to_pylist(), config), pa.string())
    image = None
    if with_image:
        image = pa.nulls(count, pa.large_binary()) if contents is None else contents
        if paths is not None and paths.null_count < count:
            named, failures = ImageRoot.of(config).read(paths.to_pylist())
            image = pc.coalesce(image, named)
            errors = failures if errors is None else [one or other for one, other in zip(errors, failures, strict=True)]
    rows = [fragment.first_row + position for position in positions]
    return make_rows([fragment.files[0]] * count, rows, texts, errors=errors, image=image)


def _labels(
    column: pa.ChunkedArray, name: str, config: DataConfig
) -> tuple[pa.ChunkedArray | pa.Array, list[str | None] | None]:
    """Give the labels of rows as texts, and why a list of them is bad or None; there are lists in some data alone."""
    if not _is_list(column.type):
        return _as_text(column), None
    texts: list[str | None] = []
    errors: list[str | None] = []
    for labels in column.to_pylist():
        try:
            texts.append(field_text("label", labels, name, config))
            errors.append(None)
        except DataError as error:
            texts.append(None)
            errors.append(str(error))
    return pa.array(texts, pa.string()), errors


def _images(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, pa.ChunkedArray | None]:
    """Give the bytes and the paths that a column of images holds; None where it has none, no path beside bytes."""
    if _is_text(column.type):
        return None, _as_text(column)
    if not pa.types.is_struct(column.type):
        return column.cast(pa.large_binary()), None
    names = [entry.name for entry in column.type]
    contents = pc.struct_field(column, "bytes").cast(pa.large_binary()) if "bytes" in names else None
    if "path" not in names:
        return contents, None
    paths = _as_text(pc.struct_field(column, "path"))
    is_needed = pa.scalar(True) if contents is None else pc.is_null(contents)
    return contents, pc.if_else(is_needed, paths, pa.scalar(None, pa.string()))


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        # Whole numbers beside missing ones often come as floats, the missing ones as not-a-number.
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        texts = column.cast(pa.string())
        texts.validate(full=True)
        return texts
    except pa.ArrowInvalid:
        return _valid_texts(column)


def _valid_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read texts one by one, null where one is no UTF-8: it costs its row, not the row group."""
    texts: list[str | None] = []
    for content in column.cast(pa.large_binary()).to_pylist():
        try:
            texts.append(None if content is None else content.decode())
        except UnicodeDecodeError:
            texts.append(None)
    return pa.chunked_array([texts], pa.string())


def _as_text_or_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    is_encoded = pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type)
    return column if is_encoded and _holds_unicode(column) else _as_text(column)


def _holds_unicode(column: pa.ChunkedArray) -> bool:
    try:
        for chunk in column.chunks:
            chunk.dictionary.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
