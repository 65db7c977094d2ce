"""Over many simulated searches the choice costs next to nothing where groups are alike, and gains where not."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_groups import NUM_GROUPS, Simulation, Surface

RUNS = 200
NUM_SAMPLES = 20


def gains(*, differ: bool, num_validation: int, noise: float = 1.0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Give, in points, what the chosen recipes are worth above one recipe for all, a simulated run each."""
    found = []
    for run in range(RUNS):
        rng = np.random.default_rng([run, num_validation, differ])
        simulation = Simulation(Surface.draw(rng, differ=differ), num_validation, rng, noise)
        finals = simulation.search(num_samples=NUM_SAMPLES, race_runs=NUM_SAMPLES * NUM_GROUPS // 5)
        found.append(simulation.worth(finals) - simulation.worth_of_one_for_all(num_samples=NUM_SAMPLES))
    return 100 * np.array(found)


def interval(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - 1.96 * error), float(values.mean() + 1.96 * error)


# One of the middle is enough for every day.
SIZES = [pytest.param(60, marks=pytest.mark.slow), 300, pytest.param(2000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("num_validation", SIZES)
def test_alike_groups_lose_at_most_a_fifth_of_a_point_to_one_recipe_for_all(num_validation: int) -> None:
    low, high = interval(gains(differ=False, num_validation=num_validation))
    print(f"alike, {num_validation} validation images: {low:+.2f} to {high:+.2f} points")
    assert (low + high) / 2 >= -0.2


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_noise_that_is_not_what_it_is_taken_for_costs_alike_groups_little(noise: float) -> None:
    low, high = interval(gains(differ=False, num_validation=300, noise=noise))
    print(f"alike, {noise:g} times the noise: {low:+.2f} to {high:+.2f} points")
    assert (low + high) / 2 >= -0.2


@pytest.mark.parametrize("num_validation", SIZES)
def test_groups_that_differ_gain_beyond_the_interval(num_validation: int) -> None:
    low, high = interval(gains(differ=True, num_validation=num_validation))
    print(f"different, {num_validation} validation images: {low:+.2f} to {high:+.2f} points")
    assert low > 0
