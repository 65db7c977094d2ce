"""Whether subsets differ beyond chance, and how often each would change its group, on made-up measures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from orchestrator.diversity.distinctness import assignment_stability, difference_p_value

Array = NDArray[np.float64]


def above_half(values: Array) -> NDArray[np.int64]:
    return (values[:, 0] > 0.5).astype(np.int64)


def test_values_that_only_chance_parts_have_every_p_value_alike() -> None:
    generator = np.random.default_rng(0)
    deviations = generator.uniform(0.1, 2.0, size=(12, 1))
    found = [difference_p_value(3.0 + deviations * generator.normal(size=(12, 1)), deviations) for _ in range(500)]
    assert kstest(found, "uniform").pvalue > 0.01


def test_values_apart_by_many_deviations_differ() -> None:
    assert difference_p_value(np.array([[1.0], [1.1], [2.0]]), np.full((3, 1), 0.05)) < 1e-6


def test_one_measure_that_differs_is_enough_and_the_number_of_measures_counts() -> None:
    same, apart = np.zeros((4, 1)), np.array([[0.0], [0.0], [0.0], [5.0]])
    deviations = np.ones((4, 1))
    alone = difference_p_value(apart, deviations)
    both = difference_p_value(np.hstack([same, apart]), np.hstack([deviations, deviations]))
    assert both == pytest.approx(2 * alone) and both < 0.05
    assert difference_p_value(np.hstack([same, same]), np.hstack([deviations, deviations])) == 1.0


def test_a_single_subset_differs_from_nothing() -> None:
    assert difference_p_value(np.array([[1.0]]), np.array([[0.1]])) == 1.0


def test_values_known_exactly_differ_when_they_are_not_equal() -> None:
    zero = np.zeros((3, 1))
    assert difference_p_value(np.array([[1.0], [1.0], [2.0]]), zero) == 0.0
    assert difference_p_value(np.ones((3, 1)), zero) == 1.0


def test_subsets_near_a_border_move_and_the_others_stay() -> None:
    values = np.array([[0.0], [0.5 + 1e-9], [1.0]])
    deviations = np.full((3, 1), 0.1)
    found = assignment_stability(values, deviations, above_half(values), above_half, seed=0, redraws=2000)
    assert found[0] > 0.999 and found[2] > 0.999
    assert found[1] == pytest.approx(0.5, abs=0.05)


def test_stability_depends_on_the_seed_alone() -> None:
    values, deviations = np.linspace(0, 1, 7)[:, None], np.full((7, 1), 0.2)
    once, again, other = (
        assignment_stability(values, deviations, above_half(values), above_half, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(once, again) and not np.array_equal(once, other)
