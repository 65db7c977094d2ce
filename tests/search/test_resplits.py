"""Re-splits are fresh, stratified, and part nothing that belongs together."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.search.resplits import resplit

LABELS = np.repeat(np.arange(4), [60, 30, 8, 2])
ALONE = np.arange(len(LABELS)).astype(str)


def test_every_sample_is_on_one_side() -> None:
    train, validation = resplit(LABELS, ALONE, num_validation=25, seed=0, number=0)
    assert sorted([*train, *validation]) == list(range(100))
    assert len(validation) == pytest.approx(25, abs=2)


def test_classes_keep_their_shares() -> None:
    for number in range(5):
        _, validation = resplit(LABELS, ALONE, num_validation=25, seed=0, number=number)
        counts = np.bincount(LABELS[validation], minlength=4)
        np.testing.assert_allclose(counts, [15, 7.5, 2, 0.5], atol=0.51)


def test_what_belongs_together_is_not_parted() -> None:
    together = (np.arange(100) // 5).astype(str)
    train, validation = resplit(LABELS, together, num_validation=25, seed=0, number=3)
    assert not set(together[train]) & set(together[validation])
    assert 10 <= len(validation) <= 40


def test_numbers_give_different_splits_and_the_same_number_the_same() -> None:
    splits = [resplit(LABELS, ALONE, num_validation=25, seed=0, number=number)[1] for number in (0, 1, 1)]
    assert not np.array_equal(splits[0], splits[1])
    np.testing.assert_array_equal(splits[1], splits[2])


def test_both_sides_have_samples_where_two_can_be_parted() -> None:
    for wanted in (0, 1, 2):
        train, validation = resplit(np.array([0, 1]), ["a", "b"], num_validation=wanted, seed=0, number=0)
        assert len(train) == len(validation) == 1
