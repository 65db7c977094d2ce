"""Says how likely more trials are to bring a better one, from the curve of those that have ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

LEAST_TRIALS = 4

# Fitted by maximum likelihood on made searches of five kinds, none of which is one that they were then tested on.
_SATURATION = 2.6
_SATURATION_POWER = 0.38
_TREND_WEIGHT = 0.59


def chance_of_gain(values: Sequence[float], *, further: int, least_gain: float) -> float | None:
    """Give the chance that one of `further` trials is better than the best by more than `least_gain`.

    `values` are those of the trials that ended, in that order, greater being better. `least_gain` above 0 is what noise
    alone may bring, in their unit; the validation scores of trials are compared, noise and all. None for fewer than
    four values.

    Of n + m exchangeable trials without noise the best is among the last m with chance m / (n + m): trial t is a new
    best with intensity 1 / t (Renyi, "Theorie des elements saillants d'une suite d'observations", 1962). Here the
    intensity is h / t, and the chance 1 - (n / (n + m))^h: the proportional hazards of Cox, "Regression Models and
    Life-Tables", 1972. With s the mean excess of the upper half of the values over their median, and r the rank
    correlation of values with their order,

        h = (1 + 2.6 n least_gain / s)^-0.38 exp(0.59 r).

    The first factor says that a best must be passed by more than noise, and that the room above it shrinks as trials
    go on; it is 1 where there is no noise. The second is above 1 for a search that gets better as it goes (the F^a
    scheme: Yang, "On the distribution of the inter-record times in an increasing population", 1975). The three
    numbers are fitted on made searches; `tests/benchmarks/RESULTS.md` says how right the chances are on others.
    """
    if len(values) < LEAST_TRIALS:
        return None
    found = np.asarray(values, dtype=np.float64)
    saturation, trend = hazard_factors(found, least_gain)
    intensity = (1.0 + _SATURATION * saturation) ** -_SATURATION_POWER * math.exp(_TREND_WEIGHT * trend)
    return -math.expm1(-intensity * math.log1p(further / len(found)))


def hazard_factors(values: NDArray[np.float64], least_gain: float) -> tuple[float, float]:
    """Give what the intensity of gains depends on: n least_gain / s, and the rank correlation of values with order."""
    return len(values) * least_gain / _room(values, least_gain), _trend(values)


def _room(values: NDArray[np.float64], least_gain: float) -> float:
    """Give the mean excess of the upper half of values over their median."""
    middle = np.median(values)
    above = values[values > middle]
    # Values that noise rounds to the same one are no certain end.
    return max(float((above - middle).mean()) if len(above) else 0.0, least_gain / 2, 1e-9)


def _trend(values: NDArray[np.float64]) -> float:
    """Give the rank correlation of values with their order (Spearman), 0 where they are all the same."""
    ranks = rankdata(values)
    if np.ptp(ranks) == 0:
        return 0.0
    return float(np.corrcoef(ranks, np.arange(len(values)))[0, 1])
