"""Every group's recipe is chosen with the others in view, and the record says whose it is and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from search_examples import a_trial

from orchestrator.errors import SearchError
from orchestrator.records import Hyperparameters, RaceRun, Trial
from orchestrator.search.finals import Finals, GroupFacts, key_of


def a_recipe(freeze_depth: int, rate: float = 1e-3) -> Hyperparameters:
    return Hyperparameters(
        freeze_depth=freeze_depth, learning_rate=rate, epochs=4, batch_size=32, optimizer="adam", weight_decay=0
    )


FIXED = a_recipe(6, 1e-5)
FAILED = {"status": "failed", "error": "out of memory"}


def the_finals(scores: Mapping[str, Mapping[int, float | None]], **changes: object) -> Finals:
    """Finals of groups whose trials differ in their freeze depth alone."""
    trials = {
        group: [
            a_trial(a_recipe(depth), value, trial_id=f"{group}-{index}", **({} if value is not None else FAILED))
            for index, (depth, value) in enumerate(found.items())
        ]
        for group, found in scores.items()
    }
    facts = GroupFacts(num_train=1000, num_validation=400, fixed_rule=FIXED)
    fields = {"metric": "val_accuracy", "predict": lambda group, recipe: float(7 - recipe.freeze_depth), **changes}
    return Finals(trials=trials, facts=dict.fromkeys(scores, facts), **fields)


def play(finals: Finals, value: Mapping[tuple[str, int], float], *, max_runs: int, seconds: float = math.inf) -> Finals:
    """Run the race: a recipe scores by its group and depth."""
    runs: list[RaceRun] = []
    while (run := finals.next_run([], max_runs=max_runs, seconds=seconds)) is not None:
        score = value[run.group, run.hyperparameters.freeze_depth] + 0.001 * (run.resplit % 2)
        runs.append(run.model_copy(update={"value": score, "seconds": run.predicted_s}))
        finals = finals.with_runs(runs)
    return finals


def depths(finals: Finals, groups: Sequence[str]) -> list[int]:
    return [finals.recipe(group).hyperparameters.freeze_depth for group in groups]


ALIKE = {group: {2: 0.80, 3: 0.82, 4: 0.81} for group in ("low", "high")}
DIFFERENT = {"low": {2: 0.90, 4: 0.60, 5: 0.76}, "high": {2: 0.60, 4: 0.90, 5: 0.76}}


def test_alike_groups_share_the_recipe_that_is_best_over_all() -> None:
    finals = play(the_finals(ALIKE), {(g, d): 0.8 for g in ALIKE for d in (2, 3, 4)}, max_runs=12)
    chosen = [finals.recipe(group) for group in ALIKE]
    assert {recipe.origin for recipe in chosen} <= {"pooled"}
    assert all(recipe.runs > 0 and recipe.standard_error is not None for recipe in chosen)


def test_groups_of_two_kinds_are_not_pooled() -> None:
    kinds = {"low": "", "high": "", "few": "few_shot"}
    scores = {**ALIKE, "few": {5: 0.6, 6: 0.7}}
    finals = the_finals(scores)
    facts = {group: replace(finals.facts[group], kind=kind) for group, kind in kinds.items()}
    finals = replace(finals, facts=facts)
    assert depths(finals, ["low", "high", "few"]) == [*depths(the_finals(ALIKE), ["low", "high"]), 6]
    chosen = finals.recipe("few")
    assert chosen.origin == "group" and chosen.trial_id == "few-1"
    depths_raced = {run.hyperparameters.freeze_depth for run in race_of(finals, "few")}
    assert depths_raced == {5, 6}


def race_of(finals: Finals, group: str) -> list[RaceRun]:
    truth = {(name, depth): 0.8 for name in finals.trials for depth in range(7)}
    return [run for run in play(finals, truth, max_runs=30).runs if run.group == group]


def test_a_group_that_differs_gets_a_recipe_of_its_own_and_the_reason() -> None:
    truth = {(group, depth): value for group, found in DIFFERENT.items() for depth, value in found.items()}
    finals = play(the_finals(DIFFERENT), truth, max_runs=20)
    assert depths(finals, ["low", "high"]) == [2, 4]
    own = [finals.recipe(group) for group in DIFFERENT if finals.recipe(group).origin == "group"]
    assert own and all("better than the pooled recipe by" in recipe.reason for recipe in own)


def test_the_race_stays_within_its_runs_and_seconds() -> None:
    truth = {(group, depth): 0.8 for group in ALIKE for depth in (2, 3, 4)}
    for max_runs in (0, 1, 3, 4, 7):
        assert len(play(the_finals(ALIKE), truth, max_runs=max_runs).runs) <= max_runs
    raced = play(the_finals(ALIKE), truth, max_runs=100, seconds=20.0)
    assert 0 < sum(run.seconds for run in raced.runs) <= 20.0


def test_the_group_whose_round_costs_most_races_first_and_the_others_use_what_is_left() -> None:
    finals = the_finals(ALIKE, predict=lambda group, recipe: 10.0 if group == "high" else 1.0)
    scores = {(group, depth): 0.8 for group in ALIKE for depth in (2, 3, 4)}
    played = play(finals, scores, max_runs=100, seconds=34)
    assert {run.group for run in played.runs} == {"low", "high"}
    assert played.runs[0].group == "high"


def test_without_a_budget_for_a_race_the_pooled_recipe_stands_unless_a_trial_beat_it_clearly() -> None:
    recipe = the_finals(ALIKE).recipe("low")
    assert recipe.origin == "pooled" and recipe.runs == 0 and recipe.score is None
    assert "without a race" in recipe.reason
    assert depths(the_finals(DIFFERENT), ["low", "high"]) == [2, 4]


def test_a_group_alone_gets_its_own_best() -> None:
    finals = the_finals({"all": {2: 0.7, 3: 0.9, 4: 0.8}})
    recipe = finals.recipe("all")
    assert (recipe.hyperparameters.freeze_depth, recipe.origin, recipe.trial_id) == (3, "group", "all-1")


def test_the_fixed_rule_races_when_it_was_not_hopeless() -> None:
    scores = {group: {3: 0.82, 4: 0.80} for group in ("low", "high")}
    finals = the_finals(scores)
    for group, value in (("low", 0.81), ("high", 0.30)):
        finals.trials[group].append(a_trial(FIXED, value, trial_id=f"{group}-9", origin="fixed_rule"))
    names = {group: {finalist.key for finalist in found} for group, found in finals.finalists.items()}
    assert key_of(FIXED) in names["low"] and key_of(FIXED) not in names["high"]


def test_a_loss_is_better_when_it_is_less() -> None:
    finals = the_finals({"all": {2: 0.7, 3: 0.3, 4: 0.5}}, metric="val_loss")
    assert finals.recipe("all").hyperparameters.freeze_depth == 3


def test_stopped_and_failed_trials_never_win() -> None:
    finals = the_finals({"all": {2: 0.7, 3: None}})
    finals.trials["all"].append(a_trial(a_recipe(5), 0.99, trial_id="all-7", status="stopped"))
    assert finals.recipe("all").hyperparameters.freeze_depth == 2


def test_a_group_without_a_usable_trial_is_an_error_that_lists_what_went_wrong() -> None:
    finals = the_finals({"low": {2: 0.7, 3: 0.8}, "high": {2: None, 3: None}})
    assert finals.recipe("low").hyperparameters.freeze_depth == 3
    with pytest.raises(SearchError, match=r"group high needs at least one completed trial.*out of memory \(2x\)"):
        finals.recipe("high")


def test_a_resumed_race_asks_for_what_is_missing_and_nothing_twice() -> None:
    truth = {(group, depth): 0.8 for group in ALIKE for depth in (2, 3, 4)}
    whole = play(the_finals(ALIKE), truth, max_runs=12)
    part = the_finals(ALIKE).with_runs(whole.runs[:3])
    names = [run.name for run in part.runs]
    while (run := part.next_run([], max_runs=12, seconds=math.inf)) is not None:
        value = truth[run.group, run.hyperparameters.freeze_depth] + 0.001 * (run.resplit % 2)
        part = part.with_runs([*part.runs, run.model_copy(update={"value": value, "seconds": run.predicted_s})])
        names.append(run.name)
    assert sorted(names) == sorted(run.name for run in whole.runs)


def folded(values: Mapping[int, float], error: float, **changes: object) -> Finals:
    """One group whose trials were cross-validated: every mean with the same standard error."""
    finals = the_finals({"all": values}, **changes)
    trials = [trial.model_copy(update={"standard_error": error}) for trial in finals.trials["all"]]
    return replace(finals, trials={"all": trials})


def test_without_a_race_the_cheapest_recipe_within_a_standard_error_of_the_best_fold_mean_is_taken() -> None:
    # Deeper is cheaper.
    values = {2: 0.90, 3: 0.895, 4: 0.885, 5: 0.87, 6: 0.5}
    assert folded(values, 0.02).recipe("all").hyperparameters.freeze_depth == 4
    assert folded(values, 0.001).recipe("all").hyperparameters.freeze_depth == 2
    recipe = folded(values, 0.035).recipe("all")
    assert recipe.hyperparameters.freeze_depth == 5 and recipe.origin == "group" and recipe.value == 0.87
    assert "within one standard error of the best over the folds, and cheaper" in recipe.reason
    assert depths(the_finals({"all": values}), ["all"]) == [2]


def test_a_loss_ties_from_above() -> None:
    finals = folded({2: 0.30, 3: 0.31, 4: 0.40, 5: 0.2}, 0.02, metric="val_loss")
    assert finals.recipe("all").hyperparameters.freeze_depth == 5
    assert folded({2: 0.30, 3: 0.31, 4: 0.40}, 0.02, metric="val_loss").recipe("all").hyperparameters.freeze_depth == 3


def test_a_recipe_of_the_groups_own_does_not_win_over_the_pooled_one_by_being_cheap() -> None:
    values = {group: {2: 0.82, 3: 0.80} for group in ("low", "high")}
    values["low"][5] = 0.81
    finals = the_finals(values)
    trials = {
        group: [trial.model_copy(update={"standard_error": 0.05}) for trial in found]
        for group, found in finals.trials.items()
    }
    assert depths(replace(finals, trials=trials), ["low", "high"]) == [2, 2]
    trials["low"].append(a_trial(FIXED, 0.80, trial_id="low-9", origin="fixed_rule", standard_error=0.05))
    recipe = replace(finals, trials=trials).recipe("low")
    assert (recipe.hyperparameters, recipe.origin) == (FIXED, "fixed_rule")


def test_means_over_folds_stand_on_all_samples_and_are_less_noisy() -> None:
    plain = GroupFacts(num_train=1000, num_validation=400, fixed_rule=FIXED)
    assert (plain.num_judged, replace(plain, folds=5).num_judged) == (400, 1400)
    # The fixed rule's trial is within the noise of one split, and hopeless by the means over five folds.
    finals = the_finals({"all": {2: 0.90, 3: 0.89}})
    finals.trials["all"].append(a_trial(FIXED, 0.85, trial_id="all-9", origin="fixed_rule"))
    sure = replace(finals, facts={"all": replace(plain, folds=5)})
    names = [{finalist.key for finalist in found.finalists["all"]} for found in (finals, sure)]
    assert key_of(FIXED) in names[0] and key_of(FIXED) not in names[1]


def test_running_runs_are_not_handed_out_again() -> None:
    finals = the_finals(ALIKE)
    running: list[RaceRun] = []
    while (run := finals.next_run(running, max_runs=100, seconds=math.inf)) is not None:
        running.append(run)
    assert len({run.name for run in running}) == len(running) == 6
    assert isinstance(finals.trials["low"][0], Trial)
