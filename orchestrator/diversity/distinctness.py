"""Says how far groups can be trusted: whether subsets differ beyond chance, and how surely each is where it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

# Less likely than this by chance, subsets count as different.
DIFFERENT = 0.05
REDRAWS = 200
# Beyond this many subsets grouping them anew two hundred times takes longer than measuring them.
MOST_REDRAWN = 2000

Values = NDArray[np.float64]
Levels = NDArray[np.int64]


def difference_p_value(values: Values, deviations: Values) -> float:
    """Give how likely values [subsets, measures] differ as much as they do by chance alone, from 0 to 1.

    Cochran's Q of each measure, sum ((x - m) / s)^2 with m the mean weighted by 1 / s^2, against chi squared with one
    degree of freedom less than there are subsets (Cochran, "The combination of estimates from different experiments",
    1954); of several measures the least, times their number (Bonferroni). It asks about the subsets, not about
    groups: groups of sorted values differ even where nothing but chance sorted them. `deviations` are the values'
    standard deviations; where one is 0, the value is known exactly, and 1e-9 is taken. 1 for a single subset.
    """
    if len(values) < 2:
        return 1.0
    weights = 1.0 / np.maximum(deviations, 1e-9) ** 2
    means = (weights * values).sum(axis=0) / weights.sum(axis=0)
    statistics = (weights * (values - means) ** 2).sum(axis=0)
    p_values: Values = chi2.sf(statistics, df=len(values) - 1)
    return min(1.0, float(p_values.min()) * p_values.size)


def is_indistinct(p_value: float | None) -> bool:
    """Tell whether subsets differ no more than chance would have it, as far as that is known."""
    return p_value is not None and p_value > DIFFERENT


def assignment_stability(
    values: Values,
    deviations: Values,
    levels: Levels,
    regroup: Callable[[Values], Levels],
    *,
    seed: int,
    redraws: int = REDRAWS,
) -> NDArray[np.float64]:
    """Give the share [subsets] of redraws, from 0 to 1, in which each subset comes to the level that it has.

    A redraw moves every value [subsets, measures] by a normal error of its standard deviation, as another sample of
    the subset would (a parametric bootstrap), and groups all of them anew.
    """
    generator = np.random.default_rng([seed, len(values)])
    kept = np.zeros(len(values))
    for _ in range(redraws):
        kept += regroup(values + deviations * generator.standard_normal(values.shape)) == levels
    return kept / redraws
