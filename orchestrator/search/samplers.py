"""Optuna's samplers by name, each made from the past of a study alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.config import SamplerName
from orchestrator.errors import SearchError
from orchestrator.search.space import ParameterValue, SearchSpace

# The fixed rule and the recipes that all groups try come first: they are what a model needs to begin with.
STARTUP_TRIALS = 4
# CMA-ES estimates its distribution from the best tenth of the past (Nomura et al., 2021): ten make one.
CMAES_LEARNS_FROM = 10


def make_sampler(
    name: SamplerName,
    *,
    space: SearchSpace,
    past: Sequence[FrozenTrial],
    direction: StudyDirection,
    fixed: Mapping[str, ParameterValue],
    seed: int,
) -> BaseSampler:
    """Make a sampler that draws with some values fixed.

    `tpe` is multivariate and counts running trials as bad; `gp` a Gaussian process with log expected improvement;
    both draw at random before `STARTUP_TRIALS` trials have ended. `cmaes` starts from the best trial of the past, and
    from `CMAES_LEARNS_FROM` completed ones on from the distribution of the best tenth (warm-starting CMA-ES, Nomura et
    al., 2021); it draws choices apart, with TPE.
    """
    sampler = _by_name(name, space, past, direction, fixed, seed)
    return optuna.samplers.PartialFixedSampler(dict(fixed), sampler) if fixed else sampler


def check_sampler(name: SamplerName, space: SearchSpace) -> None:
    """Raise SearchError when a sampler cannot work here: its package is missing, or it has no range to work on."""
    if name != "cmaes":
        return
    if importlib.util.find_spec("cmaes") is None:
        raise SearchError(
            "search.sampler cmaes needs the package cmaes",
            remedy="Install it with `pip install cmaes`, or set search.sampler to tpe.",
        )
    if not _ranges(space, {}):
        raise SearchError(
            "search.sampler cmaes must have a range of numbers to draw from",
            value=f"choices alone for {', '.join(space.distributions)}",
            remedy="Give search.space a range such as learning_rate: {low: 1e-5, high: 1e-2, log: true}, "
            "or set search.sampler to tpe.",
        )


def drawn_apart(name: SamplerName, space: SearchSpace) -> list[str]:
    """Name the hyperparameters that a sampler draws without regard to the others: for `cmaes`, the choices."""
    if name != "cmaes":
        return []
    return [key for key, found in space.distributions.items() if isinstance(found, CategoricalDistribution)]


def _by_name(
    name: SamplerName,
    space: SearchSpace,
    past: Sequence[FrozenTrial],
    direction: StudyDirection,
    fixed: Mapping[str, ParameterValue],
    seed: int,
) -> BaseSampler:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    if name == "cmaes":
        return _cmaes(space, past, direction, fixed, seed)
    return _tpe(seed)


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS, seed=seed)


def _cmaes(
    space: SearchSpace,
    past: Sequence[FrozenTrial],
    direction: StudyDirection,
    fixed: Mapping[str, ParameterValue],
    seed: int,
) -> BaseSampler:
    names = _ranges(space, fixed)
    completed = [trial for trial in past if trial.state == TrialState.COMPLETE]
    sources = best = None
    if names and len(completed) >= CMAES_LEARNS_FROM:
        sources = [_restricted(trial, names) for trial in completed]
    elif names and completed:
        pick = max if direction == StudyDirection.MAXIMIZE else min
        best = {name: pick(completed, key=_value).params[name] for name in names}
    return optuna.samplers.CmaEsSampler(
        x0=best,
        source_trials=sources,
        independent_sampler=_tpe(seed),
        warn_independent_sampling=False,
        seed=seed,
    )


def _ranges(space: SearchSpace, fixed: Mapping[str, ParameterValue]) -> list[str]:
    return [
        name
        for name, found in space.distributions.items()
        if name not in fixed and not isinstance(found, CategoricalDistribution) and not found.single()
    ]


def _restricted(trial: FrozenTrial, names: Sequence[str]) -> FrozenTrial:
    # CMA-ES passes over a source trial with other dimensions than its own.
    return optuna.trial.create_trial(
        value=trial.value,
        params={name: trial.params[name] for name in names},
        distributions={name: trial.distributions[name] for name in names},
    )


def _value(trial: FrozenTrial) -> float:
    return trial.value if trial.value is not None else float("nan")
