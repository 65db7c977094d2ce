"""Made searches of which the rest is known: what a forecast from their first trials is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from orchestrator.search.finals import noise_variance

Curve = NDArray[np.float64]
Accuracy = Callable[[NDArray[np.float64]], float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """Hold the validation accuracies of `first` trials and of as many again, on `num_validation` images."""

    first: Curve
    again: Curve
    num_validation: int

    @property
    def least_gain(self) -> float:
        """Give the standard deviation of the difference of two trials, at the level of the best of the first."""
        return sqrt(2 * noise_variance(float(self.first.max()), self.num_validation, "val_accuracy"))

    @property
    def gains(self) -> bool:
        """Tell whether the trials again bring a better one beyond noise."""
        return bool(self.again.max() > self.first.max() + self.least_gain)


def random_search(rng: np.random.Generator, num_trials: int) -> Search:
    """Draw configurations at random from a smooth surface of two or three dimensions."""
    accuracy, dimensions = _surface(rng)
    return observe_all(rng, [accuracy(rng.uniform(size=dimensions)) for _ in range(2 * num_trials)])


def learning_search(rng: np.random.Generator, num_trials: int, *, listed: int = 5) -> Search:
    """Draw most configurations near the best fifth of those before, as a sampler that learns does.

    The `listed` ones that come first are in no order of merit.
    """
    accuracy, dimensions = _surface(rng)
    tried = list(rng.uniform(size=(listed, dimensions)))
    return _guided(rng, accuracy, tried, 2 * num_trials)


def listed_search(rng: np.random.Generator, num_trials: int) -> Search:
    """Try a list first that tends to get better, as cheap trials before dear ones do, then learn."""
    accuracy, dimensions = _surface(rng)
    drawn = list(rng.uniform(size=(max(3, num_trials // 2), dimensions)))
    tried = sorted(drawn, key=lambda point: accuracy(point) + rng.normal(0, 0.1))
    return _guided(rng, accuracy, tried, 2 * num_trials)


def saturated_search(rng: np.random.Generator, num_trials: int) -> Search:
    """Find the top with seven trials of ten: whatever comes is noise."""
    top = rng.uniform(0.7, 0.97)
    is_bad = rng.random(2 * num_trials) < 0.3
    return observe_all(rng, top - np.where(is_bad, rng.uniform(0, 0.5, 2 * num_trials), 0.0))


SEARCHES = {
    "random": random_search,
    "learning": learning_search,
    "listed": listed_search,
    "saturated": saturated_search,
}


def _surface(rng: np.random.Generator) -> tuple[Accuracy, int]:
    dimensions = int(rng.choice([2, 3]))
    centre, steepness = rng.uniform(0.1, 0.9, dimensions), rng.uniform(0.1, 1.0, dimensions)
    top = rng.uniform(0.7, 0.97)
    return lambda point: float(np.clip(top - (steepness * (point - centre) ** 2).sum(), 0.05, 0.99)), dimensions


def _guided(rng: np.random.Generator, accuracy: Accuracy, tried: list[NDArray[np.float64]], num_trials: int) -> Search:
    num_validation = draw_num_validation(rng)
    values = [observe(rng, accuracy(point), num_validation) for point in tried]
    while len(values) < num_trials:
        best = np.argsort(values)[-max(1, len(values) // 5) :]
        near = np.clip(tried[int(rng.choice(best))] + rng.normal(0, 0.15, len(tried[0])), 0, 1)
        point = rng.uniform(size=len(tried[0])) if rng.random() < 0.25 else near
        tried.append(point)
        values.append(observe(rng, accuracy(point), num_validation))
    return halves(values[:num_trials], num_validation)


def observe_all(rng: np.random.Generator, accuracies: list[float] | Curve) -> Search:
    """Observe true accuracies as a search's trials, half of them as those that came first."""
    num_validation = draw_num_validation(rng)
    return halves([observe(rng, float(value), num_validation) for value in accuracies], num_validation)


def halves(values: list[float], num_validation: int) -> Search:
    """Make of observed accuracies a search, half of them as the trials that came first."""
    half = len(values) // 2
    return Search(first=np.array(values[:half]), again=np.array(values[half:]), num_validation=num_validation)


def draw_num_validation(rng: np.random.Generator) -> int:
    """Draw how many validation images a search has."""
    return int(rng.choice([100, 200, 400]))


def observe(rng: np.random.Generator, accuracy: float, num_validation: int) -> float:
    """Draw a validation accuracy: with the noise that trials do not share, a whole number of images."""
    noise = sqrt(noise_variance(accuracy, num_validation, "val_accuracy"))
    hits = round((min(max(accuracy, 0.0), 1.0) + rng.normal(0, noise)) * num_validation)
    return min(max(hits, 0), num_validation) / num_validation
