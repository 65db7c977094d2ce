"""Reads and writes whole files on local disks and object stores, through pyarrow's file systems."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import IO, Any, TypeVar

import pyarrow as pa
from pyarrow import fs, parquet

from orchestrator.errors import StorageError, UnavailableError
from orchestrator.store_failures import is_passing, patiently

T = TypeVar("T")

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
        # Of a bucket it asks the store for the region.
        file_system, path = patiently(lambda: fs.FileSystem.from_uri(uri), what=uri)
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
    except (OSError, UnicodeError) as error:
        # Names that are no UTF-8.
        raise StorageError(rule, value=uri, remedy=str(error)) from error


def ask(uri: str, rule: str, work: Callable[[], T]) -> T:
    """Do some work on a path, patiently, and turn its failure into an error that names the path."""
    with _naming(uri, rule):
        return patiently(work, what=uri)


def exists(uri: str) -> bool:
    """Tell whether a file or directory is there. Raises StorageError when it cannot be told."""
    file_system, path = resolve(uri)
    info = ask(uri, "a path must be reachable", lambda: file_system.get_file_info(path))
    return bool(info.type != fs.FileType.NotFound)


def read_bytes(uri: str) -> bytes:
    """Read a whole file. Raises StorageError when it is not there or not readable."""
    file_system, path = resolve(uri)

    def read() -> bytes:
        with file_system.open_input_file(path) as stream:
            return bytes(stream.read())

    return ask(uri, "a file must be readable", read)


def find_bytes(uri: str) -> bytes | None:
    """Read a whole file; None when it is not there or not readable. Raises UnavailableError for a store that fails."""
    try:
        return read_bytes(uri)
    except UnavailableError:
        raise
    except StorageError:
        return None


def write_bytes(uri: str, content: bytes) -> None:
    """Write a whole file so that a reader sees the old one, the new one, never a part.

    Locally through a temporary file and a rename; an object store puts objects whole. Parents are made.
    """
    file_system, path = resolve(uri)

    def write() -> None:
        if isinstance(file_system, fs.LocalFileSystem):
            with _replaced(Path(path)) as stream:
                stream.write(content)
        else:
            with file_system.open_output_stream(path) as sink:
                sink.write(content)

    ask(uri, "a file must be writable", write)


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
    rule = "a file must be writable"
    if isinstance(file_system, fs.LocalFileSystem):
        with _naming(uri, rule), _replaced(Path(path)) as stream:
            _write_row_groups(stream, parts)
        return
    with tempfile.TemporaryFile() as stream:
        _write_row_groups(stream, parts)

        def upload() -> None:
            stream.seek(0)
            with file_system.open_output_stream(path) as sink:
                while chunk := stream.read(_COPIED_BYTES):
                    sink.write(chunk)

        ask(uri, rule, upload)


def _write_row_groups(stream: IO[bytes], parts: Iterable[pa.Table]) -> None:
    tables = iter(parts)
    first = next(tables)
    with parquet.ParquetWriter(stream, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def read_table(uri: str) -> pa.Table:
    """Read a whole Parquet file."""
    return parquet.read_table(pa.BufferReader(read_bytes(uri)))


def read_table_parts(uri: str, *, without: Collection[str] = ()) -> Iterator[pa.Table]:
    """Read a Parquet file row group by row group, but not the columns `without`; one without rows is an empty table."""
    file_system, path = resolve(uri)
    rule = "a file must be readable"
    with ask(uri, rule, lambda: file_system.open_input_file(path)) as source:
        file = ask(uri, rule, lambda: parquet.ParquetFile(source))
        columns = [name for name in file.schema_arrow.names if name not in without]
        if not file.metadata.num_rows:
            yield file.schema_arrow.empty_table().select(columns)
            return
        for number in range(file.num_row_groups):
            yield ask(uri, rule, partial(file.read_row_group, number, columns=columns))


def delete(uri: str) -> None:
    """Remove a file or a directory with all below it; nothing there is no error."""
    file_system, path = resolve(uri)

    def remove() -> None:
        kind = file_system.get_file_info(path).type
        if kind == fs.FileType.Directory:
            file_system.delete_dir(path)
        elif kind == fs.FileType.File:
            file_system.delete_file(path)

    ask(uri, "a path must be removable", remove)


@dataclass(frozen=True)
class Entries:
    """Hold files, folders by path, and by path why another entry is neither; paths but a file's own are relative."""

    files: list[fs.FileInfo]
    folders: list[str]
    left_out: dict[str, str]


def list_files(uri: str) -> list[fs.FileInfo]:
    """List every file below a directory, or the one file at `uri`, sorted by path, as `list_tree` does."""
    return list_tree(uri).files


def list_tree(uri: str) -> Entries:
    """List every file below a directory, or the one file at `uri`, sorted by path; no folders. Raises StorageError.

    Hidden files and those below hidden directories are passed over, as well as empty markers such as _SUCCESS. A link
    to a file is a file. A link to a directory is left out, for it may lead back to where it is, or to what is listed
    anyway; `uri` itself may be one.
    """
    file_system, path = resolve(uri)
    rule = "a path must be readable"
    info = ask(uri, rule, lambda: file_system.get_file_info(path))
    if info.type == fs.FileType.File:
        return Entries([info], [], {})
    if info.type == fs.FileType.NotFound:
        raise StorageError("a path must exist", value=uri, remedy="Check the spelling and the access rights.")
    if isinstance(file_system, fs.LocalFileSystem):
        found = ask(uri, rule, lambda: _walk(path))
    else:
        entries = ask(uri, rule, lambda: file_system.get_file_info(fs.FileSelector(path, recursive=True)))
        files = [entry for entry in entries if entry.type == fs.FileType.File]
        found = Entries([file for file in files if not _is_hidden(file.path[len(path) :])], [], {})
    found.files.sort(key=lambda file: str(file.path))
    return found


def list_entries(uri: str) -> Entries:
    """List what is directly in a directory, sorted; hidden entries are passed over. Raises StorageError."""
    file_system, path = resolve(uri)
    return ask(uri, "a directory must be readable", lambda: _open_directory(file_system, path))


def _walk(directory: str) -> Entries:
    """List what is below a directory of this machine; pyarrow's own walk follows links, in circles too."""
    found = Entries([], [], {})
    waiting = [""]
    for folder in waiting:
        try:
            entries = _open_local(join(directory, folder) if folder else directory)
        except FileNotFoundError:
            if not folder:
                raise
            # Gone meanwhile.
            continue
        found.files.extend(entries.files)
        waiting.extend(join(folder, name) if folder else name for name in entries.folders)
        found.left_out.update({join(folder, name) if folder else name: why for name, why in entries.left_out.items()})
    return found


def _open_directory(file_system: fs.FileSystem, path: str) -> Entries:
    if isinstance(file_system, fs.LocalFileSystem):
        return _open_local(path)
    entries = file_system.get_file_info(fs.FileSelector(path, recursive=False))
    shown = sorted(
        (entry for entry in entries if not _is_hidden(entry.base_name)), key=lambda entry: str(entry.base_name)
    )
    return Entries(
        files=[entry for entry in shown if entry.type == fs.FileType.File],
        folders=[str(entry.base_name) for entry in shown if entry.type == fs.FileType.Directory],
        left_out={},
    )


def _open_local(path: str) -> Entries:
    """List a directory of this machine: pyarrow does not tell links from what they lead to, nor those to nothing."""
    found = Entries([], [], {})
    with os.scandir(path) as entries:
        shown = sorted((entry for entry in entries if not _is_hidden(entry.name)), key=lambda entry: entry.name)
    for entry in shown:
        if not _is_utf8(entry.name):
            # Neither Arrow's texts nor JSON hold such a name.
            found.left_out[os.fsencode(entry.name).decode(errors="backslashreplace")] = "its name is not UTF-8"
        else:
            _sort_in(found, entry, f"{path}/{entry.name}")
    return found


def _sort_in(found: Entries, entry: os.DirEntry[str], place: str) -> None:
    try:
        status = entry.stat()
    except OSError as error:
        if is_passing(error) or not (entry.is_symlink() or isinstance(error, FileNotFoundError)):
            raise
        if entry.is_symlink():
            found.left_out[entry.name] = "the link leads to nothing"
        # Else it is gone meanwhile.
        return
    if stat.S_ISREG(status.st_mode):
        info = fs.FileInfo(place, fs.FileType.File, mtime_ns=status.st_mtime_ns, size=status.st_size)
        found.files.append(info)
    elif not stat.S_ISDIR(status.st_mode):
        found.left_out[entry.name] = "it is no plain file"
    elif entry.is_symlink():
        found.left_out[entry.name] = "links to folders are not followed"
    else:
        found.folders.append(entry.name)


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def list_names(uri: str) -> list[str]:
    """List the names directly in a directory, sorted; none when it is not there."""
    file_system, path = resolve(uri)
    selector = fs.FileSelector(path, recursive=False, allow_not_found=True)
    entries = ask(uri, "a path must be readable", lambda: file_system.get_file_info(selector))
    return sorted(str(entry.base_name) for entry in entries)


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

    def digest() -> str:
        with file_system.open_input_stream(path) as stream:
            return digest_bytes(iter(lambda: stream.read(_COPIED_BYTES), b""))

    return ask(uri, "a file must be readable", digest)


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
