"""Reads and writes whole files on local disks and object stores, through pyarrow's file systems."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs, parquet

from orchestrator.errors import StorageError

ONE_NPY_HEADER = Lock()
"""Hold it while a header of .npy is read: headers are literals of Python, and its parser (of 3.11.7) ended two threads
that read them at once with "SystemError: AST constructor recursion depth mismatch"."""

_COPIED_BYTES = 8 * 2**20


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Give the file system and the path in it of a local path or URI. Raises StorageError."""
    try:
        if "://" not in uri:
            return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
        scheme, _, rest = uri.partition("://")
        if scheme == "s3" and os.environ.get("AWS_ENDPOINT_URL"):
            # pyarrow reads the keys and the region from the environment, but not the endpoint.
            endpoint = os.environ["AWS_ENDPOINT_URL"]
            return fs.S3FileSystem(endpoint_override=endpoint), rest.rstrip("/")
        file_system, path = fs.FileSystem.from_uri(uri)
        return file_system, path
    except (OSError, pa.ArrowInvalid, ImportError) as error:
        raise StorageError(
            "a path must be local or a URI such as s3://bucket/folder", value=uri, remedy=str(error)
        ) from error


def is_local(uri: str) -> bool:
    """Tell whether a path is on a disk of this machine."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """Give the path of a local path or file:// URI; see `is_local`."""
    return Path(resolve(uri)[1])


def absolute(uri: str) -> str:
    """Make a local path absolute, as other processes need it; a URI stays as it is."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def join(uri: str, *parts: str) -> str:
    """Append path parts to a local path or URI."""
    return "/".join([uri.rstrip("/"), *parts])


@contextmanager
def _naming(uri: str, rule: str) -> Iterator[None]:
    """Turn a failure of the file system into an error that names the path."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        # Names that are no UTF-8 fail to decode.
        raise StorageError(rule, value=uri, remedy=str(error)) from error


def exists(uri: str) -> bool:
    """Tell whether a file or directory is there. Raises StorageError when it cannot be told."""
    file_system, path = resolve(uri)
    with _naming(uri, "a path must be reachable"):
        return bool(file_system.get_file_info(path).type != fs.FileType.NotFound)


def read_bytes(uri: str) -> bytes:
    """Read a whole file. Raises StorageError when it is not there or not readable."""
    file_system, path = resolve(uri)
    with _naming(uri, "a file must be readable"), file_system.open_input_file(path) as stream:
        return bytes(stream.read())


def write_bytes(uri: str, content: bytes) -> None:
    """Write a whole file so that a reader sees the old one, the new one, never a part.

    Locally through a temporary file and a rename; an object store puts objects whole. Parents are made.
    """
    file_system, path = resolve(uri)
    with _naming(uri, "a file must be writable"):
        if isinstance(file_system, fs.LocalFileSystem):
            with _replaced(Path(path)) as stream:
                stream.write(content)
        else:
            with file_system.open_output_stream(path) as sink:
                sink.write(content)


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """Give a stream whose content is the file's when all went well; else the file stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private to the owner; a run directory is shared like any other output.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_table(uri: str, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    write_bytes(uri, bytes(sink.getvalue()))


def write_table_parts(uri: str, parts: Iterable[pa.Table]) -> None:
    """Write tables of one schema, of which there is at least one, as a Parquet file, whole or not at all.

    Each is a row group, and no other is in memory. What goes to an object store lies in a file of this machine first.
    """
    file_system, path = resolve(uri)
    with _naming(uri, "a file must be writable"):
        if isinstance(file_system, fs.LocalFileSystem):
            with _replaced(Path(path)) as stream:
                _write_row_groups(stream, parts)
            return
        with tempfile.TemporaryFile() as stream:
            _write_row_groups(stream, parts)
            stream.seek(0)
            with file_system.open_output_stream(path) as sink:
                while chunk := stream.read(_COPIED_BYTES):
                    sink.write(chunk)


def _write_row_groups(stream: IO[bytes], parts: Iterable[pa.Table]) -> None:
    tables = iter(parts)
    first = next(tables)
    with parquet.ParquetWriter(stream, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def read_table(uri: str) -> pa.Table:
    """Read a whole Parquet file."""
    return parquet.read_table(pa.BufferReader(read_bytes(uri)))


def read_table_parts(uri: str) -> Iterator[pa.Table]:
    """Read a Parquet file row group by row group; one without rows is an empty table."""
    file_system, path = resolve(uri)
    with _naming(uri, "a file must be readable"), file_system.open_input_file(path) as source:
        file = parquet.ParquetFile(source)
        if not file.metadata.num_rows:
            yield file.schema_arrow.empty_table()
            return
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def delete(uri: str) -> None:
    """Remove a file or a directory with all below it; nothing there is no error."""
    file_system, path = resolve(uri)
    with _naming(uri, "a path must be removable"):
        kind = file_system.get_file_info(path).type
        if kind == fs.FileType.Directory:
            file_system.delete_dir(path)
        elif kind == fs.FileType.File:
            file_system.delete_file(path)


def list_files(uri: str) -> list[fs.FileInfo]:
    """List every file below a directory, or the one file at `uri`, sorted by path. Raises StorageError.

    Hidden files and those below hidden directories are left out, as well as empty markers such as _SUCCESS.
    """
    file_system, path = resolve(uri)
    with _naming(uri, "a path must be readable"):
        info = file_system.get_file_info(path)
        if info.type == fs.FileType.File:
            return [info]
        if info.type == fs.FileType.NotFound:
            raise StorageError("a path must exist", value=uri, remedy="Check the spelling and the access rights.")
        entries = file_system.get_file_info(fs.FileSelector(path, recursive=True))
    found = [entry for entry in entries if entry.type == fs.FileType.File]
    shown = [entry for entry in found if not _is_hidden(entry.path[len(path) :])]
    return sorted(shown, key=lambda entry: str(entry.path))


def list_names(uri: str) -> list[str]:
    """List the names directly in a directory, sorted; none when it is not there."""
    file_system, path = resolve(uri)
    with _naming(uri, "a path must be readable"):
        selector = fs.FileSelector(path, recursive=False, allow_not_found=True)
        return sorted(str(entry.base_name) for entry in file_system.get_file_info(selector))


def list_entries(uri: str) -> list[fs.FileInfo]:
    """List the files and folders directly in a directory, sorted, without hidden ones. Raises StorageError."""
    file_system, path = resolve(uri)
    with _naming(uri, "a directory must be readable"):
        entries = file_system.get_file_info(fs.FileSelector(path, recursive=False))
    shown = [entry for entry in entries if not _is_hidden(entry.base_name)]
    return sorted(shown, key=lambda entry: str(entry.base_name))


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.strip("/").split("/"))


def digest(*parts: object) -> str:
    """Digest JSON-able values into 16 hexadecimal characters; the order of mapping keys does not matter."""
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_bytes(chunks: Iterable[bytes | memoryview]) -> str:
    """Digest raw bytes into 16 hexadecimal characters."""
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()[:16]


def digest_file(uri: str) -> str:
    """Digest the bytes of a file as `digest_bytes` does, without holding them. Raises StorageError."""
    file_system, path = resolve(uri)
    with _naming(uri, "a file must be readable"), file_system.open_input_stream(path) as stream:
        return digest_bytes(iter(lambda: stream.read(_COPIED_BYTES), b""))


def read_json(uri: str) -> Any:
    """Read a JSON file. Raises StorageError when it is missing or not JSON."""
    try:
        return json.loads(read_bytes(uri))
    except json.JSONDecodeError as error:
        raise StorageError("a file must hold JSON", value=uri, remedy=str(error)) from error


def scratch_directory(purpose: str) -> Path:
    """Give a directory of this machine for what can be made again: below XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "orchestrator" / purpose
