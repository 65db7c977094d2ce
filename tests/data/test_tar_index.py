from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.data.tar_index import MAX_ENTRY_BYTES, TarSample, scan_samples
from orchestrator.errors import DataError


def entry(name: str, content: bytes = b"x", **traits: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for trait, value in traits.items():
        setattr(info, trait, value)
    return info, content


def make_tar(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return buffer.getvalue()


def forge_size(name: str, size: int) -> bytes:
    """Make a header that promises a size, without the content."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def scan(content: bytes, start: int = 0, end: int | None = None) -> tuple[list[TarSample], str | None]:
    """Give the samples before the damage, and what it says."""
    samples: list[TarSample] = []
    try:
        samples.extend(scan_samples(io.BytesIO(content), start, end))
    except DataError as error:
        return samples, str(error)
    return samples, None


THREE = make_tar(*(entry(f"{key}.{kind}", f"{key}{kind}".encode() * 200) for key in "abc" for kind in ("jpg", "cls")))


def test_a_key_is_the_path_up_to_the_first_dot_of_its_last_part() -> None:
    names = ("./v1.0/7.JPG", "v1.0/7.seg.png", "v1.0/8.jpg", "8.jpg", "v1.0/README", "v1.0/._8.jpg")
    folder = entry("v1.0", b"", type=tarfile.DIRTYPE)
    samples, damage = scan(make_tar(folder, *(entry(name) for name in names)))
    assert damage is None
    assert [(sample.key, sorted(sample.entries), sample.error) for sample in samples] == [
        ("v1.0/7", ["jpg", "seg.png"], None),
        ("v1.0/8", ["jpg"], None),
        ("8", ["jpg"], None),
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_entries_say_where_their_content_is_and_long_names_are_read(format: int) -> None:
    folder = "/".join(["folder" * 5] * (3 if format == tarfile.USTAR_FORMAT else 9))
    content = make_tar(*(entry(f"{folder}/{key}.jpg", key.encode() * 700) for key in "ab"), format=format)
    samples, _ = scan(content)
    assert [sample.key for sample in samples] == [f"{folder}/a", f"{folder}/b"]
    for sample, key in zip(samples, (b"a", b"b"), strict=True):
        place = sample.entries["jpg"]
        assert content[place.start : place.start + place.size] == key * 700
        (alone,), _ = scan(content[sample.start : sample.end], 0, sample.end - sample.start)
        assert alone.key == sample.key


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry("../b.jpg"), "the entry ../b.jpg leaves the archive"),
        (entry("x/../../b"), "the entry x/../../b leaves the archive"),
        (entry("/etc/b.jpg"), "the entry /etc/b.jpg leaves the archive"),
        (entry("b.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "the entry b.jpg is a link"),
        (entry("b.jpg", b"", type=tarfile.LNKTYPE, linkname="a.jpg"), "the entry b.jpg is a link"),
        (entry("b.jpg", b"", type=tarfile.CHRTYPE), "the entry b.jpg is no plain file"),
        (entry("b.jpg", b"", type=tarfile.FIFOTYPE), "the entry b.jpg is no plain file"),
    ],
)
def test_what_a_shard_should_not_hold_is_refused_by_name(bad: tuple[tarfile.TarInfo, bytes], reason: str) -> None:
    samples, damage = scan(make_tar(entry("a.jpg"), bad, entry("c.jpg")))
    assert damage is None
    assert [sample.error for sample in samples] == [None, reason, None]


def test_an_entry_that_is_there_twice_is_refused() -> None:
    samples, _ = scan(make_tar(entry("a.jpg"), entry("a.jpg"), entry("b.jpg")))
    assert [sample.error for sample in samples] == ["the sample a has two entries jpg", None]


class SparseFile(io.RawIOBase):
    """Read a few bytes here and there as if zeros lay between."""

    def __init__(self, parts: dict[int, bytes], size: int) -> None:
        self.parts, self.size, self.place = parts, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self.place = offset + (self.size if whence == io.SEEK_END else 0)
        return self.place

    def readinto(self, buffer: memoryview, /) -> int:
        count = max(0, min(len(buffer), self.size - self.place))
        window = bytearray(count)
        for start, content in self.parts.items():
            for index, value in enumerate(content):
                if self.place <= start + index < self.place + count:
                    window[start + index - self.place] = value
        buffer[:count] = window
        self.place += count
        return count


def test_an_entry_larger_than_the_bound_is_refused_and_what_follows_is_read() -> None:
    size = MAX_ENTRY_BYTES + 512
    rest = make_tar(entry("c.jpg"))
    stream = SparseFile({0: forge_size("b.jpg", size), size + 512: rest}, size + 512 + len(rest))
    large, small = scan_samples(stream, 0, None)
    assert large.error == f"the entry b.jpg has {size} bytes, more than {MAX_ENTRY_BYTES}"
    assert (small.key, small.error) == ("c", None)


@pytest.mark.parametrize("size", [10_000, 2**33, -512])
def test_an_entry_beyond_the_end_of_the_file_ends_the_archive(size: int) -> None:
    samples, damage = scan(make_tar(entry("a.jpg"))[:1024] + forge_size("b.jpg", size) + b"x" * 512)
    assert damage is not None and "b.jpg ends beyond the end of the file" in damage
    assert [sample.key for sample in samples] == ["a"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_forged_length_is_not_read_into_memory(kind: bytes) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size, info.type = 2**40, kind
    samples, damage = scan(THREE[:4608] + info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert damage is not None and "a header of 1099511627776 bytes" in damage
    assert [sample.key for sample in samples] == ["a"]


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda content: content[:6000], id="within an entry"),
        pytest.param(lambda content: content[: 6 * 1536 + 100], id="before the end mark"),
        pytest.param(lambda content: content[:6144] + b"\xff" * 512 + content[6656:], id="a damaged header"),
        pytest.param(lambda content: content[:6144] + bytes(2**21), id="zeros instead of the rest"),
    ],
)
def test_before_the_damage_whole_samples_are_found(cut: Callable[[bytes], bytes]) -> None:
    samples, damage = scan(cut(THREE))
    assert damage is not None
    assert [sample.key for sample in samples][:1] == ["a"]
    assert len(samples) < 3
    assert all(sorted(sample.entries) == ["cls", "jpg"] and sample.error is None for sample in samples)


def test_what_is_no_tar_is_damage_from_the_start() -> None:
    for content in (b"", b"not a tar", b"x" * 4096):
        samples, damage = scan(content)
        assert samples == [] and damage is not None
    assert scan(make_tar()) == ([], None)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(THREE) - 1), st.binary(min_size=1, max_size=600))
def test_damage_anywhere_is_reported_or_harmless(place: int, noise: bytes) -> None:
    damaged = THREE[:place] + noise + THREE[place + len(noise) :]
    samples, damage = scan(damaged)
    assert damage is not None or sum(len(sample.entries) for sample in samples) == 6
    for sample in samples:
        for part in sample.entries.values():
            assert sample.error is not None or 0 < part.start <= part.start + part.size <= len(damaged)
