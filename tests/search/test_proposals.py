import importlib.util
import logging
import math
import pickle
import warnings
from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from search_examples import NUM_STAGES, a_search

from orchestrator.config import SamplerName
from orchestrator.errors import SearchError
from orchestrator.records import Hyperparameters
from orchestrator.search.proposals import propose, quiet_optuna
from orchestrator.search.samplers import check_sampler, drawn_apart
from orchestrator.search.shared_list import shared_list
from orchestrator.search.space import SearchSpace

SPACE = SearchSpace.from_config(a_search().space, NUM_STAGES)
SAMPLERS = get_args(SamplerName)


def suggestion(
    trials: list[FrozenTrial], space: SearchSpace = SPACE, seed: int = 7, group: str = "low"
) -> Hyperparameters:
    (proposal,) = propose(trials, space=space, direction=StudyDirection.MAXIMIZE, seed=seed, group=group)
    return proposal


def tried(space: SearchSpace, hyperparameters: Hyperparameters, value: float | None = 0.5) -> FrozenTrial:
    return create_trial(
        params=space.parameters(hyperparameters),
        distributions=dict(space.distributions),
        state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
        value=value,
    )


def test_the_same_past_and_seed_give_the_same_proposal() -> None:
    past = [tried(SPACE, suggestion([]))]
    assert suggestion(past) == suggestion(past)


def test_seed_group_and_number_of_trials_each_change_the_proposal() -> None:
    past = [tried(SPACE, suggestion([]))]
    proposals = [
        suggestion(past),
        suggestion(past, seed=8),
        suggestion(past, group="high"),
        suggestion(past * 2),
    ]
    assert len({proposal.learning_rate for proposal in proposals}) == 4


def test_a_small_space_is_covered_without_repeats() -> None:
    small = a_search(freeze_depth=[0, 1], learning_rate=[1e-3, 1e-2], epochs=[2, 4])
    space = SearchSpace.from_config(small.space, NUM_STAGES)
    trials: list[FrozenTrial] = []
    for _ in range(8):
        trials.append(tried(space, suggestion(trials, space)))
    distinct = {tuple(trial.params.items()) for trial in trials}
    assert len(distinct) == 8


def test_a_space_that_was_tried_in_full_gives_nothing() -> None:
    space = SearchSpace.from_config(a_search(freeze_depth=[0], learning_rate=[1e-3], epochs=[2]).space, NUM_STAGES)
    past = [tried(space, suggestion([], space))]
    assert propose(past, space=space, direction=StudyDirection.MAXIMIZE, seed=7, group="low") == []


def test_proposals_learn_from_values() -> None:
    def draw(depth: int) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = []
        for _ in range(40):
            proposal = suggestion(trials)
            trials.append(tried(SPACE, proposal, -abs(proposal.freeze_depth - depth)))
        return trials[20:]

    for depth in (1, 4):
        hits = sum(trial.params["freeze_depth"] == depth for trial in draw(depth))
        assert hits > 20 * 2 / (NUM_STAGES + 1), f"{hits} of the last 20 proposals at depth {depth}"


def test_running_trials_are_part_of_the_past() -> None:
    running = tried(SPACE, suggestion([]), value=None)
    assert suggestion([running] * 12) != suggestion([])


def test_optunas_notes_are_held_back_inside_the_block_alone(caplog: pytest.LogCaptureFixture) -> None:
    optuna.logging.enable_propagation()
    before = optuna.logging.get_verbosity()
    with caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        suggestion([])
        assert not caplog.records
        assert not caught
        assert optuna.logging.get_verbosity() == before
        optuna.create_study()
        assert caplog.records
    optuna.logging.disable_propagation()


def test_a_stricter_verbosity_of_the_caller_is_kept() -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with quiet_optuna():
            assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    finally:
        optuna.logging.set_verbosity(before)


def several(
    count: int, trials: list[FrozenTrial], *, space: SearchSpace = SPACE, sampler: SamplerName = "tpe", **fixed: int
) -> list[Hyperparameters]:
    return propose(
        trials,
        space=space,
        direction=StudyDirection.MAXIMIZE,
        seed=7,
        group="low",
        sampler=sampler,
        count=count,
        fixed=fixed,
    )


def past_of(num_trials: int, depth: int = 1, space: SearchSpace = SPACE) -> list[FrozenTrial]:
    """Trials spread evenly over the space, the better the nearer they are to a depth and a rate of 1e-2."""
    spread = shared_list(space, num_stages=NUM_STAGES + 1, heads=0, others=num_trials, seed=3)
    return [
        tried(space, recipe, -abs(recipe.freeze_depth - depth) - abs(math.log10(recipe.learning_rate) + 2))
        for recipe in spread
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_trials", [0, 5, 14])
def test_configurations_drawn_together_differ_from_each_other_and_the_past(
    sampler: SamplerName, num_trials: int
) -> None:
    past = past_of(num_trials)
    drawn = several(6, past, sampler=sampler)
    known = [trial.params for trial in past] + [SPACE.parameters(recipe) for recipe in drawn]
    assert len(drawn) == 6
    assert len({str(parameters) for parameters in known}) == num_trials + 6
    assert several(6, past, sampler=sampler) == drawn


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fixed_values_are_kept_while_the_others_vary(sampler: SamplerName) -> None:
    drawn = several(8, past_of(12), sampler=sampler, freeze_depth=NUM_STAGES)
    assert {recipe.freeze_depth for recipe in drawn} == {NUM_STAGES}
    assert len({recipe.learning_rate for recipe in drawn}) == 8


def test_fixed_values_leave_as_many_configurations_as_the_space_holds() -> None:
    space = SearchSpace.from_config(
        a_search(freeze_depth=[0, 5], learning_rate=[1e-3, 1e-2], epochs=[2, 4]).space, NUM_STAGES
    )
    known = tried(space, space.complete({"freeze_depth": 5, "learning_rate": 1e-3, "epochs": 2}))
    assert len(several(8, [known], space=space, freeze_depth=5)) == 3


@pytest.mark.parametrize("fixed", [{"freeze_depth": NUM_STAGES + 1}, {"epochs": 3}, {"batch_size": 32}])
def test_a_fixed_value_outside_the_space_is_refused(fixed: dict[str, int]) -> None:
    with pytest.raises(SearchError, match=f"a fixed {next(iter(fixed))} must be"):
        several(1, [], **fixed)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_samplers_draw_near_what_was_good(sampler: SamplerName) -> None:
    def mean_miss(name: SamplerName) -> float:
        drawn = [recipe for number in range(20, 24) for recipe in several(4, past_of(number, depth=1), sampler=name)]
        return sum(abs(recipe.freeze_depth - 1) for recipe in drawn) / len(drawn)

    assert mean_miss(sampler) < 0.75 * mean_miss("random")


def test_cmaes_starts_from_the_best_trial_of_a_short_past() -> None:
    good = tried(SPACE, SPACE.complete({"freeze_depth": 0, "learning_rate": 1e-4, "epochs": 2}), 0.9)
    bad = tried(SPACE, SPACE.complete({"freeze_depth": 5, "learning_rate": 1e-1, "epochs": 2}), 0.1)
    rates = [recipe.learning_rate for recipe in several(12, [good, bad], sampler="cmaes")]
    assert sum(rate < 10**-2.5 for rate in rates) >= 10


def test_what_waits_counts_as_the_past() -> None:
    space = SearchSpace.from_config(a_search(freeze_depth=[0, 1], learning_rate=[1e-3], epochs=[2]).space, NUM_STAGES)
    study = optuna.create_study()
    with quiet_optuna():
        study.enqueue_trial({"freeze_depth": 0, "learning_rate": 1e-3, "epochs": 2})
    waiting = study.get_trials()[0]
    waiting.set_user_attr("parameters", {"freeze_depth": 0, "learning_rate": 1e-3, "epochs": 2})
    assert [recipe.freeze_depth for recipe in several(2, [waiting], space=space)] == [1]


def test_pickles_that_other_tools_left_in_a_study_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (tmp_path.joinpath("loaded").mkdir, ())

    past = past_of(3)
    for trial in past:
        trial.system_attrs = {"cma:optimizer:0": pickle.dumps(Bomb()).hex()}
    assert len(several(2, past, sampler="cmaes")) == 2
    assert not tmp_path.joinpath("loaded").exists()


def test_cmaes_says_which_values_it_draws_apart() -> None:
    assert drawn_apart("cmaes", SPACE) == ["epochs"]
    assert drawn_apart("gp", SPACE) == []


def test_cmaes_refuses_a_space_of_choices_alone() -> None:
    space = SearchSpace.from_config(a_search(freeze_depth=[0, 1], learning_rate=[1e-3, 1e-2]).space, NUM_STAGES)
    with pytest.raises(SearchError, match=r"must have a range of numbers.*search.sampler to tpe"):
        check_sampler("cmaes", space)
    for sampler in ("tpe", "gp", "random"):
        check_sampler(sampler, space)


def test_cmaes_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SearchError, match="pip install cmaes"):
        check_sampler("cmaes", SPACE)
