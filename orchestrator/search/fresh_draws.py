"""How many configurations of a search vary their samples anew in every epoch."""

from __future__ import annotations

import math

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.config import WAYS_TO_VARY
from orchestrator.search.space import SearchSpace


def share_kept(space: SearchSpace) -> float:
    """Give the share of a space's configurations, from 0 to 1, that kept activations may serve.

    It is 0 where images are changed batch by batch whatever is drawn, else that of configurations in which every
    searched augmentation is off: one that is on draws afresh in every epoch. A range of real numbers is hardly ever
    at 0.
    """
    if space.changes_images:
        return 0.0
    searched = [space.distributions[name] for name in WAYS_TO_VARY if name in space.distributions]
    return math.prod(map(_share_off, searched))


def _share_off(distribution: BaseDistribution) -> float:
    """Give the share of a dimension's values that are false or 0."""
    if isinstance(distribution, CategoricalDistribution):
        return sum(not choice for choice in distribution.choices) / len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.low == 0) / (distribution.high - distribution.low + 1)
    if isinstance(distribution, FloatDistribution):
        return float(distribution.single() and distribution.low == 0)
    raise TypeError(f"no values are known for {type(distribution).__name__}")
