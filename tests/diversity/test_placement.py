import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.diversity.placement import place, scored, ungrouped, with_borders, with_centres

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: value + 0.0)


def column(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=float)[:, None]


def test_a_border_lies_midway_between_neighbouring_groups() -> None:
    values = column(1.0, 2.0, 4.0, 9.0)
    rule = with_borders(ungrouped(values), values, np.array([0, 0, 1, 2]))
    assert rule.borders == [3.0, 6.5]
    assert place(rule, column(-9.0, 2.99, 3.0, 6.4, 6.5, 99.0)).tolist() == [0, 0, 1, 1, 2, 2]


def test_even_neighbouring_numbers_are_parted() -> None:
    values = column(1.0, math.nextafter(1.0, 2.0))
    rule = with_borders(ungrouped(values), values, np.array([0, 1]))
    assert place(rule, values).tolist() == [0, 1]


def test_the_threshold_between_two_groups_is_their_border() -> None:
    values = column(0.1, 3.0)
    assert with_borders(ungrouped(values), values, np.array([0, 1]), [1.0]).borders == [1.0]


@pytest.mark.parametrize(("upper", "border"), [(3.0, 1.55), (9.0, 2.0), (2.0, 1.05)])
def test_where_no_group_lies_between_two_thresholds_the_middle_parts_it_as_far_as_they_allow(
    upper: float, border: float
) -> None:
    values = column(0.1, upper)
    rule = with_borders(ungrouped(values), values, np.array([0, 2]), [1.0, 2.0])
    assert rule.borders == [pytest.approx(border)]


def test_several_measures_are_cut_at_the_mean_of_their_standard_scores() -> None:
    values = np.array([[0.0, 100.0], [1.0, 300.0], [2.0, 200.0]])
    rule = ungrouped(values)
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    np.testing.assert_allclose(scored(rule, values), standard.mean(axis=1))


def test_a_measure_without_spread_tells_nothing_and_breaks_nothing() -> None:
    values = np.array([[5.0, 1.0], [5.0, 2.0]])
    rule = with_centres(ungrouped(values), values, np.array([0, 1]))
    assert place(rule, np.array([[5.0, 1.4], [5.0, 1.6]])).tolist() == [0, 1]


def test_the_nearest_centre_counts_in_standard_deviations() -> None:
    values = np.array([[0.0, 0.0], [0.0, 1.0], [1000.0, 0.0], [1000.0, 1.0]])
    rule = with_centres(ungrouped(values), values, np.array([0, 1, 2, 3]))
    assert place(rule, np.array([[300.0, 0.9], [700.0, 0.1]])).tolist() == [1, 2]


def test_a_centre_that_is_nobodys_is_left_out() -> None:
    # The members of the first level are farther from their mean than from the second's.
    values = column(-10.0, 10.0, 0.0, -10.5, 10.5)
    rule = with_centres(ungrouped(values), values, np.array([0, 0, 1, 2, 3]))
    found = place(rule, values)
    assert len(rule.centres) == 3
    assert sorted(set(found.tolist())) == [0, 1, 2]


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_a_subset_falls_where_it_falls_whoever_comes_with_it(rows: list[tuple[float, ...]], seed: int) -> None:
    values = np.array(rows)
    generator = np.random.default_rng(seed)
    others = generator.normal(size=(9, 3)) * 10.0 ** generator.integers(-3, 6, size=3)
    bordered = with_borders(ungrouped(others), others, scored(ungrouped(others), others).argsort().argsort())
    centred = with_centres(ungrouped(others), others, np.arange(9))
    for rule in (bordered, centred):
        together = place(rule, values).tolist()
        assert together == [int(place(rule, values[[row]])[0]) for row in range(len(values))]
        assert together == place(rule, values[::-1])[::-1].tolist()
