"""Makes the table of an image folder's files that experiments read instead of listing the folder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import fs
from pyarrow import parquet as pq

from orchestrator import storage
from orchestrator.data.folders import FILES_PER_FRAGMENT
from orchestrator.data.listing import IMAGE_SUFFIXES
from orchestrator.data.templates import PathTemplate
from orchestrator.errors import ConfigError, StorageError, UnavailableError

MOST_ROW_GROUPS = 10_000
"""Of an index: whoever reads a part of it reads the footer, which grows with them."""

LEFT_OUT_SCHEMA = pa.schema([("path", pa.string()), ("size", pa.int64()), ("reason", pa.string())])

_OWN_COLUMNS = {"path": pa.string(), "size": pa.int64(), "mtime_ns": pa.int64()}
_SUFFIX = ".parquet"


@dataclass(frozen=True, eq=False)
class IndexPart:
    """Hold what some folders have: their images (`index_schema`), other files (LEFT_OUT_SCHEMA), unopened folders."""

    images: pa.Table
    left_out: pa.Table
    unopened: tuple[str, ...]


def index_schema(template: PathTemplate) -> pa.Schema:
    """Give the columns of an index: path, a text for each placeholder but `name`, size in bytes, mtime_ns.

    Raises ConfigError when a placeholder has the name of another column.
    """
    fields = [field for field in template.fields if field != "name"]
    taken = sorted(set(fields) & set(_OWN_COLUMNS))
    if taken:
        raise ConfigError(
            f"the template of an index must not name {', '.join(_OWN_COLUMNS)}: its columns have those names",
            value=template.text,
            remedy=f"Write another word for {{{taken[0]}}}.",
        )
    (path, *others) = _OWN_COLUMNS.items()
    return pa.schema([path, *((field, pa.string()) for field in fields), *others])


def index_folders(
    uri: str, folders: Iterable[str], template: PathTemplate, *, most_files: int, most_folders: int
) -> IndexPart:
    """Index the files of folders below `uri` and of those below them, breadth first.

    Opens at most `most_folders`, and none once it has seen `most_files` files, and gives back those that are left;
    folders are relative to `uri`, "" is itself. A folder below that cannot be listed is left out with its reason, and
    so is a link to one; hidden files and folders are passed over, as in every listing. Raises StorageError when `uri`
    itself cannot be listed, UnavailableError when the store does not answer.
    """
    waiting = deque(folders)
    images: list[dict[str, object]] = []
    left_out: list[dict[str, object]] = []
    for _ in range(most_folders):
        if not waiting or len(images) + len(left_out) >= most_files:
            break
        folder = waiting.popleft()
        try:
            entries = storage.list_entries(storage.join(uri, folder) if folder else uri)
        except UnavailableError:
            raise
        except StorageError as error:
            if not folder:
                raise
            left_out.append({"path": folder, "reason": f"the folder cannot be listed: {error.remedy}"})
            continue
        below = f"{folder}/" if folder else ""
        waiting.extend(f"{below}{name}" for name in entries.folders)
        left_out.extend({"path": f"{below}{name}", "reason": reason} for name, reason in entries.left_out.items())
        for file in entries.files:
            _sort_in(f"{below}{file.base_name}", file, template, images, left_out)
    return IndexPart(
        pa.Table.from_pylist(images, schema=index_schema(template)),
        pa.Table.from_pylist(left_out, schema=LEFT_OUT_SCHEMA),
        tuple(waiting),
    )


def _sort_in(
    path: str,
    entry: fs.FileInfo,
    template: PathTemplate,
    images: list[dict[str, object]],
    left_out: list[dict[str, object]],
) -> None:
    """Add a file to the images, or to what is left out with the reason."""
    size = int(entry.size or 0)
    found = template.match(path)
    if PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
        left_out.append({"path": path, "size": size, "reason": "the file has no suffix of an image"})
    elif found is None:
        left_out.append({"path": path, "size": size, "reason": f"the path does not match {template.text}"})
    else:
        images.append({**found, "path": path, "size": size, "mtime_ns": int(entry.mtime_ns or 0)})


def check_index_uri(uri: str) -> None:
    """Require a name by which the input is known for Parquet. Raises ConfigError."""
    if not uri.endswith(_SUFFIX):
        raise ConfigError(f"the name of an index must end in {_SUFFIX}", value=uri, remedy="Name another file.")


def left_out_uri(uri: str) -> str:
    """Name the table beside an index that lists the files which are not in it.

    The underscore hides it where the folder is read as data.
    """
    folder, _, name = uri.rpartition("/")
    return f"{folder}/_{name.removesuffix(_SUFFIX)}.left-out{_SUFFIX}"


def write_left_out(uri: str, left_out: pa.Table) -> None:
    """Write the table beside an index of what is not in it, ordered by path; where that is nothing, there is none."""
    if left_out.num_rows:
        storage.write_table(left_out_uri(uri), left_out.sort_by("path"))
    else:
        storage.delete(left_out_uri(uri))


def write_index(uri: str, images: pa.Table) -> None:
    """Write an index ordered by path, whole or not at all.

    A row group has as many rows as a fragment of an image folder, or more where there would be too many groups.
    """
    storage.write_bytes(uri, _encode(images))


def _encode(table: pa.Table) -> bytes:
    # The offsets of plain strings end at 2 GiB, which the paths of some ten million files reach: sorted as large ones.
    large = [
        (field.name, pa.large_string() if pa.types.is_string(field.type) else field.type) for field in table.schema
    ]
    whole = table.cast(pa.schema(large)).combine_chunks()
    order = pc.sort_indices(whole, sort_keys=[("path", "ascending")])
    rows_per_group = max(FILES_PER_FRAGMENT, -(-table.num_rows // MOST_ROW_GROUPS))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_statistics=False) as writer:
        for start in range(0, table.num_rows, rows_per_group):
            writer.write_table(whole.take(order.slice(start, rows_per_group)).cast(table.schema))
    return bytes(sink.getvalue())


def describe_index(uri: str, folder_uri: str, template: PathTemplate) -> dict[str, object]:
    """Give the section `data` of an experiment file that reads an index.

    The path identifies an image, as it does where the folder itself is read: the splits are the same.
    """
    named = [field for field in ("label", "subset") if field in template.fields]
    section: dict[str, object] = {"uri": uri, "image": "path", "image_root": folder_uri, "id": "path"}
    section |= {field: field for field in named}
    if "split" in template.fields:
        section["split"] = {"column": "split"}
    return section
