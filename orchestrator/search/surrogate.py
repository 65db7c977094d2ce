"""A model of what recipes score: a Gaussian process, on top of what earlier searches found."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from orchestrator.records import Hyperparameters
from orchestrator.search.shared_list import share_of
from orchestrator.search.space import SearchSpace

LEAST_SCORES = 4
"""Fewer scores tell no model anything."""

_SPREAD_KEPT = 4.0

Scores = NDArray[np.float64]
Tried = tuple[Sequence[Hyperparameters], Sequence[float]]
"""Recipes and their scores, greater being better."""


@dataclass(frozen=True, eq=False)
class Prior:
    """Say what earlier searches of other data let expect: the mean of their own models."""

    models: tuple[Surrogate, ...]

    @classmethod
    def of_searches(cls, searches: Sequence[Tried], *, space: SearchSpace, seed: int) -> Prior | None:
        """Learn from finished searches, whose recipes are moved into `space`; None when none has enough scores."""
        models = [
            Surrogate.fit([space.clip(recipe) for recipe in recipes], scores, space=space, seed=seed)
            for recipes, scores in searches
            if len(scores) >= LEAST_SCORES
        ]
        return cls(tuple(models)) if models else None

    @property
    def spread(self) -> float:
        """Give the standard deviation of scores in the earlier searches."""
        return float(np.mean([model.scale for model in self.models]))

    def expect(self, recipes: Sequence[Hyperparameters]) -> Scores:
        """Give the score [n] of each recipe above the mean of the search that tried it, averaged over the searches."""
        expected: Scores = np.mean([model.scale * model.predict(recipes)[0] for model in self.models], axis=0)
        return expected


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Predict scores: what the prior expects, stretched by `slope`, and a Gaussian process of what differs from it.

    Learning another search's model first and the difference from it next is the stacking of Golovin et al. ("Google
    Vizier: A Service for Black-Box Optimization", 2017, section 3.3.5).
    """

    space: SearchSpace
    process: GaussianProcessRegressor
    scale: float
    prior: Prior | None = None
    slope: float = 0.0
    expected_mean: float = 0.0

    @classmethod
    def fit(
        cls,
        recipes: Sequence[Hyperparameters],
        scores: Sequence[float],
        *,
        space: SearchSpace,
        seed: int,
        prior: Prior | None = None,
    ) -> Surrogate:
        """Learn from at least `LEAST_SCORES` recipes and their scores, greater being better."""
        found = np.asarray(scores, dtype=np.float64)
        # Some recipes fail utterly: how utterly tells nothing of those near the best.
        best, middle = found.max(), np.median(found)
        clipped = np.maximum(found, best - _SPREAD_KEPT * max(best - middle, 1e-3))
        differences = clipped - clipped.mean()
        slope = expected_mean = 0.0
        if prior is not None:
            expected = prior.expect(recipes)
            expected_mean = float(expected.mean())
            slope = _slope(expected - expected_mean, differences, prior.spread)
            differences = differences - slope * (expected - expected_mean)
        scale = max(float(differences.std()), 1e-6)
        kernel = ConstantKernel(1.0) * Matern(length_scale=0.5, length_scale_bounds=(0.05, 5.0), nu=2.5)
        process = GaussianProcessRegressor(kernel + WhiteKernel(0.1), normalize_y=False, random_state=seed)
        with warnings.catch_warnings():
            # A bound that is reached is an answer here, not a mistake.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(_vectors(recipes, space), differences / scale)
        return cls(space, process, scale, prior, slope, expected_mean)

    def predict(self, recipes: Sequence[Hyperparameters]) -> tuple[Scores, Scores]:
        """Give the mean [n] and the standard deviation [n] of scores, in units of `scale` around the mean of all tried.

        The deviation is what is not known of a recipe itself: the noise of single runs would promise a lucky one for
        ever.
        """
        mean, deviation = self.process.predict(_vectors(recipes, self.space), return_std=True)
        if self.prior is not None:
            mean = mean + self.slope * (self.prior.expect(recipes) - self.expected_mean) / self.scale
        noise = self.process.kernel_.k2.noise_level
        return mean, np.sqrt(np.maximum(deviation**2 - noise, 1e-12))


def _slope(expected: Scores, found: Scores, spread: float) -> float:
    """Give how much of the prior's differences is found here, at least 0.

    A slope of 1 counts as much as one recipe that is as far from the mean as recipes were in earlier searches: where
    all that was tried is alike, its noise would decide otherwise.
    """
    weight = spread**2
    return max(0.0, float(expected @ found + weight) / float(expected @ expected + weight))


def _vectors(recipes: Sequence[Hyperparameters], space: SearchSpace) -> NDArray[np.float64]:
    return np.array(
        [
            [share_of(distribution, getattr(recipe, name)) for name, distribution in space.distributions.items()]
            for recipe in recipes
        ]
    )
