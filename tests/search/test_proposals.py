import logging
import warnings

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from search_examples import NUM_STAGES, a_search

from orchestrator.records import Hyperparameters
from orchestrator.search.proposals import propose, quiet_optuna
from orchestrator.search.space import SearchSpace

SPACE = SearchSpace.from_config(a_search(), NUM_STAGES)


def suggestion(
    trials: list[FrozenTrial], space: SearchSpace = SPACE, seed: int = 7, group: str = "low"
) -> Hyperparameters:
    return propose(trials, space=space, direction=StudyDirection.MAXIMIZE, seed=seed, group=group)


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
    space = SearchSpace.from_config(small, NUM_STAGES)
    trials: list[FrozenTrial] = []
    for _ in range(7):
        trials.append(tried(space, suggestion(trials, space)))
    distinct = {tuple(trial.params.items()) for trial in trials}
    assert len(distinct) == 7


def test_an_exhausted_space_still_gives_a_proposal() -> None:
    space = SearchSpace.from_config(a_search(freeze_depth=[0], learning_rate=[1e-3], epochs=[2]), NUM_STAGES)
    only = suggestion([], space)
    assert suggestion([tried(space, only)], space) == only


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
