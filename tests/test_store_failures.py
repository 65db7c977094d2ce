from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from orchestrator import store_failures
from orchestrator.errors import UnavailableError
from orchestrator.store_failures import PAUSES_S, is_passing, patiently

OF_S3 = (
    "When reading information for key 'a' in bucket 'b': AWS Error {} during HeadObject operation: No response body."
)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_failures, "PAUSES_S", (0.0,) * len(PAUSES_S))


@pytest.mark.parametrize(
    "answer",
    [
        "UNKNOWN (HTTP status 503)",
        "UNKNOWN (HTTP status 429)",
        # An expired key: with one part of the requests refused for it, the rows behind them are not bad.
        "UNKNOWN (HTTP status 400)",
        "SLOW_DOWN",
        "NETWORK_CONNECTION",
    ],
)
def test_a_store_that_does_not_serve_says_nothing_of_a_file(answer: str) -> None:
    assert is_passing(OSError(OF_S3.format(answer)))


@pytest.mark.parametrize("answer", ["ACCESS_DENIED", "NO_SUCH_BUCKET", "UNKNOWN (HTTP status 416)"])
def test_what_is_refused_for_itself_is_its_own_fault(answer: str) -> None:
    assert not is_passing(OSError(OF_S3.format(answer)))


def test_failures_of_the_machine_pass_and_those_of_a_file_do_not(tmp_path: Path) -> None:
    for number in (errno.EMFILE, errno.ESTALE, errno.EIO, errno.ETIMEDOUT):
        assert is_passing(OSError(number, "as the system says it"))
    assert is_passing(ConnectionResetError()) and is_passing(TimeoutError())
    assert is_passing(pa.ArrowMemoryError("malloc of size 1 failed"))
    for missing in (tmp_path / "gone", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(OSError) as raised:
            fs.LocalFileSystem().open_input_file(str(missing))
        assert not is_passing(raised.value)
    assert not is_passing(OSError("Couldn't deserialize thrift: TProtocolException: Invalid data"))
    assert not is_passing(pa.ArrowInvalid("Parquet magic bytes not found in footer"))
    assert not is_passing(ValueError("google::cloud::Status(UNAVAILABLE: later)"))


def test_an_error_of_googles_store_without_a_number_is_the_stores() -> None:
    assert is_passing(OSError("google::cloud::Status(UNAVAILABLE: Service Unavailable)"))
    assert is_passing(pa.ArrowCapacityError("google::cloud::Status(RESOURCE_EXHAUSTED: Too many requests)"))
    assert not is_passing(FileNotFoundError(errno.ENOENT, "google::cloud::Status(NOT_FOUND: No such object)"))


def test_what_passes_is_tried_again_until_it_has_passed() -> None:
    failures = [ConnectionResetError()] * len(PAUSES_S)

    def work() -> int:
        if failures:
            raise failures.pop()
        return 7

    assert patiently(work, what="s3://bucket/a") == 7


def test_what_lasts_is_an_error_that_names_the_place_and_the_last_failure() -> None:
    calls = []

    def work() -> None:
        calls.append(None)
        raise OSError(OF_S3.format("SLOW_DOWN"))

    with pytest.raises(
        UnavailableError, match=r"reads and writes must get through, got 6 failures in a row at s3://b/a\. .*SLOW_DOWN"
    ):
        patiently(work, what="s3://b/a")
    assert len(calls) == 6


def test_the_fault_of_a_file_is_raised_at_once() -> None:
    calls = []

    def work() -> None:
        calls.append(None)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    with pytest.raises(FileNotFoundError):
        patiently(work, what="a")
    assert len(calls) == 1
