"""The engine over real studies: what it hands out, in what order, and that a kill loses and repeats nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from search_examples import NUM_STAGES, a_search, a_trial

from orchestrator.records import EpochMetrics, Hyperparameters, RaceRun, Trial
from orchestrator.search.assignments import Assignment
from orchestrator.search.engine import EngineSettings, SearchEngine
from orchestrator.search.finals import Finals, GroupFacts
from orchestrator.search.shared_list import shared_list
from orchestrator.search.space import SearchSpace
from orchestrator.search.spending import Spending
from orchestrator.search.stopping import StoppingRule
from orchestrator.search.studies import GroupStudy

SEARCH = a_search()
SPACE = SearchSpace.from_config(SEARCH, NUM_STAGES)
GROUPS = ("low", "high")


def predict(group: str, recipe: Hyperparameters) -> float:
    """Deeper is cheaper."""
    return recipe.epochs * (1.0 + NUM_STAGES - recipe.freeze_depth)


def accuracy(group: str, recipe: Hyperparameters) -> float:
    best = 4 if group == "low" else 3
    return 0.8 - 0.03 * abs(recipe.freeze_depth - best) + 0.2 * recipe.learning_rate


Opener = Callable[..., GroupStudy]


@pytest.fixture
def make_engine(open_study: Opener) -> Callable[..., SearchEngine]:
    """Open the studies where they are and put an engine over them."""

    def make(
        *,
        num_trials: int = 30,
        heads: int = 4,
        groups: Sequence[str] = GROUPS,
        race_runs: Sequence[RaceRun] = (),
        seconds: float | None = None,
        metric: str = "val_accuracy",
        elapsed_s: float = 0.0,
    ) -> SearchEngine:
        studies = {group: open_study(group=group, journal=f"{group}.log", search=SEARCH) for group in groups}
        for study in studies.values():
            study.reconcile()
            for recipe in shared_list(SPACE, num_stages=NUM_STAGES, heads=heads, others=3, seed=0):
                study.enqueue(recipe, "shared")
        settings = EngineSettings(
            spending=Spending(num_trials=num_trials, seconds=seconds),
            stopping=StoppingRule(),
            heads=heads,
            num_stages=NUM_STAGES,
            metric="val_loss" if metric == "val_loss" else "val_accuracy",
            seed=0,
        )
        fixed = SPACE.complete({"freeze_depth": NUM_STAGES, "learning_rate": 1e-4, "epochs": 8})
        facts = GroupFacts(num_train=500, num_validation=200, fixed_rule=fixed)
        return SearchEngine(
            studies,
            SPACE,
            settings,
            predict,
            lambda trials: Finals(
                trials=trials, facts=dict.fromkeys(groups, facts), metric=settings.metric, predict=predict
            ),
            race_runs=race_runs,
            elapsed_s=elapsed_s,
        )

    return make


def outcomes(assignment: Assignment) -> list[Trial]:
    return [
        a_trial(
            member.hyperparameters,
            accuracy(assignment.group, member.hyperparameters),
            trial_id=member.name,
            seconds=predict(assignment.group, member.hyperparameters),
        )
        for member in assignment.members
    ]


def run(engine: SearchEngine, *, workers: int = 2, most: int = 10**6) -> list[Assignment]:
    """Play the engine with several workers; give the assignments in the order they were handed out."""
    handed: list[Assignment] = []
    running: list[Assignment] = []
    while len(handed) < most:
        following = engine.next(elapsed_s=float(len(handed)))
        if isinstance(following, Assignment):
            handed.append(following)
            running.append(following)
        if len(running) >= workers or not isinstance(following, Assignment):
            if not running:
                break
            ended = running.pop(0)
            engine.finish(ended.name, outcomes(ended))
    return handed


def test_the_budget_holds_and_a_fifth_is_left_to_the_race(make_engine: Callable[..., SearchEngine]) -> None:
    handed = run(make_engine(num_trials=30))
    trials = sum(len(assignment.members) for assignment in handed if assignment.kind != "race")
    races = sum(assignment.kind == "race" for assignment in handed)
    assert trials == 24 and 0 < races <= 6
    assert all(engine_part.kind != "race" for engine_part in handed[: trials // 4])


def test_heads_go_together_and_the_cheapest_listed_trials_first(make_engine: Callable[..., SearchEngine]) -> None:
    handed = run(make_engine())
    assert [assignment.kind for assignment in handed[:2]] == ["heads", "heads"]
    assert {assignment.group for assignment in handed[:2]} == set(GROUPS)
    for assignment in handed:
        depths = {member.hyperparameters.freeze_depth for member in assignment.members}
        assert assignment.kind != "heads" or depths == {NUM_STAGES}
        assert assignment.kind != "trial" or depths != {NUM_STAGES}
        assert len(assignment.members) <= 4


def test_a_groups_find_is_tried_by_the_others(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(num_trials=60)
    run(engine)
    origins = Counter(trial.origin for trials in engine.finals().trials.values() for trial in trials)
    assert origins["promoted"] > 0
    assert origins["fixed_rule"] == len(GROUPS)
    recipes = {
        group: {trial.hyperparameters for trial in trials if trial.origin in ("promoted", "sampler")}
        for group, trials in engine.finals().trials.items()
    }
    assert recipes["low"] & recipes["high"]


def test_every_group_gets_a_recipe_at_the_end(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(num_trials=60)
    run(engine)
    chosen = {group: engine.finals().recipe(group) for group in GROUPS}
    assert all(abs(recipe.hyperparameters.freeze_depth - 3.5) <= 1.5 for recipe in chosen.values())
    assert all(recipe.runs > 0 for recipe in chosen.values())


def test_a_killed_search_goes_on_where_it_was(make_engine: Callable[..., SearchEngine]) -> None:
    first = make_engine()
    before = run(first, most=9)
    finished = {trial.trial_id for trials in first.finals().trials.values() for trial in trials}
    # Killed here: what was in flight is running in the studies, and nobody will end it.
    again = make_engine()
    after = run(again)
    trials = [trial for found in again.finals().trials.values() for trial in found]
    assert finished <= {trial.trial_id for trial in trials}
    assert not finished & {member.name for assignment in after for member in assignment.members}
    assert len(trials) == 24
    for group in GROUPS:
        recipes = [trial.hyperparameters for trial in again.finals().trials[group]]
        assert len(set(recipes)) == len(recipes)
    assert len(before) == 9


def test_a_resumed_race_runs_only_what_is_missing(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(num_trials=60)
    whole = run(engine)
    races = [assignment.race for assignment in whole if assignment.race is not None]
    resumed = make_engine(num_trials=60, race_runs=engine.race_runs[:2])
    following = [assignment.race for assignment in run(resumed) if assignment.race is not None]
    assert {race.name for race in following if race} == {race.name for race in races if race} - {
        race.name for race in engine.race_runs[:2]
    }


def test_the_same_studies_give_the_same_search(
    open_study: Opener, make_engine: Callable[..., SearchEngine], tmp_path: Path
) -> None:
    names = [[member.hyperparameters for assignment in run(make_engine()) for member in assignment.members]]
    for path in tmp_path.glob("*.log*"):
        path.unlink()
    names.append([member.hyperparameters for assignment in run(make_engine()) for member in assignment.members])
    assert names[0] == names[1]


def test_no_trial_starts_when_the_time_is_spent(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(seconds=10.0, elapsed_s=9.0)
    assert engine.next(elapsed_s=10.0) is None


def epoch(number: int, value: float) -> EpochMetrics:
    return EpochMetrics(epoch=number, train_loss=1.0, val_loss=1.0 - value, val_accuracy=value)


def single_trial(engine: SearchEngine) -> Assignment:
    while True:
        following = engine.next(elapsed_s=0.0)
        assert isinstance(following, Assignment)
        if following.kind == "trial" and following.members[0].hyperparameters.epochs >= 4:
            return following
        engine.finish(following.name, outcomes(following))


def test_a_trial_that_falls_behind_at_a_rung_is_stopped(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine()
    trial = single_trial(engine)
    quarter = trial.members[0].hyperparameters.epochs // 4
    told = [engine.report(trial.name, epoch(number, 0.01), elapsed_s=0.0) for number in range(1, quarter + 1)]
    # The trials before it are histories of one epoch: they had not come that far when quarter is later.
    assert told[:-1] == [False] * (quarter - 1)
    assert engine.epochs_of(trial.name)[-1].val_accuracy == 0.01


def test_a_running_trial_is_stopped_when_the_time_is_spent(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(seconds=100.0)
    trial = single_trial(engine)
    assert not engine.report(trial.name, epoch(1, 0.9), elapsed_s=99.0)
    assert engine.report(trial.name, epoch(2, 0.9), elapsed_s=100.0)


def test_a_failed_trial_is_a_result_and_the_search_goes_on(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(num_trials=12)
    first = engine.next(elapsed_s=0.0)
    assert isinstance(first, Assignment)
    failed = [
        a_trial(member.hyperparameters, None, status="failed", error="out of memory", trial_id=member.name)
        for member in first.members
    ]
    assert engine.finish(first.name, failed) == first
    assert engine.finish(first.name, failed) is None
    run(engine)
    trials = [trial for found in engine.finals().trials.values() for trial in found]
    assert sum(trial.status == "failed" for trial in trials) == len(first.members)
    assert len(trials) == 10
