"""Reads CSV and JSON Lines: tables of a row a line, whose image column names files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import fs

from orchestrator.config import DataConfig, DataFormat
from orchestrator.data.columns import named_columns, require_columns, require_identity
from orchestrator.data.fragments import (
    TEXT_FIELDS,
    WHOLE_SUBSET,
    Field,
    Fragment,
    describe_failure,
    make_broken_rows,
    make_rows,
    number_fragments,
)
from orchestrator.data.image_files import ImageRoot, path_identities
from orchestrator.data.listing import InputFile, Listing, for_each_file
from orchestrator.data.multi_label import field_text
from orchestrator.errors import DataError
from orchestrator.store_failures import patiently

ROWS_PER_FRAGMENT = 1024

_READ_FAILURES = (OSError, pa.ArrowException, DataError)


@dataclass(frozen=True)
class _Header:
    """Hold the column names of a CSV file, None for JSON Lines, and where its rows begin."""

    names: tuple[str, ...] | None
    delimiter: str
    end_byte: int


@dataclass(frozen=True)
class _TextTable:
    """Hold the rows of a file in fragments, and the columns that they have; none where it cannot be read."""

    names: frozenset[str]
    fragments: tuple[Fragment, ...]


def list_line_ranges(
    listing: Listing, config: DataConfig, required: Collection[Field], file_system: fs.FileSystem, root: str
) -> list[Fragment]:
    """Make a fragment of every 1,024 rows, from one pass over the files' lines.

    A row is a line that is not blank: values hold no line breaks. A CSV file that lacks a column that others have
    is bad as a whole; the keys of JSON Lines are those of the first fragment of each file. Raises ConfigError when
    a required field names no column, or when no file has a column that is named.
    """

    def read(file: InputFile) -> _TextTable:
        return _list_file(file_system, root, file.path, listing.format, columns.values())

    columns = named_columns(config)
    tables = for_each_file(listing, read)
    if any(table.names for table in tables):
        known = frozenset[str]().union(*(table.names for table in tables))
        require_columns(columns, required, known, what=f"a column of the {listing.format} files")
        if config.image is None:
            require_identity(config, remedy="Name a column of unique values in data.id")
    return number_fragments(fragment for table in tables for fragment in table.fragments)


def read_lines(
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
        described = patiently(
            lambda: _read_texts(fragment, config, file_system, root, positions), what=fragment.files[0]
        )
    except _READ_FAILURES as error:
        return make_broken_rows(fragment, describe_failure(error), with_image=with_image, rows=rows)
    errors = [error for _, error in described]
    if config.id is None:
        identities = path_identities([texts.get("image") for texts, _ in described], config)
        described = [
            ({**texts, "id": found}, error) for (texts, error), found in zip(described, identities, strict=True)
        ]
    image = None
    if with_image:
        image, failures = ImageRoot.of(config).read([texts.get("image") for texts, _ in described])
        errors = [error or failure for error, failure in zip(errors, failures, strict=True)]
    texts = {field: pa.array([found.get(field) for found, _ in described], pa.string()) for field in TEXT_FIELDS}
    numbers = [fragment.first_row + position for position in positions]
    return make_rows([fragment.files[0]] * len(numbers), numbers, texts, errors=errors, image=image)


def _list_file(
    file_system: fs.FileSystem, root: str, path: str, format: DataFormat, columns: Collection[str]
) -> _TextTable:
    def scan() -> tuple[_Header, tuple[Fragment, ...], Collection[str]]:
        with file_system.open_input_file(f"{root}/{path}") as stream:
            lines = io.BufferedReader(stream)
            header = _read_header(lines, path, format)
            fragments = tuple(_cut(lines, header.end_byte, path, format))
            names = header.names if header.names is not None else _keys(stream, header, fragments[:1])
        return header, fragments, names

    try:
        header, fragments, names = patiently(scan, what=path)
    except _READ_FAILURES as error:
        return _TextTable(frozenset(), (_broken(path, format, 1, describe_failure(error)),))
    fault = _fault(header.names, columns) if header.names is not None else None
    if fault is not None:
        num_rows = sum(fragment.num_rows for fragment in fragments)
        fragments = (_broken(path, format, num_rows, fault),) if num_rows else ()
    return _TextTable(frozenset(names), fragments)


def _broken(path: str, format: DataFormat, num_rows: int, error: str) -> Fragment:
    return Fragment(format=format, files=(path,), num_rows=num_rows, error=error)


def _fault(names: Sequence[str], columns: Collection[str]) -> str | None:
    """Say which of the needed columns is not there once, None when all are."""
    for column in sorted(set(columns)):
        if names.count(column) != 1:
            return f"the file has {'two columns' if column in names else 'no column'} {column}"
    return None


def _read_header(lines: io.BufferedReader, path: str, format: DataFormat) -> _Header:
    if format == "jsonl":
        return _Header(None, "", 0)
    end = 0
    for line in lines:
        end += len(line)
        if line.strip():
            delimiter = _delimiter(line, path)
            return _Header(tuple(_split(line, delimiter)), delimiter, end)
    return _Header((), ",", end)


def _delimiter(header: bytes, path: str) -> str:
    """Tell what parts fields: a tab in .tsv; in .csv a comma, or what spreadsheets write where it marks decimals."""
    if path.lower().endswith(".tsv"):
        return "\t"
    return next((mark for mark in (",", ";", "\t") if mark.encode() in header), ",")


def _cut(lines: Iterable[bytes], start: int, path: str, format: DataFormat) -> Iterator[Fragment]:
    first, count, end = 0, 0, start
    for line in lines:
        end += len(line)
        count += bool(line.strip())
        if count == ROWS_PER_FRAGMENT:
            yield Fragment(
                format=format, files=(path,), first_row=first, num_rows=count, start_byte=start, end_byte=end
            )
            first, count, start = first + count, 0, end
    if count:
        yield Fragment(format=format, files=(path,), first_row=first, num_rows=count, start_byte=start, end_byte=end)


def _keys(stream: pa.NativeFile, header: _Header, fragments: Sequence[Fragment]) -> set[str]:
    names: set[str] = set()
    for fragment in fragments:
        for line in _lines(stream, fragment):
            try:
                names.update(_parse(line, header))
            except DataError:
                # The row is bad, and counted when it is read.
                continue
    return names


def _read_texts(
    fragment: Fragment, config: DataConfig, file_system: fs.FileSystem, root: str, positions: Sequence[int]
) -> list[tuple[dict[Field, str | None], str | None]]:
    """Read the fields of rows, the path of the image among them, and why a row is bad or None."""
    path = fragment.files[0]
    with file_system.open_input_file(f"{root}/{path}") as stream:
        # Kept until the lines are read: a reader that is forgotten closes what it reads.
        beginning = io.BufferedReader(stream)
        header = _read_header(beginning, path, fragment.format)
        lines = _lines(stream, fragment)
    columns = named_columns(config)
    return [_describe(lines[position], header, columns, config) for position in positions]


def _lines(stream: pa.NativeFile, fragment: Fragment) -> list[bytes]:
    content: bytes = stream.read_at(fragment.end_byte - fragment.start_byte, fragment.start_byte)
    lines = [line for line in content.split(b"\n") if line.strip()]
    if len(lines) != fragment.num_rows:
        raise DataError("the file has changed since it was listed")
    return lines


def _describe(
    line: bytes, header: _Header, columns: Mapping[Field, str], config: DataConfig
) -> tuple[dict[Field, str | None], str | None]:
    try:
        row = _parse(line, header)
        texts = {field: field_text(field, row.get(column), column, config) for field, column in columns.items()}
    except DataError as error:
        return {}, str(error)
    if config.subset is None:
        texts["subset"] = WHOLE_SUBSET
    return texts, None


def _parse(line: bytes, header: _Header) -> dict[str, Any]:
    # Line by line: pyarrow's readers take a text such as 2024-01-01 for a date, end a block at its first bad line,
    # and let an open quote swallow the lines that follow.
    if header.names is None:
        return _parse_object(line)
    values = _split(line, header.delimiter)
    if len(values) != len(header.names):
        raise DataError(f"the line has {len(values)} fields, the header {len(header.names)}")
    return dict(zip(header.names, values, strict=True))


def _split(line: bytes, delimiter: str) -> list[str]:
    try:
        return next(csv.reader((_decode(line),), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"the line is not CSV: {error}") from error


def _parse_object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(_decode(line))
    except (ValueError, RecursionError) as error:
        raise DataError("the line is not JSON") from error
    if not isinstance(row, dict):
        raise DataError("the line is no JSON object")
    return row


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError("the line is not UTF-8") from error
