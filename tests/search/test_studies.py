import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from search_examples import NUM_STAGES, a_search, a_trial, accuracy_of, ask_next, run_to_the_end

from orchestrator.errors import SearchError, StorageError
from orchestrator.records import EpochMetrics, Hyperparameters, Trial
from orchestrator.search.studies import GroupStudy

Opener = Callable[..., GroupStudy]


def read_journal(path: Path, name: str = "run-low") -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=name, storage=storage).trials


def test_the_first_trial_is_the_fixed_rule_clipped_to_the_space(open_study: Opener) -> None:
    study = open_study()
    number, first = ask_next(study)
    # The rule says 1e-5 and 50 epochs; the space ends at 1e-4 and 8.
    assert (number, first.freeze_depth, first.learning_rate, first.epochs) == (0, NUM_STAGES, 1e-4, 8)
    study.record(number, a_trial(first))
    study.record(*_answered(study))
    assert [trial.origin for trial in study.trials()] == ["fixed_rule", "sampler"]


def _answered(study: GroupStudy) -> tuple[int, object]:
    number, hyperparameters = ask_next(study)
    return number, a_trial(hyperparameters, accuracy_of(hyperparameters))


def test_a_completed_trial_is_read_back_as_it_was_recorded(open_study: Opener) -> None:
    study = open_study()
    number, hyperparameters = ask_next(study)
    history = [EpochMetrics(epoch=e, train_loss=1 / e, val_loss=2 / e, val_accuracy=0.1 * e) for e in (1, 2, 3)]
    recorded = a_trial(hyperparameters, 0.3, history=history, seconds=12.25, started=1234.5, standard_error=0.02)
    study.record(number, recorded)
    expected = recorded.model_copy(update={"trial_id": "low-0", "origin": "fixed_rule"})
    assert study.trials() == [expected]
    assert open_study().trials() == [expected]


def test_chosen_augmentations_are_drawn_kept_and_read_back(open_study: Opener) -> None:
    search = a_search(flip=[False, True], erasing={"low": 0.0, "high": 0.5}, randaugment={"low": 0, "high": 2})
    study = open_study(search=search)
    earlier = Hyperparameters(freeze_depth=1, learning_rate=1e-3, epochs=4, flip=True, erasing=0.4, colour=0.3)
    assert study.enqueue(earlier, "warm_start") and not study.enqueue(earlier, "shared")
    drawn = []
    for _ in range(6):
        number, hyperparameters = ask_next(study)
        study.record(number, a_trial(hyperparameters, accuracy_of(hyperparameters)))
        drawn.append(hyperparameters)
    assert drawn[0].own_augmentations == {"flip": False, "erasing": 0.0, "randaugment": 0}
    assert drawn[1].own_augmentations == {"flip": True, "erasing": 0.4, "randaugment": 0}
    assert [trial.hyperparameters for trial in open_study(search=search).trials()] == drawn


def test_intermediate_values_follow_the_metric_by_epoch(open_study: Opener, tmp_path: Path) -> None:
    study = open_study()
    number, hyperparameters = ask_next(study)
    history = [EpochMetrics(epoch=e, train_loss=1, val_loss=2, val_accuracy=0.1 * e) for e in (1, 2)]
    study.record(number, a_trial(hyperparameters, history=history))
    assert read_journal(tmp_path / "journal.log")[0].intermediate_values == {1: 0.1, 2: 0.2}


def test_a_failed_trial_keeps_its_error_and_counts_as_started(open_study: Opener) -> None:
    study = open_study()
    number, hyperparameters = ask_next(study)
    study.record(number, a_trial(hyperparameters, None, status="failed", error="out of memory"))
    (failed,) = study.trials()
    assert (failed.status, failed.value, failed.error) == ("failed", None, "out of memory")
    assert study.progress() == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_not_finite_makes_the_trial_failed(open_study: Opener, value: float | None) -> None:
    study = open_study()
    number, hyperparameters = ask_next(study)
    diverged = EpochMetrics(epoch=2, train_loss=math.nan, val_loss=1, val_accuracy=0.1)
    good = EpochMetrics(epoch=1, train_loss=1, val_loss=1, val_accuracy=0.1)
    study.record(number, a_trial(hyperparameters, value, history=[good, diverged]))
    (failed,) = study.trials()
    assert failed.status == "failed"
    assert failed.error is not None and "finite" in failed.error
    assert failed.history == [good]


def test_a_trial_can_be_recorded_only_while_it_runs(open_study: Opener) -> None:
    study = open_study()
    number, hyperparameters = ask_next(study)
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
        number, hyperparameters = ask_next(study)
        parts.append(hyperparameters)
        study.record(number, a_trial(hyperparameters, accuracy_of(hyperparameters)))
    assert parts == whole


def test_several_groups_share_a_journal_without_mixing(open_study: Opener) -> None:
    low, high = open_study(group="low"), open_study(group="high")
    first_low, first_high = run_to_the_end(low), run_to_the_end(high)
    assert [trial.hyperparameters for trial in low.trials()] == first_low
    assert [trial.hyperparameters for trial in high.trials()] == first_high
    assert first_low[1:] != first_high[1:]


def test_trials_that_run_at_the_same_time_differ(open_study: Opener) -> None:
    study = open_study()
    asked = [ask_next(study) for _ in range(16)]
    assert len({str(hyperparameters) for _, hyperparameters in asked}) == 16
    assert [number for number, _ in asked] == list(range(16))


def test_interrupted_trials_are_asked_again_in_their_order_and_count_once(open_study: Opener) -> None:
    dying = open_study()
    dying.record(*_answered(dying))
    lost = [ask_next(dying), ask_next(dying)]
    assert dying.progress() == 3

    study = open_study()
    assert study.reconcile() == 2
    assert study.progress() == 1
    assert study.queued() == [hyperparameters for _, hyperparameters in lost]
    again = [study.ask("listed"), study.ask("listed")]
    assert [h for _, h in filter(None, again)] == [h for _, h in lost]
    assert study.ask("listed") is None
    for number, hyperparameters in filter(None, again):
        study.record(number, a_trial(hyperparameters))
    assert len(study.trials()) == study.progress() == 3


def test_the_fixed_rule_keeps_its_origin_through_interruptions(open_study: Opener) -> None:
    ask_next(open_study())
    for _ in range(2):
        study = open_study()
        assert study.reconcile() == 1
        number, hyperparameters = ask_next(study)
    study.record(number, a_trial(hyperparameters))
    study.record(*_answered(study))
    assert [trial.origin for trial in study.trials()] == ["fixed_rule", "sampler"]


def test_reconciling_again_changes_nothing(open_study: Opener, tmp_path: Path) -> None:
    ask_next(open_study())
    assert [open_study().reconcile() for _ in range(3)] == [1, 0, 0]
    states = [trial.state for trial in read_journal(tmp_path / "journal.log")]
    assert states == [TrialState.FAIL, TrialState.WAITING]


def test_dying_while_reconciling_queues_no_trial_twice(open_study: Opener, tmp_path: Path) -> None:
    ask_next(open_study())
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


@pytest.mark.parametrize("origin", ["listed", "sampler"])
def test_dying_while_asking_loses_and_repeats_nothing(
    open_study: Opener, tmp_path: Path, origin: Literal["listed", "sampler"]
) -> None:
    journal = tmp_path / "journal.log"
    study = open_study()
    study.record(*_answered(study))
    if origin == "listed":
        study.enqueue(RECIPES[0], "shared")
    before = journal.read_bytes()
    _, expected = study.ask(origin) or pytest.fail("nothing asked")
    entries = journal.read_bytes()[len(before) :].splitlines(keepends=True)
    for kept in range(len(entries) + 1):
        journal.write_bytes(before + b"".join(entries[:kept]))
        resumed = open_study()
        resumed.reconcile()
        number, hyperparameters = ask_next(resumed)
        assert hyperparameters == expected, f"died after {kept} entries"
        assert resumed.progress() == 2
        resumed.record(number, a_trial(hyperparameters))
        expected_origin = "shared" if origin == "listed" else "sampler"
        assert [trial.origin for trial in resumed.trials()] == ["fixed_rule", expected_origin]


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
from search_examples import NUM_STAGES, a_search, a_trial, accuracy_of, ask_next
from orchestrator.search.rules import fixed_rule
from orchestrator.search.space import SearchSpace
from orchestrator.search.studies import GroupStudy
search = a_search()
study = GroupStudy.open(
    Path(sys.argv[1]), group="low", name="run-low", space=SearchSpace.from_config(search.space, NUM_STAGES),
    search=search, seed=7, first=fixed_rule(1.0, num_stages=NUM_STAGES, batch_size=32),
)
for _ in range(2):
    number, hyperparameters = ask_next(study)
    study.record(number, a_trial(hyperparameters, accuracy_of(hyperparameters)))
ask_next(study)
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


RECIPES = [
    Hyperparameters(freeze_depth=depth, learning_rate=rate, epochs=4, batch_size=32, optimizer="adam", weight_decay=0.0)
    for depth, rate in [(3, 1e-3), (2, 1e-2), (5, 3e-2)]
]


def test_listed_configurations_start_in_order_with_their_origins(open_study: Opener) -> None:
    study = open_study()
    assert [study.enqueue(recipe, "warm_start") for recipe in RECIPES[:2]] == [True, True]
    assert study.enqueue(RECIPES[2], "promoted")
    assert study.queued()[1:] == RECIPES
    started = [study.ask("listed") for _ in range(4)]
    assert study.ask("listed") is None
    assert study.queued() == []
    for number, hyperparameters in filter(None, started):
        study.record(number, a_trial(hyperparameters))
    assert [trial.hyperparameters for trial in study.trials()[1:]] == RECIPES
    assert [trial.origin for trial in study.trials()] == ["fixed_rule", "warm_start", "warm_start", "promoted"]


def test_a_configuration_that_the_study_knows_is_not_listed_again(open_study: Opener) -> None:
    study = open_study()
    assert study.enqueue(RECIPES[0], "shared")
    assert not study.enqueue(RECIPES[0], "promoted")
    outside = RECIPES[0].model_copy(update={"batch_size": 64})
    assert not study.enqueue(outside, "promoted"), "what is not searched makes no other configuration"
    study.record(*_answered(study))
    number, drawn = study.ask("sampler") or pytest.fail("nothing asked")
    assert not study.enqueue(drawn, "promoted"), "it runs"
    study.record(number, a_trial(drawn, None, status="failed", error="out of memory"))
    reopened = open_study()
    assert not reopened.enqueue(drawn, "promoted"), "it failed"
    assert not reopened.enqueue(RECIPES[0], "shared")
    assert len(reopened.queued()) == 1


def test_a_listed_configuration_is_clipped_to_the_space(open_study: Opener) -> None:
    study = open_study()
    study.enqueue(RECIPES[0].model_copy(update={"epochs": 50, "learning_rate": 1.0}), "warm_start")
    clipped = study.queued()[-1]
    assert (clipped.epochs, clipped.learning_rate) == (8, 1e-1)


def test_drawing_passes_over_what_is_listed(open_study: Opener) -> None:
    study = open_study()
    study.enqueue(RECIPES[0], "shared")
    before = study.queued()
    number, drawn = study.ask("sampler") or pytest.fail("nothing asked")
    assert drawn not in before
    assert study.queued() == before
    study.record(number, a_trial(drawn))
    assert [trial.origin for trial in study.trials()] == ["sampler"]


def test_the_candidate_that_the_caller_picks_is_started(open_study: Opener) -> None:
    study = open_study(num_candidates=5)
    shown: list[list[Hyperparameters]] = []

    def pick_the_cheapest(drawn: list[Hyperparameters]) -> int:
        shown.append(drawn)
        return min(range(len(drawn)), key=lambda index: (drawn[index].epochs, index))

    _, started = study.ask("sampler", pick_the_cheapest) or pytest.fail("nothing asked")
    assert len({str(candidate) for candidate in shown[0]}) == len(shown[0]) == 5
    assert started == shown[0][pick_the_cheapest(shown[0])]
    assert study.progress() == 1, "the other candidates leave no trace"
    assert open_study(journal="other.log").ask("sampler") != started


def test_many_with_fixed_values_are_new_and_differ(open_study: Opener) -> None:
    study = open_study()
    first = ask_next(study)
    asked = study.ask_many(6, {"freeze_depth": NUM_STAGES})
    assert {hyperparameters.freeze_depth for _, hyperparameters in asked} == {NUM_STAGES}
    assert len({str(hyperparameters) for _, hyperparameters in [first, *asked]}) == 7
    for number, hyperparameters in asked:
        study.record(number, a_trial(hyperparameters))
    assert [trial.hyperparameters for trial in study.trials()] == [found for _, found in asked]


def test_a_space_without_anything_new_repeats_the_configuration_tried_longest_ago(open_study: Opener) -> None:
    search = a_search(freeze_depth=[0, NUM_STAGES], learning_rate=[1e-3], epochs=[2])
    study = open_study(search=search)
    asked = [ask_next(study)[1].freeze_depth for _ in range(5)]
    assert asked == [NUM_STAGES, 0, NUM_STAGES, 0, NUM_STAGES]
    assert study.ask_many(3, {"freeze_depth": 0}) == []


def _stopped(hyperparameters: Hyperparameters) -> Trial:
    history = [
        EpochMetrics(epoch=epoch, train_loss=1, val_loss=2, val_accuracy=value) for epoch, value in [(1, 0.4), (2, 0.3)]
    ]
    return a_trial(hyperparameters, 0.4, status="stopped", history=history, inputs="activations")


def test_a_stopped_trial_is_pruned_to_optuna_and_keeps_its_best_value(open_study: Opener, tmp_path: Path) -> None:
    study = open_study()
    number, hyperparameters = ask_next(study)
    study.record(number, _stopped(hyperparameters))
    (pruned,) = read_journal(tmp_path / "journal.log")
    assert (pruned.state, pruned.intermediate_values) == (TrialState.PRUNED, {1: 0.4, 2: 0.3})
    for read in (study, open_study()):
        (trial,) = read.trials()
        assert (trial.status, trial.value, trial.error, trial.inputs) == ("stopped", 0.4, None, "activations")
        assert len(trial.history) == 2


def test_a_stopped_trial_without_a_value_is_failed(open_study: Opener) -> None:
    study = open_study()
    number, hyperparameters = ask_next(study)
    study.record(number, a_trial(hyperparameters, None, status="stopped", history=[]))
    assert study.trials()[0].status == "failed"


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "cmaes"])
@pytest.mark.parametrize("kept", ["journal", "sqlite"])
def test_nothing_is_suggested_twice_over_kills(open_study: Opener, tmp_path: Path, sampler: str, kept: str) -> None:
    storage = None if kept == "journal" else f"sqlite:///{tmp_path}/studies.db"
    search = a_search().model_copy(update={"sampler": sampler})
    finished: list[Hyperparameters] = []
    in_flight: list[Hyperparameters] = []
    for _ in range(4):
        study = open_study(search=search, storage=storage)
        assert study.reconcile() == len(in_flight)
        for recipe in RECIPES:
            study.enqueue(recipe, "shared")
        again = [ask_next(study) for _ in in_flight]
        assert [hyperparameters for _, hyperparameters in again] == in_flight
        fresh = [study.ask("sampler", lambda drawn: len(drawn) - 1), ask_next(study), *study.ask_many(1, {"epochs": 8})]
        running = [*again, *filter(None, fresh)]
        for number, hyperparameters in running[:-2]:
            study.record(number, a_trial(hyperparameters, accuracy_of(hyperparameters)))
            finished.append(hyperparameters)
        in_flight = [hyperparameters for _, hyperparameters in running[-2:]]
    kept_trials = open_study(search=search, storage=storage).trials()
    assert sorted(str(trial.hyperparameters) for trial in kept_trials) == sorted(map(str, finished))
    assert len({str(hyperparameters) for hyperparameters in finished + in_flight}) == len(finished) + 2


def test_a_database_study_opens_in_plain_optuna(open_study: Opener, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    study = open_study(storage=url)
    whole = run_to_the_end(study)
    number, hyperparameters = ask_next(study)
    study.record(number, _stopped(hyperparameters))
    plain = optuna.load_study(study_name="run-low", storage=url)
    assert plain.best_value == max(accuracy_of(recipe) for recipe in whole)
    assert [trial.state for trial in plain.trials] == [TrialState.COMPLETE] * 6 + [TrialState.PRUNED]
    assert [trial.params["learning_rate"] for trial in plain.trials[:6]] == [recipe.learning_rate for recipe in whole]
    assert open_study(storage=url).trials() == study.trials()
    assert not (tmp_path / "journal.log").exists()


def test_a_database_gives_the_same_search_as_a_journal(open_study: Opener, tmp_path: Path) -> None:
    assert run_to_the_end(open_study(storage=f"sqlite:///{tmp_path}/studies.db")) == run_to_the_end(open_study())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:////no/such/place/studies.db", "unable to open database file"),
        ("postgresql://me:secret@nowhere/studies", "driver"),
        ("redis://nowhere", "Optuna can open"),
        ("studies.db", "Optuna can open"),
    ],
)
def test_a_database_that_cannot_be_opened_is_told_with_a_remedy(open_study: Opener, url: str, told: str) -> None:
    with pytest.raises(StorageError, match=told) as caught:
        open_study(storage=url)
    assert caught.value.remedy
    assert "secret" not in str(caught.value)


def test_a_stored_study_of_the_other_direction_is_refused(open_study: Opener) -> None:
    open_study()
    with pytest.raises(SearchError, match=r"must minimize val_loss.*study_name"):
        open_study(search=a_search().model_copy(update={"metric": "val_loss"}))
