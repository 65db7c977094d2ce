"""The next configurations of a study, as a function of its trials and a seed."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from orchestrator.config import SamplerName
from orchestrator.errors import SearchError
from orchestrator.records import Hyperparameters
from orchestrator.search.samplers import make_sampler
from orchestrator.search.space import ParameterValue, SearchSpace
from orchestrator.storage import digest

REPEATED_DRAWS = 16
LISTED_CONFIGURATIONS = 10_000


def propose(
    trials: Sequence[FrozenTrial],
    *,
    space: SearchSpace,
    direction: StudyDirection,
    seed: int,
    group: str,
    sampler: SamplerName = "tpe",
    count: int = 1,
    fixed: Mapping[str, ParameterValue] | None = None,
) -> list[Hyperparameters]:
    """Draw `count` configurations that differ from each other and from every trial; fewer when no more exist.

    What runs, waits or was drawn before in the same call counts as bad (a constant liar), in samplers that know how.
    The sampler is made anew from (seed, group, number of trials), so that a study continued by another process does
    not draw its first configurations again. After `REPEATED_DRAWS` repeats, the remaining ones of a space of at most
    `LISTED_CONFIGURATIONS` are taken in a seeded random order. Raises SearchError when a fixed value is not in the
    space.
    """
    held = dict(fixed or {})
    _require_held(space, held)
    tried = [parameters_of(trial) for trial in trials]
    drawn: list[Hyperparameters] = []
    repeats = 0
    seed_here = _stable_seed(seed, group, len(trials))
    for proposal in _draws(trials, space, direction, sampler, held, seed_here):
        if len(drawn) == count or repeats == REPEATED_DRAWS:
            break
        if space.parameters(proposal) in tried:
            repeats += 1
        else:
            tried.append(space.parameters(proposal))
            drawn.append(proposal)
    return [*drawn, *_untried(space, held, tried, seed_here)[: count - len(drawn)]] if len(drawn) < count else drawn


def parameters_of(trial: FrozenTrial) -> dict[str, ParameterValue]:
    """Give a trial's searched values, of a waiting one too."""
    parameters: dict[str, ParameterValue] = trial.user_attrs.get("parameters", trial.params)
    return parameters


def _draws(
    trials: Sequence[FrozenTrial],
    space: SearchSpace,
    direction: StudyDirection,
    sampler: SamplerName,
    fixed: Mapping[str, ParameterValue],
    seed: int,
) -> Iterator[Hyperparameters]:
    # Drawn in a study in memory: a draw that is turned down leaves no trace in the storage.
    past = [_copy(trial, space) for trial in trials]
    with quiet_optuna():
        drawing = make_sampler(sampler, space=space, past=past, direction=direction, fixed=fixed, seed=seed)
        study = optuna.create_study(direction=direction, sampler=drawing)
        study.add_trials(past)
    while True:
        # One thread: a model this small gains nothing from more, and beside trials that use every core it waits for
        # them at each step (a Gaussian process took 20 times as long).
        with quiet_optuna(), threadpool_limits(limits=1):
            proposal = space.suggest(study.ask())
        yield proposal


def _copy(trial: FrozenTrial, space: SearchSpace) -> FrozenTrial:
    # Without system attributes: in those, samplers of other tools keep pickles, which Optuna would load.
    return optuna.trial.create_trial(
        state=TrialState.RUNNING if trial.state == TrialState.WAITING else trial.state,
        value=trial.value,
        params=parameters_of(trial),
        distributions=dict(space.distributions),
        intermediate_values=trial.intermediate_values,
    )


def _untried(
    space: SearchSpace,
    fixed: Mapping[str, ParameterValue],
    tried: Sequence[dict[str, ParameterValue]],
    seed: int,
) -> list[Hyperparameters]:
    listed = space.configurations(fixed, most=LISTED_CONFIGURATIONS) or []
    left = [configuration for configuration in listed if space.parameters(configuration) not in tried]
    random.Random(seed).shuffle(left)
    return left


def _require_held(space: SearchSpace, fixed: Mapping[str, ParameterValue]) -> None:
    for name, value in fixed.items():
        if not space.holds(name, value):
            raise SearchError(
                f"a fixed {name} must be a value of the search space",
                value=value,
                remedy="Fix a searched hyperparameter at one of its values.",
            )


def _stable_seed(*parts: object) -> int:
    return int(digest(*parts)[:8], 16)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Hold back Optuna's notes on routine work and on experimental features, within the block alone."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
