"""Finds the samples of a tar shard by its headers, and refuses what a shard should not hold."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import DataError
from orchestrator.store_failures import is_passing

MAX_ENTRY_BYTES = 256 * 2**20
"""The largest entry that is read: a header can promise any size."""

# The longest extension header that is read at once; names and paths have a few kilobytes.
_MAX_HEADER_BYTES = 2**20
# Writers fill up the last record after the end mark, by default to 10 KiB.
_MAX_PADDING_BYTES = 2**20
_READ_AHEAD_BYTES = 2**16


@dataclass(frozen=True)
class TarEntry:
    """Say where the content of an entry is, in bytes from the start of what was scanned."""

    start: int
    size: int


@dataclass(frozen=True)
class TarSample:
    """Hold the consecutive entries of one key, by extension in lower case, or why they are refused.

    Their headers and contents lie from byte `start` up to `end`.
    """

    key: str
    start: int
    end: int
    entries: Mapping[str, TarEntry]
    error: str | None


@dataclass
class _OpenSample:
    """Collect the entries of a sample."""

    key: str
    start: int
    end: int = 0
    entries: dict[str, TarEntry] = field(default_factory=dict)
    error: str | None = None

    def add(self, extension: str, info: tarfile.TarInfo, end: int, error: str | None) -> None:
        if error is None and extension in self.entries:
            error = f"the sample {self.key[:100]} has two entries {extension}"
        self.entries[extension] = TarEntry(info.offset_data, info.size)
        self.error = self.error or error
        self.end = end

    def close(self) -> TarSample:
        return TarSample(self.key, self.start, self.end, self.entries, self.error)


def scan_samples(stream: io.RawIOBase, start: int, end: int | None) -> Iterator[TarSample]:
    """Give the samples whose headers lie from `start` up to `end`, None for the end of the archive, in order.

    Entries belong together by their key: the path up to the first dot of its last part. The headers alone are read.
    Hidden entries, directories, and entries without an extension are passed over. A sample is refused for an entry
    that leaves the archive, is a link or device, is larger than MAX_ENTRY_BYTES, or is there twice. Raises DataError
    after the last whole sample where the archive is cut off or damaged.
    """
    sample: _OpenSample | None = None
    for info, entry_end in _scan_headers(stream, start, end):
        error = _refuse(info)
        folder, _, base = info.name.removeprefix("./").rpartition("/")
        stem, dot, extension = base.partition(".")
        if info.isdir() or (error is None and not (stem and dot)):
            continue
        key = f"{folder}/{stem}" if folder else stem
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample.close()
            sample = _OpenSample(key, info.offset)
        sample.add(extension.lower(), info, entry_end, error)
    if sample is not None:
        yield sample.close()


def _refuse(info: tarfile.TarInfo) -> str | None:
    name = info.name[:100]
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return f"the entry {name} leaves the archive"
    if info.issym() or info.islnk():
        return f"the entry {name} is a link"
    if not info.isreg() or info.issparse():
        return f"the entry {name} is no plain file"
    if info.size > MAX_ENTRY_BYTES:
        return f"the entry {name} has {info.size} bytes, more than {MAX_ENTRY_BYTES}"
    return None


def _scan_headers(stream: io.RawIOBase, start: int, end: int | None) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Give the headers from `start` up to `end`, and where each entry ends."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(start)
    headers = _HeaderReader(stream, _READ_AHEAD_BYTES)
    place = start
    try:
        # Any: the stubs leave out `members`.
        archive: Any = tarfile.TarFile(fileobj=headers, errors="replace")
        while (info := archive.next()) is not None:
            # The archive would keep every header for as long as it is open.
            archive.members.clear()
            is_stored = info.isreg() and not info.issparse()
            is_whole = info.offset >= place and (not is_stored or 0 <= info.size <= size - info.offset_data)
            place = info.offset_data
            # Given even if it is cut off: its name tells whether the sample before it is whole.
            yield info, archive.offset
            if not is_whole:
                raise DataError(f"the entry {info.name[:100]} ends beyond the end of the file")
            if end is not None and archive.offset >= end:
                return
        if end is None:
            _require_end(headers, archive.offset, size)
    except DataError:
        raise
    except Exception as error:
        if is_passing(error):
            raise
        # tarfile meets forged headers with errors of many kinds: TarError, ValueError, RecursionError, ...
        raise DataError(f"the tar cannot be read beyond byte {place}: {error}") from error
    finally:
        # A reader that is forgotten closes what it reads.
        headers.detach()


def _require_end(stream: io.BufferedReader, place: int, size: int) -> None:
    """Check that the headers ended where the archive says so: tarfile ends without a word where one is damaged."""
    stream.seek(place)
    padding = stream.read(min(size - place, _MAX_PADDING_BYTES))
    if len(padding) < tarfile.BLOCKSIZE or any(padding):
        raise DataError(f"the tar is cut off or damaged at byte {place}")
    if size - place > _MAX_PADDING_BYTES:
        raise DataError(f"the tar ends at byte {place}, the file at {size}")


class _HeaderReader(io.BufferedReader):
    """Refuse to read more at once than headers have: a forged length must not fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)
