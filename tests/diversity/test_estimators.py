"""Entropies of sources from samples: by hand, against simulation, and with the bias that they are meant to mend."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import EntropyEstimator
from orchestrator.diversity.entropy import shannon_entropy
from orchestrator.diversity.estimators import (
    entropy_deviation,
    entropy_interval,
    estimate_entropy,
    imbalance_ratio,
)
from orchestrator.errors import DataError

COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=20)
SOURCE = np.array([0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01])
ENTROPY = float(-(SOURCE * np.log(SOURCE)).sum())


def draw(num_images: int, repeats: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).multinomial(num_images, SOURCE, size=repeats)


@given(COUNTS)
def test_the_plug_in_is_the_entropy_of_the_counts(counts: list[int]) -> None:
    assert estimate_entropy(counts) == pytest.approx(shannon_entropy(counts), abs=1e-12)


def test_miller_madow_adds_half_a_class_less_one_an_image() -> None:
    assert estimate_entropy([3, 1], "miller_madow") == pytest.approx(0.5623351446188083 + 1 / 8)
    assert estimate_entropy([3, 1, 0], "miller_madow") == estimate_entropy([3, 1], "miller_madow")


def test_chao_shen_as_computed_by_hand() -> None:
    # N = 4, one class seen once: C = 3/4, C p = 9/16 and 3/16.
    expected = -sum(p * math.log(p) / (1 - (1 - p) ** 4) for p in (9 / 16, 3 / 16))
    assert estimate_entropy([3, 1], "chao_shen") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("estimator", ["plug_in", "miller_madow", "chao_shen"])
@pytest.mark.parametrize("counts", [[], [0], [7], [1], [1, 1], [1, 1, 1], [2, 2], [10**9, 10**9]])
def test_every_estimate_is_a_number_of_nats(counts: list[int], estimator: EntropyEstimator) -> None:
    found = estimate_entropy(counts, estimator)
    assert math.isfinite(found) and found >= 0.0
    if len([count for count in counts if count]) <= 1:
        assert found == 0.0


@pytest.mark.parametrize("estimator", ["miller_madow", "chao_shen"])
def test_small_samples_are_mended(estimator: EntropyEstimator) -> None:
    samples = draw(20)
    plug_in = np.mean([estimate_entropy(counts) for counts in samples])
    mended = np.mean([estimate_entropy(counts, estimator) for counts in samples])
    assert plug_in < ENTROPY - 0.1
    assert abs(mended - ENTROPY) < abs(plug_in - ENTROPY) / 2


@pytest.mark.parametrize("estimator", ["plug_in", "miller_madow", "chao_shen"])
def test_large_samples_need_no_mending(estimator: EntropyEstimator) -> None:
    found = [estimate_entropy(counts, estimator) for counts in draw(20_000, repeats=50)]
    assert np.mean(found) == pytest.approx(ENTROPY, abs=2e-3)


@pytest.mark.parametrize("num_images", [50, 500])
def test_the_deviation_is_that_of_simulated_samples(num_images: int) -> None:
    samples = draw(num_images)
    simulated = np.std([shannon_entropy(counts) for counts in samples])
    assert np.mean([entropy_deviation(counts) for counts in samples]) == pytest.approx(simulated, rel=0.1)


def test_even_counts_have_a_deviation_too() -> None:
    assert entropy_deviation([5, 5]) == pytest.approx(math.sqrt(1 / 200))
    assert entropy_deviation([5]) == entropy_deviation([]) == 0.0


@pytest.mark.parametrize("num_images", [50, 500])
def test_the_interval_holds_the_sources_entropy_about_as_often_as_it_says(num_images: int) -> None:
    intervals = [entropy_interval(counts, num_classes=10) for counts in draw(num_images)]
    covered = np.mean([low <= ENTROPY <= high for low, high in intervals])
    assert 0.88 <= covered <= 0.98


@given(COUNTS, st.sampled_from(["plug_in", "miller_madow", "chao_shen"]))
def test_an_interval_stays_where_entropies_are(counts: list[int], estimator: EntropyEstimator) -> None:
    low, high = entropy_interval(counts, estimator, num_classes=len(counts))
    assert 0.0 <= low <= high <= math.log(len(counts)) + 1e-12


def test_imbalance_compares_the_classes_that_occur() -> None:
    assert imbalance_ratio([30, 0, 10, 15]) == 3.0
    assert imbalance_ratio([4]) == imbalance_ratio([]) == 1.0


def test_negative_counts_are_refused() -> None:
    with pytest.raises(DataError, match="must not be negative, got -1"):
        estimate_entropy([2, -1])
