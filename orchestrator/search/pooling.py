"""Shares strength between groups: what recipes are worth on the whole, and how much groups differ in that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Recipes that are far from the best say little about how groups differ among the good ones.
_CONTENDERS = 0.5
_SWEEPS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledScores:
    """Hold what the scores of R recipes in G groups say together.

    Scores are modelled as the group's level plus the recipe's effect plus an interaction of variance
    `interaction_variance` plus noise. `recipe_scores` [R] are the effects at the mean level, `recipe_variances` [R]
    their sampling variances, NaN where no group tried the recipe. `shrunk` [G, R] are the posterior means of each
    group's own scores: far from its observation where that is noisy and groups are alike; NaN where not tried.
    """

    recipe_scores: Matrix
    recipe_variances: Matrix
    group_levels: Matrix
    interaction_variance: float
    shrunk: Matrix


def pool_scores(scores: Matrix, variances: Matrix) -> PooledScores:
    """Fit scores [G, R] with known noise variances [G, R]; NaN marks recipes that a group did not try.

    An additive fit by weighted least squares; the interaction's variance by the method of moments without
    weights (Hedges, "A random effects model for effect sizes", 1983) over the better half of the recipes; shrinkage
    as in Efron and Morris (1975). What only one group has tried is not shrunk: there is nothing to hold it against.
    """
    seen = np.isfinite(scores)
    interaction = 0.0
    # The weights depend on the interaction, and it on the fit: a second pass settles both.
    for _ in range(2):
        weights = np.where(seen, 1.0 / (variances + interaction + 1e-12), 0.0)
        levels, effects = _fit_additive(np.where(seen, scores, 0.0), weights)
        residuals = np.where(seen, scores - levels[:, None] - effects[None, :], 0.0)
        interaction = _interaction_variance(residuals, seen, variances, effects)
    weights = np.where(seen, 1.0 / (variances + interaction + 1e-12), 0.0)
    totals = weights.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        keep = interaction / (interaction + variances)
    shrunk = levels[:, None] + effects[None, :] + np.where(seen, keep, 0.0) * residuals
    tried = totals > 0
    return PooledScores(
        recipe_scores=np.where(tried, effects + levels.mean(), np.nan),
        recipe_variances=np.where(tried, 1.0 / np.where(tried, totals, 1.0), np.nan),
        group_levels=levels,
        interaction_variance=interaction,
        shrunk=np.where(seen, shrunk, np.nan),
    )


def _fit_additive(scores: Matrix, weights: Matrix) -> tuple[Matrix, Matrix]:
    """Fit level [G] plus effect [R] by alternating weighted means; the effects sum to zero over tried recipes."""
    effects = np.zeros(scores.shape[1])
    levels = np.zeros(scores.shape[0])
    rows, columns = weights.sum(axis=1), weights.sum(axis=0)
    tried = columns > 0
    for _ in range(_SWEEPS):
        levels = _divide((weights * (scores - effects)).sum(axis=1), rows)
        effects = _divide((weights * (scores - levels[:, None])).sum(axis=0), columns)
        effects = np.where(tried, effects - effects[tried].mean(), 0.0) if tried.any() else effects
    levels = _divide((weights * (scores - effects)).sum(axis=1), rows)
    return levels, effects


def _divide(sums: Matrix, totals: Matrix) -> Matrix:
    quotient: Matrix = np.where(totals > 0, sums / np.where(totals > 0, totals, 1.0), 0.0)
    return quotient


def _interaction_variance(residuals: Matrix, seen: NDArray[np.bool_], variances: Matrix, effects: Matrix) -> float:
    shared = seen.sum(axis=0) >= 2
    if not shared.any():
        return 0.0
    border = np.quantile(effects[shared], _CONTENDERS)
    used = seen & (shared & (effects >= border))[None, :]
    count = int(used.sum())
    # Each group's level and each recipe's effect took a degree of freedom from the residuals.
    freedom = count - int(used.any(axis=0).sum()) - int(used.any(axis=1).sum()) + 1
    if freedom <= 0:
        return 0.0
    excess = (residuals[used] ** 2).sum() / freedom - variances[used].mean()
    return float(max(0.0, excess))
