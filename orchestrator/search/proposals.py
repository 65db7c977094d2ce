"""The next configuration of a study, as a function of its trials and a seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.records import Hyperparameters
from orchestrator.search.space import SearchSpace
from orchestrator.storage import digest

ATTEMPTS = 16


def propose(
    trials: Sequence[FrozenTrial], *, space: SearchSpace, direction: StudyDirection, seed: int, group: str
) -> Hyperparameters:
    """Draw the next configuration with TPE from the trials so far, running ones counted as bad.

    The sampler is made anew from (seed, group, number of trials), so that a study continued by another
    process does not draw its first configurations again. A configuration that was tried already is drawn
    again, `ATTEMPTS` times at most: a small space may hold no other.
    """
    tried = [trial.params for trial in trials]
    for attempt in range(ATTEMPTS):
        proposal = _draw(trials, space, direction, _stable_seed(seed, group, len(trials), attempt))
        if space.parameters(proposal) not in tried:
            break
    return proposal


def _draw(trials: Sequence[FrozenTrial], space: SearchSpace, direction: StudyDirection, seed: int) -> Hyperparameters:
    # Drawn in a study in memory: a draw that is turned down leaves no trace in the journal.
    with quiet_optuna():
        sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)
        study = optuna.create_study(direction=direction, sampler=sampler)
        study.add_trials(trial for trial in trials if trial.state != TrialState.WAITING)
        return space.suggest(study.ask())


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
