"""Natural breaks against every possible cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.diversity.breaks import natural_breaks

Array = NDArray[np.float64]

DISTINCT = st.sets(st.integers(-500, 500), min_size=1, max_size=9)


def within(values: Array, weights: Array, breaks: list[int]) -> float:
    parts = zip(np.split(values, breaks), np.split(weights, breaks), strict=True)
    return sum(float((own * (part - np.average(part, weights=own)) ** 2).sum()) for part, own in parts)


@given(DISTINCT, st.integers(1, 6), st.integers(0, 1000))
def test_no_other_cut_is_more_alike_within(numbers: set[int], num_groups: int, seed: int) -> None:
    values = np.array(sorted(numbers)) / 8
    weights = np.random.default_rng(seed).integers(1, 5, size=len(values)).astype(float)
    found = natural_breaks(values, weights, num_groups)
    parts = min(num_groups, len(values))
    assert len(found) == parts - 1 and found == sorted(set(found))
    assert all(0 < place < len(values) for place in found)
    every_cut = itertools.combinations(range(1, len(values)), parts - 1)
    best = min(within(values, weights, list(cut)) for cut in every_cut)
    assert within(values, weights, found) == pytest.approx(best, abs=1e-9)


def test_gaps_are_where_groups_end() -> None:
    values = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 9.0])
    assert natural_breaks(values, np.ones(6), 3) == [3, 5]


def test_many_values_are_cut_as_the_definition_of_uniform_ones_has_it() -> None:
    values = np.arange(20_000) / 7
    assert natural_breaks(values, np.ones(len(values)), 4) == [5000, 10000, 15000]


def test_large_offsets_lose_nothing() -> None:
    values = 1e9 + np.array([0.0, 1.0, 10.0, 11.0])
    assert natural_breaks(values, np.ones(4), 2) == [2]
