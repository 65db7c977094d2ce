from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.data import pixels
from orchestrator.data.pixels import PixelCache, write_pixels
from orchestrator.errors import DataError, StorageError

COUNTS = {0: 3, 4: 5, 7: 1}


def image_of(shard: int, row: int) -> NDArray[np.uint8]:
    return np.full((8, 8, 3), 16 * shard + row, dtype=np.uint8)


@pytest.fixture(scope="module")
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pixels")
    for shard, count in COUNTS.items():
        write_pixels(str(directory), shard, np.stack([image_of(shard, row) for row in range(count)]))
    return directory


def open_cache(uri: str) -> PixelCache:
    places = [(shard, row) for shard, count in COUNTS.items() for row in reversed(range(count))]
    shards, rows = (np.array(column, dtype=np.int32) for column in zip(*places, strict=True))
    return PixelCache.open(uri, shards, rows)


def expected(cache: PixelCache, positions: list[int]) -> NDArray[np.uint8]:
    images = [image_of(int(cache.shards[i]), int(cache.rows[i])) for i in positions]
    return np.stack(images) if images else np.zeros((0, 8, 8, 3), dtype=np.uint8)


@given(positions=st.lists(st.integers(min_value=0, max_value=8), max_size=20))
def test_any_order_with_repeats_gives_the_right_pixels(cache_directory: Path, positions: list[int]) -> None:
    cache = open_cache(str(cache_directory))
    taken = cache.take(np.array(positions, dtype=np.int64))
    assert taken.dtype == np.uint8
    np.testing.assert_array_equal(taken, expected(cache, positions))


def test_taken_pixels_are_a_copy(cache_directory: Path) -> None:
    cache = open_cache(str(cache_directory))
    cache.take(np.array([0]))[:] = 255
    np.testing.assert_array_equal(cache.take(np.array([0])), expected(cache, [0]))


def test_a_cache_travels_without_its_open_files(cache_directory: Path) -> None:
    cache = open_cache(str(cache_directory))
    before = cache.take(np.arange(9))
    sent = pickle.dumps(cache)
    assert len(sent) < 1000 + cache.shards.nbytes + cache.rows.nbytes
    np.testing.assert_array_equal(pickle.loads(sent).take(np.arange(9)), before)


def test_more_files_than_may_be_open_are_read_all_the_same(
    cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "_MAX_OPEN_SHARDS", 1)
    cache = open_cache(str(cache_directory))
    for position in (0, 8, 4, 0, 8):
        np.testing.assert_array_equal(cache.take(np.array([position])), expected(cache, [position]))
        assert len(cache._maps) == 1


def test_an_empty_cache_gives_no_pixels() -> None:
    nothing = np.array([], dtype=np.int32)
    assert PixelCache.open("", nothing, nothing).take(np.array([], dtype=np.int64)).shape == (0, 0, 0, 3)


def test_writing_again_replaces_the_file_with_the_same_bytes(tmp_path: Path) -> None:
    images = np.stack([image_of(1, row) for row in range(4)])
    write_pixels(str(tmp_path / "cache"), 1, images)
    (file,) = (tmp_path / "cache").iterdir()
    before = file.read_bytes()
    write_pixels(str(tmp_path / "cache"), 1, images)
    assert [path.read_bytes() for path in (tmp_path / "cache").iterdir()] == [before]


def test_a_file_uri_is_mapped_where_it_lies(cache_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "read_bytes", lambda uri: pytest.fail(f"{uri} was copied"))
    cache = open_cache(f"file://{cache_directory}")
    np.testing.assert_array_equal(cache.take(np.arange(9)), expected(cache, list(range(9))))


@pytest.fixture
def far_away(cache_directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Give the URI of the cache as if it lay on another machine, with a cache directory of this one."""
    monkeypatch.setattr(storage, "is_local", lambda uri: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return f"file://{cache_directory}"


def test_a_remote_file_is_fetched_once_for_all_processes(far_away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    read_bytes = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda uri: fetched.append(uri) or read_bytes(uri))
    caches = [open_cache(far_away) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda cache: cache.take(np.arange(9)), caches))
    for result in results:
        np.testing.assert_array_equal(result, expected(caches[0], list(range(9))))
    assert sorted(fetched) == sorted(f"{far_away}/{shard}.npy" for shard in COUNTS)


def test_only_files_that_are_read_are_fetched(far_away: str, tmp_path: Path) -> None:
    open_cache(far_away).take(np.array([8]))
    assert [path.name for path in tmp_path.rglob("*.npy")] == ["7.npy"]


def test_a_missing_remote_file_is_an_error_and_leaves_nothing_behind(far_away: str, tmp_path: Path) -> None:
    cache = PixelCache.open(far_away, np.array([99], dtype=np.int32), np.array([0], dtype=np.int32))
    with pytest.raises(StorageError, match=r"99\.npy"):
        cache.take(np.array([0]))
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\x93NUMPY\x01\x00"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "0.npy").write_bytes(content)
    cache = PixelCache.open(str(tmp_path), np.array([0], dtype=np.int32), np.array([0], dtype=np.int32))
    with pytest.raises(DataError, match=r"0\.npy"):
        cache.take(np.array([0]))
