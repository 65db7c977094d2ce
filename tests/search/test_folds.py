"""Folds cover the samples once, part nothing that belongs together, and are alike in their classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.search.folds import deal_folds

LABELS = np.repeat(np.arange(4), [60, 31, 8, 2])
ALONE = np.arange(len(LABELS)).astype(np.uint64)


def class_counts(labels: np.ndarray, folds: np.ndarray, count: int) -> np.ndarray:
    return np.stack([np.bincount(labels[folds == fold], minlength=labels.max() + 1) for fold in range(count)])


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_single_samples_are_level_in_every_class_and_in_all(count: int) -> None:
    counts = class_counts(LABELS, deal_folds(LABELS, ALONE, count=count, seed=0), count)
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=6, max_size=40),
    count=st.integers(2, 6),
    seed=st.integers(0, 5),
)
def test_counts_of_a_class_differ_by_its_largest_unit_at_most(
    units: list[tuple[int, int]], count: int, seed: int
) -> None:
    sizes = [size for _, size in units]
    labels = np.repeat([label for label, _ in units], sizes)
    counts = class_counts(
        labels, deal_folds(labels, np.repeat(np.arange(len(units)), sizes), count=count, seed=seed), count
    )
    for label in set(labels.tolist()):
        assert np.ptp(counts[:, label]) <= max(size for found, size in units if found == label)


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=6, max_size=40),
    count=st.integers(2, 6),
    seed=st.integers(0, 5),
)
def test_units_of_any_classes_stay_whole_and_every_fold_has_some(units: list[list[int]], count: int, seed: int) -> None:
    labels = np.concatenate(units).astype(np.int64)
    together = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    folds = deal_folds(labels, together, count=count, seed=seed)
    assert set(folds.tolist()) == set(range(count))
    assert all(len(set(folds[together == unit].tolist())) == 1 for unit in range(len(units)))


def test_single_samples_make_up_for_what_units_left_uneven() -> None:
    labels = np.array([0] * 4 + [1] * 4 + [0, 1] * 10)
    together = np.array([100] * 4 + [101] * 4 + list(range(20)))
    counts = class_counts(labels, deal_folds(labels, together, count=3, seed=1), 3)
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_units_of_one_class_are_spread() -> None:
    labels = np.repeat([0, 1], 60)
    together = np.arange(120) // 5
    counts = class_counts(labels, deal_folds(labels, together, count=4, seed=2), 4)
    np.testing.assert_array_equal(counts, np.full((4, 2), 15))


def test_the_same_seed_deals_the_same_folds_and_another_others() -> None:
    first, again, other = (deal_folds(LABELS, ALONE, count=5, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_order_of_the_samples_does_not_matter() -> None:
    together = np.concatenate([np.repeat(np.arange(5), 8), np.arange(10, 71)])
    order = np.random.default_rng(0).permutation(len(LABELS))
    folds = deal_folds(LABELS, together, count=4, seed=0)
    np.testing.assert_array_equal(deal_folds(LABELS[order], together[order], count=4, seed=0), folds[order])


def test_a_class_with_fewer_samples_than_folds_is_dealt_as_far_as_it_goes() -> None:
    counts = class_counts(LABELS, deal_folds(LABELS, ALONE, count=5, seed=0), 5)
    assert sorted(counts[:, 3].tolist()) == [0, 0, 0, 1, 1]


def test_more_folds_than_units_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"search\.folds must be at most .* got 3 folds of 2"):
        deal_folds(np.array([0, 1, 0]), ["a", "a", "b"], count=3, seed=0)


def test_a_hundred_thousand_images_are_dealt_at_once() -> None:
    labels = np.random.default_rng(0).integers(0, 100, 100_000)
    counts = class_counts(labels, deal_folds(labels, np.arange(100_000), count=5, seed=0), 5)
    assert (np.ptp(counts, axis=0) <= 1).all()
