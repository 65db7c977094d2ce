"""The ledger carries races and the clock of a search over restarts, and survives a crash while writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.records import Hyperparameters, RaceRun, Trial
from orchestrator.stages.journals import Journal
from orchestrator.stages.ledger import SearchLedger

RECIPE = Hyperparameters(
    freeze_depth=6, learning_rate=1e-3, epochs=2, batch_size=32, weight_decay=0.0, optimizer="adam"
)
TRIAL = Trial(
    trial_id="low-0",
    hyperparameters=RECIPE,
    status="complete",
    value=0.5,
    history=[],
    seconds=2.0,
    error=None,
    started=0.0,
    inputs="pixels",
)
RUN = RaceRun(group="low", recipe="a", hyperparameters=RECIPE, resplit=1, predicted_s=1.0, value=0.6, seconds=1.5)


def ledger(directory: Path, **studies: str) -> SearchLedger:
    return SearchLedger(Journal(str(directory / "search" / "ledger.jsonl")), studies or {"low": "a"})


def test_race_runs_are_found_again(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    first.append("low", "trial", [TRIAL], None)
    first.append("low", "race", [TRIAL], RUN)
    assert ledger(tmp_path).race_runs == [RUN]


def test_the_work_of_all_assignments_is_summed(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    first.append("low", "trial", [TRIAL], None)
    first.append("low", "heads", [TRIAL, TRIAL], None)
    assert ledger(tmp_path).worked_s == pytest.approx(6.0)


def test_the_clock_goes_on_where_the_last_entry_stopped_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    first = ledger(tmp_path)
    now[0] += 30
    first.append("low", "trial", [TRIAL], None)
    now[0] += 3600  # the time in between, in which nothing ran
    second = ledger(tmp_path)
    assert second.elapsed_s() == pytest.approx(30)
    now[0] += 5
    assert second.elapsed_s() == pytest.approx(35)


def test_the_time_of_a_trial_that_never_ended_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    first = ledger(tmp_path)
    for _ in range(1000):
        now[0] += 1
        first.keep_time()
    # Killed here.
    assert 960 <= ledger(tmp_path).elapsed_s() <= 1000
    assert len((tmp_path / "search" / "ledger.jsonl").read_text().splitlines()) < 40


def test_entries_of_another_study_do_not_count(tmp_path: Path) -> None:
    ledger(tmp_path, low="a").append("low", "race", [TRIAL], RUN)
    changed = ledger(tmp_path, low="b")
    assert changed.race_runs == []
    assert changed.elapsed_s() == pytest.approx(0, abs=1)


@pytest.mark.parametrize("lost", [1, 20])
def test_a_line_that_a_crash_cut_off_is_left_out_and_glued_to_nothing(tmp_path: Path, lost: int) -> None:
    first = ledger(tmp_path)
    first.append("low", "race", [TRIAL], RUN)
    first.append("low", "race", [TRIAL], RUN.model_copy(update={"resplit": 2}))
    path = tmp_path / "search" / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-lost])
    second = ledger(tmp_path)
    assert RUN in second.race_runs
    second.append("low", "race", [TRIAL], RUN.model_copy(update={"resplit": 3}))
    assert [run.resplit for run in ledger(tmp_path).race_runs] == ([1, 2, 3] if lost == 1 else [1, 3])
