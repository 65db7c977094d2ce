"""Reads tar shards in WebDataset's layout: the entries of a sample share a key and differ by extension."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs

from orchestrator.config import DataConfig
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
from orchestrator.data.listing import IMAGE_SUFFIXES, InputFile, Listing, for_each_file
from orchestrator.data.multi_label import field_text
from orchestrator.data.tar_index import TarEntry, TarSample, scan_samples
from orchestrator.data.templates import PathTemplate, placeholders, read_path
from orchestrator.errors import DataError
from orchestrator.store_failures import patiently

KEY = "__key__"
"""The name of a sample's key where a field is read from it."""

SAMPLES_PER_FRAGMENT = 1024
BYTES_PER_FRAGMENT = 64 * 2**20

# A column of this name is what other formats often have: here it stands for the sample's only image.
_ANY_IMAGE = (None, "image")
# How many samples say which entries and fields there are.
_NUM_SHOWN = 64
_MAX_TEXT_BYTES = 16 * 2**20
_READ_FAILURES = (OSError, pa.ArrowException, DataError)


def list_samples(
    listing: Listing, config: DataConfig, required: Collection[Field], file_system: fs.FileSystem, root: str
) -> list[Fragment]:
    """Make a fragment of every 1,024 samples or 64 MiB of a tar, from the headers of its entries alone.

    Samples whose entries do not stand together are bad rows; where a tar is cut off or damaged, the rest of it is
    one bad row. Raises ConfigError when a required field names nothing, or what none of the first samples has.
    """
    tars = for_each_file(listing, lambda file: _list_tar(file_system, root, file))
    fragments = number_fragments(fragment for tar in tars for fragment in tar)
    shown = next((fragment for fragment in fragments if fragment.error is None), None)
    if shown is not None:
        _require_names(shown, config, required, file_system, root)
    return fragments


def read_samples(
    fragment: Fragment,
    config: DataConfig,
    file_system: fs.FileSystem,
    root: str,
    *,
    with_image: bool,
    rows: Sequence[int] | None,
) -> pa.Table:
    """Read the samples of a fragment, or those at the positions `rows` in it; see `sources.read_fragment`.

    All of them with images come from one read of the tar; otherwise headers are read, and the entries needed.
    """
    positions = range(fragment.num_rows) if rows is None else rows

    def read() -> list[tuple[dict[Field, str | None], bytes | None, str | None]]:
        with file_system.open_input_file(f"{root}/{fragment.files[0]}") as stream:
            start, end = fragment.start_byte, fragment.end_byte
            # An entry that is refused for its size would make the range too large to be read at once.
            if with_image and rows is None and end - start <= 2 * BYTES_PER_FRAGMENT:
                stream, start, end = io.BytesIO(stream.read_at(end - start, start)), 0, end - start
            samples = list(scan_samples(stream, start, end))
            if len(samples) != fragment.num_rows:
                raise DataError("the file has changed since it was listed")
            return [_read_sample(stream, samples[position], config, with_image=with_image) for position in positions]

    try:
        found = patiently(read, what=fragment.files[0])
    except _READ_FAILURES as error:
        return make_broken_rows(fragment, describe_failure(error), with_image=with_image, rows=rows)
    return _to_rows(fragment, config, positions, found, with_image=with_image)


def _list_tar(file_system: fs.FileSystem, root: str, file: InputFile) -> list[Fragment]:
    places: list[tuple[int, int]] = []
    rows_of: dict[str, list[int]] = {}
    damage = None

    def scan() -> None:
        places.clear()
        rows_of.clear()
        with file_system.open_input_file(f"{root}/{file.path}") as stream:
            for sample in scan_samples(stream, 0, None):
                rows_of.setdefault(sample.key, []).append(len(places))
                places.append((sample.start, sample.end))

    try:
        patiently(scan, what=file.path)
    except _READ_FAILURES as error:
        damage = describe_failure(error)
    unordered = {
        row: f"the entries of {key[:100]} do not stand together in the tar"
        for key, rows in rows_of.items()
        if len(rows) > 1
        for row in rows
    }
    fragments = list(_cut(file.path, places, unordered))
    if damage is not None:
        first = len(places)
        fragments.append(Fragment(format="webdataset", files=(file.path,), first_row=first, num_rows=1, error=damage))
    return fragments


def _cut(path: str, places: Sequence[tuple[int, int]], errors: Mapping[int, str]) -> Iterator[Fragment]:
    first = 0
    for row, (_, end) in enumerate(places):
        start = places[first][0]
        is_full = row + 1 - first == SAMPLES_PER_FRAGMENT or end - start >= BYTES_PER_FRAGMENT
        if not is_full and row + 1 < len(places):
            continue
        yield Fragment(
            format="webdataset",
            files=(path,),
            first_row=first,
            num_rows=row + 1 - first,
            start_byte=start,
            end_byte=end,
            row_errors=tuple((bad, errors[bad]) for bad in range(first, row + 1) if bad in errors),
        )
        first = row + 1


def _require_names(
    fragment: Fragment, config: DataConfig, required: Collection[Field], file_system: fs.FileSystem, root: str
) -> None:
    """Check the names in the configuration against the entries and JSON fields of the first samples."""
    known = {KEY}

    def look() -> None:
        with file_system.open_input_file(f"{root}/{fragment.files[0]}") as stream:
            # Found before any is read: both move the stream.
            shown = list(islice(scan_samples(stream, fragment.start_byte, fragment.end_byte), _NUM_SHOWN))
            for sample in (sample for sample in shown if sample.error is None):
                known.update(sample.entries)
                try:
                    known.update(_read_json(stream, sample))
                except DataError:
                    # The row is bad, and counted when it is read.
                    continue

    patiently(look, what=fragment.files[0])
    in_path = PathTemplate(config.path).fields if config.path is not None else ()
    given: set[Field] = {field for field, name in placeholders(config).items() if name in in_path}
    if config.image in _ANY_IMAGE:
        given.add("image")
    named = {field: name for field, name in named_columns(config).items() if field not in given}
    require_columns(named, set(required) - given, known, what="an entry of the samples or a field of their JSON")
    require_identity(config, remedy=f"Name an entry, a field or {KEY} in data.id")


def _read_sample(
    stream: Any, sample: TarSample, config: DataConfig, *, with_image: bool
) -> tuple[dict[Field, str | None], bytes | None, str | None]:
    """Read the text fields and the image of a sample, and why it is bad or None."""
    if sample.error is not None:
        return {}, None, sample.error
    try:
        texts = _read_texts(stream, sample, config)
        image = _image_entry(sample, config) if with_image else None
        return texts, None if image is None else _read_entry(stream, image), None
    except DataError as error:
        return {}, None, str(error)


def _read_texts(stream: Any, sample: TarSample, config: DataConfig) -> dict[Field, str | None]:
    columns = named_columns(config)
    columns.pop("image", None)
    fields: dict[str, Any] = {KEY: sample.key}
    for name in columns.values():
        if name in sample.entries:
            fields[name] = _read_text(stream, sample.entries[name], name).strip()
    if any(name not in fields for name in columns.values()):
        fields = {**_read_json(stream, sample), **fields}
    return {field: field_text(field, fields.get(name), name, config) for field, name in columns.items()}


def _image_entry(sample: TarSample, config: DataConfig) -> TarEntry | None:
    if config.image not in _ANY_IMAGE:
        return sample.entries.get(str(config.image))
    images = [name for name in sample.entries if PurePosixPath(f"_.{name}").suffix in IMAGE_SUFFIXES]
    if len(images) > 1:
        raise DataError(f"the sample has several images, name one in data.image: {', '.join(sorted(images))}")
    return sample.entries[images[0]] if images else None


def _read_json(stream: Any, sample: TarSample) -> dict[str, Any]:
    if "json" not in sample.entries:
        return {}
    try:
        fields = json.loads(_read_text(stream, sample.entries["json"], "json"))
    except (ValueError, RecursionError) as error:
        raise DataError("the entry json is not JSON") from error
    if not isinstance(fields, dict):
        raise DataError("the entry json is no JSON object")
    return fields


def _read_text(stream: Any, entry: TarEntry, name: str) -> str:
    if entry.size > _MAX_TEXT_BYTES:
        raise DataError(f"the entry {name} has {entry.size} bytes, more than {_MAX_TEXT_BYTES}")
    try:
        return _read_entry(stream, entry).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the entry {name} is not UTF-8") from error


def _read_entry(stream: Any, entry: TarEntry) -> bytes:
    stream.seek(entry.start)
    content: bytes = stream.read(entry.size)
    return content


def _to_rows(
    fragment: Fragment,
    config: DataConfig,
    positions: Sequence[int],
    read: Sequence[tuple[dict[Field, str | None], bytes | None, str | None]],
    *,
    with_image: bool,
) -> pa.Table:
    file = fragment.files[0]
    rows = [fragment.first_row + position for position in positions]
    in_path = {} if config.path is None else read_path(file, PathTemplate(config.path), config)
    known_errors = dict(fragment.row_errors)
    errors = [known_errors.get(row, error) for row, (_, _, error) in zip(rows, read, strict=True)]
    if in_path is None:
        errors = [error or f"the path does not match {config.path}" for error in errors]
    shared: dict[Field, str] = {"subset": WHOLE_SUBSET} if config.subset is None else {}
    shared.update(in_path or {})
    texts = {
        field: pa.array([shared.get(field, found.get(field)) for found, _, _ in read], pa.string())
        for field in TEXT_FIELDS
    }
    image = pa.array([content for _, content, _ in read], pa.large_binary()) if with_image else None
    return make_rows([file] * len(rows), rows, texts, errors=errors, image=image)
