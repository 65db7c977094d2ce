"""Records are found only when made from the same inputs, and a run directory has one owner."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path

import pytest

from orchestrator import runs
from orchestrator.errors import RecordError, RunLockedError
from orchestrator.records import Costs, StageCost
from orchestrator.runs import RunDirectory, folder_name

RECORD = Costs(fingerprint="abc", stages=[StageCost(stage="search", seconds=1.5, trials=3)])


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path / "run"))


def test_a_written_record_is_found_by_its_fingerprint_alone(directory: RunDirectory) -> None:
    directory.write("costs.json", RECORD)
    assert directory.find("costs.json", Costs, "abc") == RECORD
    assert directory.find("costs.json", Costs, "other") is None
    assert directory.find("missing.json", Costs, "abc") is None


def test_a_torn_record_counts_as_missing(directory: RunDirectory) -> None:
    directory.write("costs.json", RECORD)
    path = Path(directory.path("costs.json"))
    path.write_text(path.read_text()[:-20])
    assert directory.find("costs.json", Costs, "abc") is None


def test_a_missing_and_a_stale_record_name_the_stage_to_run_first(directory: RunDirectory) -> None:
    with pytest.raises(RecordError, match=r"must exist before this stage.*Run `orchestrator profile`"):
        directory.require("costs.json", Costs, "abc", stage="profile")
    directory.write("costs.json", RECORD)
    with pytest.raises(RecordError, match="was made from other inputs"):
        directory.require("costs.json", Costs, "new", stage="profile")


def _try_to_own(uri: str, queue: multiprocessing.Queue[str]) -> None:
    try:
        with RunDirectory(uri).owned():
            queue.put("owned")
    except RunLockedError as error:
        queue.put(str(error))


def _from_another_process(uri: str) -> str:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_try_to_own, args=(uri, queue))
    process.start()
    answer = queue.get(timeout=60)
    process.join()
    return answer


def test_a_second_run_is_refused_naming_the_owner_and_may_start_when_the_first_has_ended(
    directory: RunDirectory,
) -> None:
    with directory.owned():
        refusal = _from_another_process(directory.uri)
    assert "a run directory has one live run at a time" in refusal
    assert f'"pid": {multiprocessing.current_process().pid}' in refusal
    assert _from_another_process(directory.uri) == "owned"


def test_a_remote_lease_is_refused_while_fresh_and_taken_over_when_its_owner_is_silent(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = runs._RemoteLease(directory.uri)
    lease.acquire()
    with pytest.raises(RunLockedError, match="owned by"):
        runs._RemoteLease(directory.uri).acquire()
    monkeypatch.setattr(runs, "LEASE_S", 0.0)
    successor = runs._RemoteLease(directory.uri)
    successor.acquire()
    successor.release()
    lease.release()


@pytest.mark.parametrize("name", ["north", "camera_7", "a-b"])
def test_a_plain_name_is_a_folder_of_its_own_name(name: str) -> None:
    assert folder_name(name) == name


def test_other_names_become_ones_that_any_file_system_takes_and_none_shares() -> None:
    names = ["a/b", "a b", "a b ", "a.b", "..", ".", "", "café", "a%2Eb", "models.json", "x" * 300, "x" * 301]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,100}", folder) for folder in folders)
