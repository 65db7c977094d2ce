from pathlib import Path

import numpy as np
import pytest

from orchestrator.data.scratch import scratch_rows
from orchestrator.errors import StorageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_rows_come_back_in_any_order_and_are_zero_before() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    with scratch_rows(10, 3, np.float32) as rows:
        rows.put(np.array([7, 1, 9, 0]), values)
        np.testing.assert_array_equal(rows.take(np.array([0, 7, 2])), [values[3], values[0], np.zeros(3)])
        assert rows.take(np.array([9])).dtype == np.float32


def test_several_hold_their_own() -> None:
    with scratch_rows(2, 1, np.float32) as one, scratch_rows(2, 1, np.float64) as other:
        one.put(np.array([0, 1]), np.array([[1.0], [2.0]]))
        other.put(np.array([0]), np.array([[0.1]]))
        assert one.take(np.array([1, 0])).tolist() == [[2.0], [1.0]]
        assert other.take(np.array([0, 1])).tolist() == [[0.1], [0.0]]


@pytest.mark.parametrize(("num_rows", "width"), [(0, 3), (4, 0)])
def test_no_cells_are_held_as_well(num_rows: int, width: int) -> None:
    with scratch_rows(num_rows, width, np.float32) as rows:
        rows.put(np.arange(0), np.zeros((0, width), dtype=np.float32))
        assert rows.take(np.arange(0)).shape == (0, width)


def test_a_file_that_cannot_be_made_is_an_error_of_the_project(cache: Path) -> None:
    cache.write_text("no directory")
    with pytest.raises(StorageError, match="the cache directory must have space"), scratch_rows(10, 3, np.float32):
        pass


def test_rows_that_no_disk_can_hold_are_an_error_of_the_project() -> None:
    with pytest.raises(StorageError, match="the cache directory must have space"), scratch_rows(2**55, 3, np.float32):
        pass


def test_no_file_can_be_left_behind(cache: Path) -> None:
    with scratch_rows(10, 3, np.float32) as rows:
        rows.put(np.array([0]), np.ones((1, 3)))
        assert not [path for path in cache.rglob("*") if path.is_file()]
