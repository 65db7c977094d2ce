"""Measure how often searches gain that are said to gain with some chance, and fit what the chances stand on.

    python tests/benchmarks/search/gain_chances.py [--fit]

Prints tables in Markdown over the made searches of `tests/simulated_curves.py`: by the chance stated that as many
trials again bring a gain, and by kind and number of trials. With `--fit` the three numbers of
`orchestrator.search.prospects` are fitted again on the other kinds of `fitted_curves.py`, by maximum likelihood.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parents[2]))

from fitted_curves import FITTED_ON
from simulated_curves import SEARCHES, Search

from orchestrator.search.prospects import chance_of_gain, hazard_factors

Draw = Callable[[np.random.Generator, int], Search]

LENGTHS = (8, 16, 32)
FIT_LENGTHS = (5, 8, 12, 16, 24, 32, 64)


def drawn(
    kinds: Mapping[str, Draw], lengths: tuple[int, ...], *, each: int, seed: int
) -> Iterator[tuple[str, int, Search]]:
    """Draw made searches of every kind and length."""
    rng = np.random.default_rng(seed)
    for kind, draw in kinds.items():
        for length in lengths:
            for _ in range(each):
                yield kind, length, draw(rng, length)


def print_reliability(seed: int) -> None:
    """Print what is stated beside what comes."""
    rows = []
    for kind, length, search in drawn(SEARCHES, LENGTHS, each=250, seed=seed):
        stated = chance_of_gain(search.first.tolist(), further=length, least_gain=search.least_gain)
        rows.append((kind, length, float(stated or 0.0), search.gains))
    stated, gained = np.array([row[2] for row in rows]), np.array([row[3] for row in rows], dtype=np.float64)
    print("| Stated | Searches | Mean stated | Gained |\n|---|---|---|---|")
    for low in np.arange(0, 1, 0.1):
        chosen = (stated >= low) & (stated < low + 0.1)
        if chosen.any():
            print(f"| {low:.1f} | {chosen.sum()} | {stated[chosen].mean():.2f} | {gained[chosen].mean():.2f} |")
    for kind in SEARCHES:
        cells = []
        for length in LENGTHS:
            chosen = np.array([row[:2] == (kind, length) for row in rows])
            cells.append(f"{stated[chosen].mean():.2f}, {gained[chosen].mean():.2f}")
        print(f"| {kind} | {' | '.join(cells)} |")
    print(f"mean squared error {((stated - gained) ** 2).mean():.3f}, of the mean {gained.var():.3f}")


def fit(seed: int) -> NDArray[np.float64]:
    """Fit saturation, its power and the weight of a trend to whether a quarter as many, and as many again, gain."""
    rows = []
    for _, length, search in drawn(FITTED_ON, FIT_LENGTHS, each=200, seed=seed):
        values, noise = search.first, search.least_gain
        saturation, trend = hazard_factors(values, noise)
        for further in (max(1, length // 4), length):
            gains = search.again[:further].max() > values.max() + noise
            rows.append((saturation, trend, np.log1p(further / length), float(gains)))
    saturations, trends, times, gained = np.array(rows).T

    def loss(numbers: NDArray[np.float64]) -> float:
        hazard = (1 + np.exp(numbers[0]) * saturations) ** -numbers[1] * np.exp(numbers[2] * trends) * times
        return float((hazard - gained * np.log(np.maximum(np.expm1(hazard), 1e-12))).mean())

    found = minimize(loss, np.array([1.0, 0.3, 0.5]), method="Nelder-Mead").x
    return np.array([np.exp(found[0]), *found[1:]])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true")
    if parser.parse_args().fit:
        saturation, power, weight = fit(seed=11)
        print(f"saturation {saturation:.2f}, power {power:.3f}, weight of the trend {weight:.3f}")
    print_reliability(seed=2026)
