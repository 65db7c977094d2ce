"""The engine over real studies: what it hands out, in what order, and that a kill loses and repeats nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from search_examples import NUM_STAGES, a_search, a_trial

from orchestrator.config import SearchConfig
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
SPACE = SearchSpace.from_config(SEARCH.space, NUM_STAGES)
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
        closed: Sequence[str] = (),
        target: float | None = None,
        stopping: StoppingRule | None = None,
        apart: Mapping[str, SearchConfig] | None = None,
    ) -> SearchEngine:
        searches = {group: (apart or {}).get(group, SEARCH) for group in groups}
        own = {group: SearchSpace.from_config(found.space, NUM_STAGES) for group, found in (apart or {}).items()}
        studies = {group: open_study(group=group, journal=f"{group}.log", search=searches[group]) for group in groups}
        for study in studies.values():
            study.reconcile()
            for recipe in shared_list(
                own.get(study.group, SPACE), num_stages=NUM_STAGES, heads=heads, others=3, seed=0
            ):
                study.enqueue(recipe, "shared")
        settings = EngineSettings(
            spending=Spending(num_trials=num_trials, seconds=seconds),
            stopping=stopping or StoppingRule(),
            heads=heads,
            num_stages=NUM_STAGES,
            metric="val_loss" if metric == "val_loss" else "val_accuracy",
            seed=0,
            target=target,
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
            closed=closed,
            apart=own,
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


def test_what_one_group_finds_stays_out_of_a_group_that_is_searched_in_another_space(
    make_engine: Callable[..., SearchEngine],
) -> None:
    engine = make_engine(num_trials=60, apart={"high": a_search(freeze_depth=[NUM_STAGES - 1, NUM_STAGES])})
    run(engine)
    trials = engine.finals().trials
    assert {trial.hyperparameters.freeze_depth for trial in trials["high"]} == {NUM_STAGES - 1, NUM_STAGES}
    assert len({trial.hyperparameters.freeze_depth for trial in trials["low"]}) > 2
    origins = Counter(trial.origin for found in trials.values() for trial in found)
    assert origins["promoted"] == 0 and origins["sampler"] > 0


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
    engine = make_engine(groups=("low",), num_trials=60, heads=1)
    for _ in range(12):
        assignment = engine.next(elapsed_s=0.0)
        assert isinstance(assignment, Assignment)
        (member,) = assignment.members
        history = [epoch(number, 0.8) for number in range(1, member.hyperparameters.epochs + 1)]
        engine.finish(assignment.name, [a_trial(member.hyperparameters, 0.8, trial_id=member.name, history=history)])
    behind, ahead = single_trial(engine), single_trial(engine)
    for trial, value, is_stopped in ((behind, 0.01, True), (ahead, 0.9, False)):
        quarter = trial.members[0].hyperparameters.epochs // 4
        told = [engine.report(trial.name, epoch(number, value), elapsed_s=0.0) for number in range(1, quarter + 1)]
        assert told == [False] * (quarter - 1) + [is_stopped]


def test_a_running_trial_is_stopped_when_the_time_of_the_search_is_spent(
    make_engine: Callable[..., SearchEngine],
) -> None:
    engine = make_engine(seconds=100.0)
    trial = single_trial(engine)
    # A fifth of the time is kept for the race.
    assert not engine.report(trial.name, epoch(1, 0.9), elapsed_s=79.0)
    assert engine.report(trial.name, epoch(2, 0.9), elapsed_s=80.0)


def test_a_trial_that_does_not_fit_the_time_left_is_not_drawn(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(seconds=100.0, heads=1)
    handed = []
    while isinstance(following := engine.next(elapsed_s=60.0), Assignment):
        handed.append(following)
        engine.finish(following.name, outcomes(following))
    assert handed
    assert all(assignment.seconds <= 20.0 for assignment in handed if assignment.kind != "race")


def test_a_trial_whose_worker_died_runs_once_more_and_fails_then(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(num_trials=60, groups=("low",), heads=1)
    first = engine.next(elapsed_s=0.0)
    assert isinstance(first, Assignment)
    assert engine.lose(first.name)
    second = engine.next(elapsed_s=0.0)
    assert isinstance(second, Assignment) and second.name != first.name
    assert second.members[0].hyperparameters == first.members[0].hyperparameters
    assert not engine.lose(second.name)
    assert engine.finish(second.name, outcomes(second)) == second
    assert [trial.trial_id for trial in engine.finals().trials["low"]] == [second.name]


def test_a_finalist_whose_worker_died_is_not_out(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(num_trials=60)
    while not (isinstance(following := engine.next(elapsed_s=0.0), Assignment) and following.kind == "race"):
        assert isinstance(following, Assignment)
        engine.finish(following.name, outcomes(following))
    assert engine.lose(following.name)
    assert engine.race_runs == []
    assert engine.next(elapsed_s=0.0) == following


def test_a_group_that_has_its_recipe_counts_and_is_not_searched(make_engine: Callable[..., SearchEngine]) -> None:
    whole = make_engine(num_trials=60)
    run(whole)
    chosen = {group: whole.finals().recipe(group) for group in GROUPS}
    # As after a kill between the two recipes: nothing is left to run, and the other one comes out the same.
    again = make_engine(num_trials=60, race_runs=whole.race_runs, closed=["low"])
    assert run(again) == []
    assert again.finals().recipe("high") == chosen["high"]
    more = make_engine(num_trials=80, race_runs=whole.race_runs, closed=["low"])
    assert {assignment.group for assignment in run(more)} == {"high"}


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


def test_a_group_that_has_reached_the_target_starts_no_more_trials(make_engine: Callable[..., SearchEngine]) -> None:
    # Only "low" has a depth that is worth this much.
    target = accuracy("low", SPACE.complete({"freeze_depth": 4, "learning_rate": 1e-4, "epochs": 4}))
    engine = make_engine(num_trials=60, target=target, groups=["low"])
    handed = [assignment for assignment in run(engine, workers=1) if assignment.kind != "race"]
    values = {trial.trial_id: trial.value or 0.0 for trial in engine.finals().trials["low"]}
    assert engine.has_reached("low") and len(values) < 48
    # Heads of one assignment end together.
    last = {member.name for member in handed[-1].members}
    assert max(values[name] for name in last) >= target
    assert all(value < target for name, value in values.items() if name not in last)


def test_heads_do_not_stop_what_learns_longer(make_engine: Callable[..., SearchEngine]) -> None:
    engine = make_engine(groups=["low"], num_trials=100, stopping=StoppingRule(least_seen=2))
    stopped: list[bool] = []
    for _ in range(40):
        assignment = engine.next(elapsed_s=0.0)
        assert isinstance(assignment, Assignment)
        if assignment.kind == "heads":
            ended = outcomes(assignment)
            # As good at once as they will ever be.
            whole = [epoch(number, 0.9) for number in range(1, 9)]
            engine.finish(assignment.name, [trial.model_copy(update={"history": whole}) for trial in ended])
            continue
        epochs = [epoch(number, 0.3) for number in range(1, assignment.members[0].hyperparameters.epochs + 1)]
        stopped += [engine.report(assignment.name, metrics, elapsed_s=0.0) for metrics in epochs]
        ended = [trial.model_copy(update={"history": epochs}) for trial in outcomes(assignment)]
        engine.finish(assignment.name, ended)
    assert len(stopped) > 5 and not any(stopped)
