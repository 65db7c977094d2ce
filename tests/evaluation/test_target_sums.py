from functools import reduce
from operator import add

import numpy as np
import pytest
from shift_examples import a_classifier

from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.target_sums import TargetSums


@pytest.fixture(scope="module")
def images() -> Predictions:
    return a_classifier().images(900, np.array([0.6, 0.3, 0.1]), 1)


@pytest.fixture(scope="module")
def keys() -> np.ndarray:
    return np.random.default_rng(2).integers(2**63, size=900).astype(np.uint64)


def test_sums_of_parts_are_those_of_the_whole_in_any_order(
    images: Predictions, keys: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.evaluation.target_sums.MOST_IMAGES", 100)
    whole = TargetSums.of(images.probabilities, keys)
    for cuts in ([300, 310], [1, 899]):
        parts = [
            TargetSums.of(found, own)
            for found, own in zip(np.split(images.probabilities, cuts), np.split(keys, cuts), strict=True)
        ]
        for ordered in (parts, parts[::-1]):
            merged = reduce(add, ordered)
            np.testing.assert_array_equal(merged.counts, whole.counts)
            np.testing.assert_array_equal(merged.keys, whole.keys)
            np.testing.assert_array_equal(merged.probabilities, whole.probabilities)


def test_all_images_are_counted_and_a_bounded_random_sample_is_kept(
    images: Predictions, keys: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.evaluation.target_sums.MOST_IMAGES", 100)
    target = TargetSums.of(images.probabilities, keys).target()
    np.testing.assert_array_equal(target.counts, np.bincount(images.predicted, minlength=3))
    np.testing.assert_array_equal(target.probabilities, images.probabilities[np.argsort(keys)[:100]])


def test_without_keys_classes_alone_are_counted(images: Predictions) -> None:
    found = TargetSums.of(images.probabilities, np.zeros(0, dtype=np.uint64))
    assert found.counts.sum() == 900 and found.probabilities.shape == (0, 3)
    assert (found + found).counts.sum() == 1800
