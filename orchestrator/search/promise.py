"""Picks among drawn configurations the one that promises most for its cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from orchestrator.records import Hyperparameters
from orchestrator.search.space import SearchSpace
from orchestrator.search.surrogate import LEAST_SCORES, Prior, Scores, Surrogate


def most_promising(
    candidates: Sequence[Hyperparameters],
    seconds: Sequence[float],
    tried: Sequence[Hyperparameters],
    scores: Sequence[float],
    *,
    space: SearchSpace,
    budget_left: float,
    seed: int,
    prior: Prior | None = None,
) -> int:
    """Give the index of the candidate with the greatest expected improvement per second to the power `budget_left`.

    A Gaussian process over the searched dimensions, on top of what a `prior` expects, predicts scores, greater being
    better; an improvement is one on the best that it predicts of what was `tried`, not on the best score, which noise
    has raised (Picheny et al., "A benchmark of kriging-based infill criteria for noisy optimization", 2013). While
    budget is left (share from 1 to 0) cost counts in full, towards the end hardly (Lee et al., "Cost-aware Bayesian
    Optimization", 2020). With fewer than four scores the cheapest candidate is taken.
    """
    if len(scores) < LEAST_SCORES:
        return int(np.argmin(seconds))
    surrogate = Surrogate.fit(tried, scores, space=space, seed=seed, prior=prior)
    improvement = _expected_improvement(surrogate, candidates, tried)
    worth = improvement / np.maximum(np.asarray(seconds, dtype=np.float64), 1e-6) ** budget_left
    return int(np.argmax(worth))


def _expected_improvement(
    surrogate: Surrogate, candidates: Sequence[Hyperparameters], tried: Sequence[Hyperparameters]
) -> Scores:
    mean, deviation = surrogate.predict(candidates)
    gain = mean - surrogate.predict(tried)[0].max()
    expected: Scores = gain * norm.cdf(gain / deviation) + deviation * norm.pdf(gain / deviation)
    return np.maximum(expected, 1e-12)
