import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from search_examples import NUM_STAGES, a_search, a_trial, accuracy_of, run_to_the_end

from orchestrator.errors import SearchError
from orchestrator.records import EpochMetrics, Hyperparameters
from orchestrator.search.studies import GroupStudy

Opener = Callable[..., GroupStudy]


def read_journal(path: Path, name: str = "run-low") -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=name, storage=storage).trials


def test_the_first_trial_is_the_fixed_rule_clipped_to_the_space(open_study: Opener) -> None:
    study = open_study()
    number, first = study.ask() or pytest.fail("nothing asked")
    # The rule says 1e-5 and 50 epochs; the space ends at 1e-4 and 8.
    assert (number, first.freeze_depth, first.learning_rate, first.epochs) == (0, NUM_STAGES, 1e-4, 8)
    study.record(number, a_trial(first))
    study.record(*_answered(study))
    assert [trial.origin for trial in study.trials()] == ["fixed_rule", "sampler"]


def _answered(study: GroupStudy) -> tuple[int, object]:
    number, hyperparameters = study.ask() or pytest.fail("nothing asked")
    return number, a_trial(hyperparameters, accuracy_of(hyperparameters))


def test_no_more_than_num_samples_trials_are_asked(open_study: Opener) -> None:
    study = open_study(search=a_search(num_samples=3))
    started = [study.ask() for _ in range(3)]
    assert None not in started
    assert study.ask() is None
    for number, hyperparameters in filter(None, started):
        study.record(number, a_trial(hyperparameters))
    assert study.ask() is None
    assert (study.progress().running, study.progress().finished) == (0, 3)


def test_a_completed_trial_is_read_back_as_it_was_recorded(open_study: Opener) -> None:
    study = open_study()
    number, hyperparameters = study.ask() or pytest.fail("nothing asked")
    history = [EpochMetrics(epoch=e, train_loss=1 / e, val_loss=2 / e, val_accuracy=0.1 * e) for e in (1, 2, 3)]
    recorded = a_trial(hyperparameters, 0.3, history=history, seconds=12.25, started=1234.5)
    study.record(number, recorded)
    expected = recorded.model_copy(update={"trial_id": "low-0", "origin": "fixed_rule"})
    assert study.trials() == [expected]
    assert open_study().trials() == [expected]


def test_intermediate_values_follow_the_metric_by_epoch(open_study: Opener, tmp_path: Path) -> None:
    study = open_study()
    number, hyperparameters = study.ask() or pytest.fail("nothing asked")
    history = [EpochMetrics(epoch=e, train_loss=1, val_loss=2, val_accuracy=0.1 * e) for e in (1, 2)]
    study.record(number, a_trial(hyperparameters, history=history))
    assert read_journal(tmp_path / "journal.log")[0].intermediate_values == {1: 0.1, 2: 0.2}


def test_a_failed_trial_keeps_its_error_and_counts_against_the_budget(open_study: Opener) -> None:
    study = open_study(search=a_search(num_samples=1))
    number, hyperparameters = study.ask() or pytest.fail("nothing asked")
    study.record(number, a_trial(hyperparameters, None, status="failed", error="out of memory"))
    (failed,) = study.trials()
    assert (failed.status, failed.value, failed.error) == ("failed", None, "out of memory")
    assert study.ask() is None


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_not_finite_makes_the_trial_failed(open_study: Opener, value: float | None) -> None:
    study = open_study()
    number, hyperparameters = study.ask() or pytest.fail("nothing asked")
    diverged = EpochMetrics(epoch=2, train_loss=math.nan, val_loss=1, val_accuracy=0.1)
    good = EpochMetrics(epoch=1, train_loss=1, val_loss=1, val_accuracy=0.1)
    study.record(number, a_trial(hyperparameters, value, history=[good, diverged]))
    (failed,) = study.trials()
    assert failed.status == "failed"
    assert failed.error is not None and "finite" in failed.error
    assert failed.history == [good]


def test_a_trial_can_be_recorded_only_while_it_runs(open_study: Opener) -> None:
    study = open_study()
    number, hyperparameters = study.ask() or pytest.fail("nothing asked")
    with pytest.raises(SearchError, match="only a running trial"):
        study.record(number + 1, a_trial(hyperparameters))
    study.record(number, a_trial(hyperparameters))
    with pytest.raises(SearchError, match="only a running trial"):
        study.record(number, a_trial(hyperparameters))


def test_the_same_seeds_give_the_same_search(open_study: Opener) -> None:
    asked = run_to_the_end(open_study(journal="a.log"))
    assert run_to_the_end(open_study(journal="b.log")) == asked
    assert run_to_the_end(open_study(journal="c.log", seed=8))[1:] != asked[1:]


def test_a_search_continued_by_another_process_goes_on_as_if_never_left(open_study: Opener) -> None:
    whole = run_to_the_end(open_study(journal="whole.log"))
    parts = []
    for _ in whole:
        study = open_study(journal="parts.log")
        assert study.reconcile() == 0
        number, hyperparameters = study.ask() or pytest.fail("nothing asked")
        parts.append(hyperparameters)
        study.record(number, a_trial(hyperparameters, accuracy_of(hyperparameters)))
    assert parts == whole
    assert open_study(journal="parts.log").ask() is None


def test_several_groups_share_a_journal_without_mixing(open_study: Opener) -> None:
    low, high = open_study(group="low"), open_study(group="high")
    first_low, first_high = run_to_the_end(low), run_to_the_end(high)
    assert [trial.hyperparameters for trial in low.trials()] == first_low
    assert [trial.hyperparameters for trial in high.trials()] == first_high
    assert first_low[1:] != first_high[1:]


def test_trials_that_run_at_the_same_time_differ(open_study: Opener) -> None:
    study = open_study(search=a_search(num_samples=16))
    asked = [study.ask() for _ in range(16)]
    assert len({str(hyperparameters) for _, hyperparameters in filter(None, asked)}) == 16


def test_an_interrupted_trial_is_asked_again_and_costs_nothing(open_study: Opener) -> None:
    search = a_search(num_samples=3)
    dying = open_study(search=search)
    dying.record(*_answered(dying))
    lost = [dying.ask(), dying.ask()]
    assert dying.ask() is None

    study = open_study(search=search)
    assert study.reconcile() == 2
    assert (study.progress().running, study.progress().finished) == (0, 1)
    again = [study.ask(), study.ask()]
    assert [h for _, h in filter(None, again)] == [h for _, h in filter(None, lost)]
    assert study.ask() is None
    for number, hyperparameters in filter(None, again):
        study.record(number, a_trial(hyperparameters))
    assert len(study.trials()) == 3


def test_the_fixed_rule_keeps_its_origin_through_interruptions(open_study: Opener) -> None:
    open_study().ask()
    for _ in range(2):
        study = open_study()
        assert study.reconcile() == 1
        number, hyperparameters = study.ask() or pytest.fail("nothing asked")
    study.record(number, a_trial(hyperparameters))
    study.record(*_answered(study))
    assert [trial.origin for trial in study.trials()] == ["fixed_rule", "sampler"]


def test_reconciling_again_changes_nothing(open_study: Opener, tmp_path: Path) -> None:
    open_study().ask()
    assert [open_study().reconcile() for _ in range(3)] == [1, 0, 0]
    states = [trial.state for trial in read_journal(tmp_path / "journal.log")]
    assert states == [TrialState.FAIL, TrialState.WAITING]


def test_dying_while_reconciling_queues_no_trial_twice(open_study: Opener, tmp_path: Path) -> None:
    open_study().ask()
    journal = tmp_path / "journal.log"
    before = journal.read_bytes()
    open_study().reconcile()
    entries = journal.read_bytes()[len(before) :].splitlines(keepends=True)
    for kept in range(len(entries) + 1):
        journal.write_bytes(before + b"".join(entries[:kept]))
        study = open_study()
        study.reconcile()
        states = [trial.state for trial in read_journal(journal)]
        assert states == [TrialState.FAIL, TrialState.WAITING], f"died after {kept} entries"


def test_dying_while_asking_loses_and_repeats_nothing(open_study: Opener, tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    study = open_study()
    study.record(*_answered(study))
    before = journal.read_bytes()
    _, expected = study.ask() or pytest.fail("nothing asked")
    entries = journal.read_bytes()[len(before) :].splitlines(keepends=True)
    for kept in range(len(entries) + 1):
        journal.write_bytes(before + b"".join(entries[:kept]))
        resumed = open_study()
        resumed.reconcile()
        _, hyperparameters = resumed.ask() or pytest.fail("nothing asked")
        assert hyperparameters == expected, f"died after {kept} entries"
        assert resumed.progress().asked == 2


def test_an_entry_torn_by_a_crash_is_dropped(open_study: Opener, tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    study = open_study()
    study.record(*_answered(study))
    whole = study.trials()
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":4,"worker_id":"x')
    reopened = open_study()
    assert reopened.trials() == whole
    reopened.record(*_answered(reopened))
    assert len(open_study().trials()) == 2


def test_a_killed_process_is_resumed_where_it_stopped(open_study: Opener, tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from search_examples import NUM_STAGES, a_search, a_trial, accuracy_of
from orchestrator.search.rules import fixed_rule
from orchestrator.search.space import SearchSpace
from orchestrator.search.studies import GroupStudy
search = a_search()
study = GroupStudy.open(
    Path(sys.argv[1]), group="low", name="run-low", space=SearchSpace.from_config(search, NUM_STAGES),
    search=search, seed=7, first=fixed_rule(1.0, num_stages=NUM_STAGES, search=search),
)
for _ in range(2):
    number, hyperparameters = study.ask()
    study.record(number, a_trial(hyperparameters, accuracy_of(hyperparameters)))
study.ask()
os._exit(9)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "killed.log")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == 9

    whole = run_to_the_end(open_study(journal="whole.log"))
    study = open_study(journal="killed.log")
    assert [trial.hyperparameters for trial in study.trials()] == whole[:2]
    assert study.reconcile() == 1
    rest = run_to_the_end(study)
    assert rest[0] == whole[2]
    assert len(study.trials()) == 6
    assert _distinct(study) == 6


def _distinct(study: GroupStudy) -> int:
    return len({str(trial.hyperparameters) for trial in study.trials()})


def test_a_relative_journal_path_works(open_study: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = GroupStudy.open(
        Path("studies/journal.log"),
        group="low",
        name="run-low",
        space=open_study()._space,
        search=a_search(),
        seed=7,
        first=Hyperparameters(
            freeze_depth=1, learning_rate=1e-3, epochs=4, batch_size=32, optimizer="adam", weight_decay=0
        ),
    )
    study.record(*_answered(study))
    assert (tmp_path / "studies" / "journal.log").exists()
