"""The activation store: names that change with what rows depend on, whole entries or none, the oldest go first."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import storage
from orchestrator.config import AugmentConfig
from orchestrator.data import activations
from orchestrator.data.activation_keys import ActivationKey
from orchestrator.data.activations import ActivationStore, StoredActivations, entry_bytes
from orchestrator.errors import DataError
from orchestrator.records import BackboneSpec

A, B, C = "a" * 32, "b" * 32, "c" * 32
SPEC = BackboneSpec(name="resnet18", image_size=32, resize="crop", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
VARIED = AugmentConfig(views=3, flip=True, crop=0.1)


def rows_of(seed: int, count: int = 6, width: int = 5, dtype: str = "float32") -> np.ndarray:
    return (100 * np.random.default_rng(seed).random((count, width))).astype(dtype)


def a_store(uri: Path | str, max_bytes: int = 2**30) -> ActivationStore:
    return ActivationStore(uri=str(uri), max_bytes=max_bytes)


def a_key(**changes: Any) -> ActivationKey:
    base: dict[str, Any] = {
        "contents": ["c0", "c1"],
        "ids": ["a", "b"],
        "spec": SPEC,
        "weights": "w0",
        "precision": "fp32",
        "view": 0,
        "augment": VARIED,
        "seed": 0,
    }
    return ActivationKey(**{**base, **changes})


def name_of(key: ActivationKey, depth: int = 3, dtype: str = "fp32") -> str:
    return key.names({depth: dtype})[depth]


@pytest.fixture(params=["disk", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "scratch"))
    if request.param == "disk":
        return str(tmp_path / "cache")
    return f"{request.getfixturevalue('s3_bucket')}/cache"


CHANGES: list[dict[str, Any]] = [
    {"contents": ["c0", "c2"]},
    {"contents": ["c1", "c0"]},
    {"weights": "w1"},
    {"precision": "bf16"},
    *(
        {"spec": SPEC.model_copy(update=change)}
        for change in (
            {"name": "resnet34"},
            {"kwargs": {"width_mult": 0.5}},
            {"image_size": 64},
            {"resize": "squash"},
            {"mean": (0.4, 0.5, 0.5)},
            {"std": (0.4, 0.5, 0.5)},
        )
    ),
]
VIEW_CHANGES: list[dict[str, Any]] = [
    {"ids": ["a", "c"]},
    {"seed": 1},
    {"view": 2},
    *(
        {"augment": VARIED.model_copy(update=change)}
        for change in (
            {"flip": False},
            {"crop": 0.2},
            {"colour": 0.1},
            {"randaugment": 2},
            {"magnitude": 5},
            {"erasing": 0.5},
        )
    ),
]


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_rows_depend_on_changes_their_name(change: dict[str, Any], view: int) -> None:
    assert name_of(a_key(view=view, **change)) != name_of(a_key(view=view))


def test_depth_and_stored_type_change_the_name() -> None:
    assert len({name_of(a_key(), depth, dtype) for depth in (1, 2, 12) for dtype in ("fp32", "bf16")}) == 6


@pytest.mark.parametrize("change", VIEW_CHANGES, ids=str)
def test_what_makes_a_view_changes_its_name(change: dict[str, Any]) -> None:
    assert name_of(a_key(**{"view": 1, **change})) != name_of(a_key(view=1))


@pytest.mark.parametrize("change", [change for change in VIEW_CHANGES if "view" not in change], ids=str)
def test_the_image_itself_is_shared_by_all_augmentations_and_identities(change: dict[str, Any]) -> None:
    assert name_of(a_key(**change)) == name_of(a_key())


def test_more_views_keep_the_names_of_the_first() -> None:
    assert name_of(a_key(view=1, augment=VARIED.model_copy(update={"views": 9}))) == name_of(a_key(view=1))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint16"])
def test_what_is_written_is_read(uri: str, dtype: str) -> None:
    store, rows = a_store(uri), rows_of(0, dtype=dtype)
    assert not store.has(A)
    assert not store.check(A)
    assert store.write(A, rows) == entry_bytes(6, 5, dtype)
    assert store.has(A)
    assert store.check(A)
    assert store.entries() == {A: entry_bytes(6, 5, dtype)}
    found = store.read(A)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, rows)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def overwrite(uri: str, change: str) -> None:
    content = bytearray(storage.read_bytes(uri))
    match change:
        case "a flipped bit":
            content[-3] ^= 1
        case "cut short":
            del content[-7:]
        case "empty":
            content.clear()
    storage.write_bytes(uri, bytes(content))


@pytest.mark.parametrize("change", ["a flipped bit", "cut short", "empty"])
@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_a_damaged_entry_is_not_used_but_removed(uri: str, suffix: str, change: str) -> None:
    store = a_store(uri)
    store.write(A, rows_of(0))
    overwrite(f"{uri}/{A}.{suffix}", change)
    assert not store.check(A)
    with pytest.raises(DataError, match=r"must be there and whole.*" + A):
        store.read(A)
    assert store.entries() == {}
    store.write(A, rows_of(0))
    np.testing.assert_array_equal(store.read(A), rows_of(0))


def test_an_entry_that_was_damaged_after_it_was_read_is_noticed_by_a_check(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.write(A, rows_of(0))
    store.read(A)
    path = tmp_path / f"{A}.npy"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not store.check(A)


def test_a_missing_entry_is_named(uri: str) -> None:
    with pytest.raises(DataError, match=A):
        a_store(uri).read(A)


def test_a_remote_entry_is_fetched_once_a_node(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = a_store(f"{s3_bucket}/cache")
    store.write(A, rows_of(0))
    store.read(A)
    storage.delete(f"{s3_bucket}/cache/{A}.npy")
    np.testing.assert_array_equal(store.read(A), rows_of(0))


def test_a_damaged_copy_of_a_remote_entry_is_fetched_again(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = a_store(f"{s3_bucket}/cache")
    store.write(A, rows_of(0))
    store.read(A)
    (copy,) = tmp_path.rglob(f"{A}.npy")
    overwrite(str(copy), "a flipped bit")
    np.testing.assert_array_equal(store.read(A), rows_of(0))
    assert store.has(A)


def used_at(directory: Path, name: str, seconds: float) -> None:
    os.utime(directory / f"{name}.json", (seconds, seconds))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    size = entry_bytes(6, 5, "float32") + 200
    store = a_store(tmp_path, max_bytes=2 * size)
    for name, seconds in ((A, 3000), (B, 1000), (C, 2000)):
        store.write(name, rows_of(0))
        used_at(tmp_path, name, seconds)
    assert store.evict(keep=()) == 1
    assert set(store.entries()) == {A, C}
    store.touch([C, "d" * 32])
    used_at(tmp_path, A, 3000)
    assert a_store(tmp_path, max_bytes=size).evict(keep=()) == 1
    assert set(store.entries()) == {C}


def test_what_a_run_keeps_stays_however_old_and_large(tmp_path: Path) -> None:
    store = a_store(tmp_path, max_bytes=1)
    for name, seconds in ((A, 1000), (B, 2000)):
        store.write(name, rows_of(0))
        used_at(tmp_path, name, seconds)
    assert store.evict(keep={A}) == 1
    assert set(store.entries()) == {A}


def test_a_touched_object_outlives_others(s3_bucket: str) -> None:
    uri = f"{s3_bucket}/cache"
    store = a_store(uri, max_bytes=entry_bytes(6, 5, "float32") + 300)
    for name in (A, B):
        store.write(name, rows_of(0))
    # S3 tells the time of change in whole seconds.
    time.sleep(1.1)
    store.touch([A])
    assert store.evict(keep=()) == 1
    assert set(store.entries()) == {A}


def test_eviction_leaves_strangers_alone(tmp_path: Path) -> None:
    store = a_store(tmp_path, max_bytes=1)
    store.write(A, rows_of(0))
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "part-0.npy").write_bytes(b"x" * 100)
    store.evict(keep=())
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["notes.json", "part-0.npy"]


def test_an_evicted_entry_stays_readable_where_it_is_mapped(tmp_path: Path) -> None:
    store = a_store(tmp_path, max_bytes=1)
    store.write(A, rows_of(0))
    mapped = store.read(A)
    store.evict(keep=())
    np.testing.assert_array_equal(mapped, rows_of(0))


def test_an_empty_place_holds_nothing_to_evict(uri: str) -> None:
    assert a_store(uri).evict(keep=()) == 0
    assert a_store(uri).entries() == {}


def test_what_a_killed_writer_left_goes_after_a_day(tmp_path: Path) -> None:
    old, young = tmp_path / f".{A}.npy.x1", tmp_path / f".{A}.npy.x2"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    a_store(tmp_path).evict(keep=())
    assert (old.exists(), young.exists()) == (False, True)


CONTENDER = """
import sys
import numpy as np
from orchestrator.data.activations import ActivationStore
from orchestrator.errors import DataError

uri, seed = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(seed)
store = ActivationStore(uri=uri, max_bytes=40_000)
read = lost = 0
for step in range(150):
    number = int(rng.integers(8))
    name = f"{number:032x}"
    # Two writers of one entry may differ in its last bits: every file must match its own manifest.
    store.write(name, np.full((40, 50), number + seed / 10, dtype=np.float32))
    if step % 5 == 0:
        store.evict(keep=())
    other = int(rng.integers(8))
    try:
        rows = store.read(f"{other:032x}")
        assert rows.shape == (40, 50) and int(rows[0, 0]) == other and (rows == rows[0, 0]).all()
        read += 1
    except DataError:
        lost += 1
print(read, lost)
"""


def test_two_processes_that_write_and_evict_at_once_leave_whole_entries(tmp_path: Path) -> None:
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(tmp_path / "cache"), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(2)
    ]
    results = [contender.communicate(timeout=120) for contender in contenders]
    assert [contender.returncode for contender in contenders] == [0, 0], results
    assert all(int(output.split()[0]) > 0 for output, _ in results)
    store = a_store(tmp_path / "cache", max_bytes=40_000)
    files = sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_file())
    assert files == sorted(f"{name}.{suffix}" for name in store.entries() for suffix in ("json", "npy"))
    assert all(store.check(name) for name in store.entries())
    store.evict(keep=())
    assert 0 < len(store.entries()) < 8


def a_set(uri: str, *, views: int = 2, counts: tuple[int, ...] = (3, 5, 1)) -> StoredActivations:
    store = a_store(uri)
    names = [[f"{view:016x}{shard:016x}" for shard in range(len(counts))] for view in range(views)]
    for view in range(views):
        for shard, count in enumerate(counts):
            store.write(names[view][shard], rows_of(10 * view + shard, count))
    places = [(shard, row) for shard, count in enumerate(counts) for row in reversed(range(count))]
    shards, rows = (np.array(column, dtype=np.int32) for column in zip(*places, strict=True))
    entries = tuple(tuple(part) for part in names)
    return StoredActivations(store=store, entries=entries, shards=shards, rows=rows, width=5, dtype="float32")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredActivations:
    return a_set(str(tmp_path_factory.mktemp("stored")))


@given(positions=st.lists(st.integers(0, 8), max_size=20), draw=st.integers(0, 7))
def test_any_order_with_repeats_gives_the_right_rows(
    stored: StoredActivations, positions: list[int], draw: int
) -> None:
    counts = (3, 5, 1)
    expected = [
        rows_of(10 * (draw % 2) + int(stored.shards[i]), counts[stored.shards[i]])[stored.rows[i]] for i in positions
    ]
    taken = stored.take(np.array(positions, dtype=np.int64), draw)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, np.array(expected, dtype=np.float32).reshape(-1, 5))


def test_all_rows_of_a_view_are_loaded_at_once(stored: StoredActivations) -> None:
    everything = np.arange(9, dtype=np.int64)
    np.testing.assert_array_equal(stored.load(3), stored.take(everything, 1))
    assert stored.load().nbytes == stored.nbytes == 9 * 5 * 4


def test_a_set_travels_without_its_open_files(stored: StoredActivations) -> None:
    before = stored.load()
    sent = pickle.dumps(stored)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent).load(), before)


def test_more_entries_than_may_be_open_are_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "_MAX_OPEN_ENTRIES", 1)
    stored = a_set(str(tmp_path))
    for draw in (0, 1, 0):
        np.testing.assert_array_equal(stored.load(draw)[2], rows_of(10 * draw, 3)[0])
        assert len(stored._open) == 1


def test_a_remote_set_gives_the_same_rows(
    s3_bucket: str, stored: StoredActivations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    np.testing.assert_array_equal(a_set(f"{s3_bucket}/cache").load(1), stored.load(1))


def test_a_set_without_samples_gives_no_rows(stored: StoredActivations) -> None:
    nothing = np.array([], dtype=np.int32)
    empty = StoredActivations(store=stored.store, entries=((),), shards=nothing, rows=nothing, width=7, dtype="uint16")
    assert empty.load().shape == (0, 7)
    assert empty.load().dtype == np.uint16
