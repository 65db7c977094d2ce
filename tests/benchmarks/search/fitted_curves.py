"""Made searches that the numbers of `orchestrator.search.prospects` are fitted on: no kind that they are tested on."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray
from simulated_curves import Search, draw_num_validation, halves, observe, observe_all

Choice = tuple[int, ...]

_NUM_LISTED = 4


def peaked_search(rng: np.random.Generator, num_trials: int) -> Search:
    """Draw at random from a surface of one to four dimensions with a sharp or a rounded peak."""
    surface = _Peak(rng)
    return observe_all(rng, [surface.accuracy(surface.draw(rng)) for _ in range(2 * num_trials)])


def annealed_search(rng: np.random.Generator, num_trials: int) -> Search:
    """Draw around the best so far, ever nearer to it."""
    surface, num_validation = _Peak(rng), draw_num_validation(rng)
    tried: list[NDArray[np.float64]] = []
    values: list[float] = []
    while len(values) < 2 * num_trials:
        point = surface.draw(rng)
        if len(values) >= _NUM_LISTED:
            step = rng.normal(0, 0.6 / sqrt(len(values)), len(point))
            point = np.clip(tried[int(np.argmax(values))] + step, 0, 1)
        tried.append(point)
        values.append(observe(rng, surface.accuracy(point), num_validation))
    return halves(values, num_validation)


def factorial_search(rng: np.random.Generator, num_trials: int) -> Search:
    """Draw combinations of choices at random, whose effects add up but for a little."""
    table = _Choices(rng, (6, 4, 3), interaction=0.01)
    return observe_all(rng, [table.accuracy(table.draw(rng)) for _ in range(2 * num_trials)])


def stepwise_search(rng: np.random.Generator, num_trials: int) -> Search:
    """Change one choice of the best combination at a time."""
    table, num_validation = _Choices(rng, (6, 4, 3, 3), interaction=0.0), draw_num_validation(rng)
    best = table.draw(rng)
    values = [observe(rng, table.accuracy(best), num_validation)]
    best_value = values[0]
    while len(values) < 2 * num_trials:
        changed = table.change_one(rng, best)
        values.append(observe(rng, table.accuracy(changed), num_validation))
        if values[-1] >= best_value:
            best, best_value = changed, values[-1]
    return halves(values, num_validation)


def cliff_search(rng: np.random.Generator, num_trials: int) -> Search:
    """Find most configurations near the top, and some that fail."""
    top, width = rng.uniform(0.6, 0.98), rng.uniform(0.005, 0.05)
    fails = rng.random(2 * num_trials) < rng.uniform(0.1, 0.5)
    lost = rng.exponential(width, 2 * num_trials) + np.where(fails, rng.uniform(0.1, 0.5, 2 * num_trials), 0.0)
    return observe_all(rng, top - lost)


FITTED_ON = {
    "peaked": peaked_search,
    "annealed": annealed_search,
    "factorial": factorial_search,
    "stepwise": stepwise_search,
    "cliff": cliff_search,
}


class _Peak:
    """A surface over the unit cube that falls off around one point."""

    def __init__(self, rng: np.random.Generator) -> None:
        dimensions = int(rng.integers(1, 5))
        self._power, self._top = rng.uniform(0.8, 1.6), rng.uniform(0.5, 0.99)
        self._centre, self._steepness = rng.uniform(0, 1, dimensions), rng.uniform(0.05, 0.6, dimensions)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return rng.uniform(size=len(self._centre))

    def accuracy(self, point: NDArray[np.float64]) -> float:
        lost = (self._steepness * np.abs(point - self._centre) ** self._power).sum()
        return float(np.clip(self._top - lost, 0.02, 0.995))


class _Choices:
    """The accuracies of all combinations of a few choices."""

    def __init__(self, rng: np.random.Generator, sizes: Choice, *, interaction: float) -> None:
        self._sizes, self._top = sizes, rng.uniform(0.6, 0.98)
        self._effects = [rng.gamma(0.7, 0.06, size) for size in sizes]
        self._interactions = rng.normal(0, 1, sizes) * interaction

    def draw(self, rng: np.random.Generator) -> Choice:
        return tuple(int(rng.integers(size)) for size in self._sizes)

    def change_one(self, rng: np.random.Generator, choice: Choice) -> Choice:
        place = int(rng.integers(len(choice)))
        return (*choice[:place], int(rng.integers(self._sizes[place])), *choice[place + 1 :])

    def accuracy(self, choice: Choice) -> float:
        lost = sum(float(effects[place]) for effects, place in zip(self._effects, choice, strict=True))
        return float(np.clip(self._top - lost + self._interactions[choice], 0.02, 0.995))
