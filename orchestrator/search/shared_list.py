"""The recipes that every group tries first: a grid of heads and a quasi-random list, the same for all groups."""

from __future__ import annotations

import math

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import qmc

from orchestrator.config import WAYS_TO_VARY
from orchestrator.records import Hyperparameters
from orchestrator.search.space import ParameterValue, SearchSpace


def shared_list(space: SearchSpace, *, num_stages: int, heads: int, others: int, seed: int) -> list[Hyperparameters]:
    """Give at most `heads` head-only recipes and `others` of every other depth, spread evenly over the space.

    Heads differ in their rate and take the most epochs: all of them together cost less than one other trial. The first
    is that of prototypes where the space has it. The
    others are the points of a scrambled Halton sequence (Owen, "A randomized Halton algorithm in R", 2017) seeded
    by `seed`. Equal recipes are listed once. Raises nothing: a space without head-only depth has no heads.
    """
    found: list[Hyperparameters] = []
    for recipe in [*_heads(space, num_stages, heads), *_spread(space, num_stages, others, seed)]:
        if recipe not in found:
            found.append(recipe)
    return found


def searches_depth(space: SearchSpace, depth: int) -> bool:
    """Tell whether the space holds a freeze depth."""
    distribution = space.distributions.get("freeze_depth")
    if isinstance(distribution, CategoricalDistribution):
        return depth in distribution.choices
    return isinstance(distribution, IntDistribution) and distribution.low <= depth <= distribution.high


def _heads(space: SearchSpace, num_stages: int, count: int) -> list[Hyperparameters]:
    if count == 0 or not searches_depth(space, num_stages):
        return []
    middle = {name: at(distribution, 0.5) for name, distribution in space.distributions.items()}
    # Those that train together, and that take a rate.
    trained = next((name for name in ("linear", "cosine") if space.holds("head", name)), None)
    if trained is not None:
        middle["head"] = trained
    # Only heads on features that stay as they are train together.
    middle |= {name: 0 for name in WAYS_TO_VARY if space.holds(name, 0)}
    fixed = {**middle, "freeze_depth": num_stages, "epochs": at(space.distributions["epochs"], 1.0)}
    rates = [at(space.distributions["learning_rate"], (index + 0.5) / count) for index in range(count)]
    # Features that are already good want large rates more often than tiny ones: those come first.
    stepwise = [space.complete({**fixed, "learning_rate": rate}) for rate in reversed(rates)]
    if not space.holds("head", "prototype"):
        return stepwise
    return [space.complete({**fixed, "head": "prototype"}), *stepwise][:count]


def _spread(space: SearchSpace, num_stages: int, count: int, seed: int) -> list[Hyperparameters]:
    names = list(space.distributions)
    points = qmc.Halton(len(names), rng=seed)
    found: list[Hyperparameters] = []
    # Head-only points are left out, the grid has them: a space without other depths gives none, so tries are bounded.
    for point in points.random(8 * count + 1):
        if len(found) == count:
            break
        drawn = {name: at(space.distributions[name], share) for name, share in zip(names, point, strict=True)}
        recipe = space.complete(drawn)
        if recipe.freeze_depth != num_stages:
            found.append(recipe)
    return found


def at(distribution: BaseDistribution, share: float) -> ParameterValue:
    """Give the value at a share from 0 to 1 of a distribution's range, in its own scale; choices count alike."""
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return choices[min(int(share * len(choices)), len(choices) - 1)]
    if isinstance(distribution, IntDistribution):
        # Every integer gets an equal part of the range, the highest too.
        first, past = float(distribution.low), float(distribution.high + 1)
        if distribution.log:
            return min(int(math.exp(_between(math.log(first), math.log(past), share))), distribution.high)
        return min(int(_between(first, past, share)), distribution.high)
    if isinstance(distribution, FloatDistribution):
        low, high = distribution.low, distribution.high
        if distribution.log:
            return min(max(math.exp(_between(math.log(low), math.log(high), share)), low), high)
        return _between(low, high, share)
    raise TypeError(f"no range is known for {type(distribution).__name__}")


def share_of(distribution: BaseDistribution, value: ParameterValue) -> float:
    """Give the place of a value in a distribution's range: 0 at its low end, 1 at its high one, in its own scale."""
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.choices.index(value) + 0.5) / len(distribution.choices)
    if isinstance(distribution, (IntDistribution, FloatDistribution)) and isinstance(value, (int, float)):
        low, high = float(distribution.low), float(distribution.high)
        if high == low:
            return 0.5
        if distribution.log:
            return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return (value - low) / (high - low)
    raise TypeError(f"no range is known for {type(distribution).__name__}")


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)
