"""Entropies of sources from samples: by hand, against simulation, and with the bias that they are meant to mend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import EntropyEstimator
from orchestrator.diversity.entropy import shannon_entropy
from orchestrator.diversity.estimators import (
    entropy_deviations,
    entropy_intervals,
    estimate_entropies,
    imbalance_ratios,
)
from orchestrator.diversity.subset_counts import CountRows
from orchestrator.errors import DataError

ESTIMATORS: list[EntropyEstimator] = ["plug_in", "miller_madow", "chao_shen"]
COUNTS = st.lists(st.integers(1, 1000), min_size=1, max_size=20)
SOURCE = np.array([0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01])
ENTROPY = float(-(SOURCE * np.log(SOURCE)).sum())


def draw(num_images: int, repeats: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).multinomial(num_images, SOURCE, size=repeats)


def rows_of(*subsets: Sequence[int]) -> CountRows:
    """Put the positive counts of several subsets one after the other."""
    positive = [[count for count in counts if count] for counts in subsets]
    starts = np.cumsum([0, *(len(counts) for counts in positive)])[:-1]
    return CountRows(np.array([count for counts in positive for count in counts], dtype=np.int64), starts)


def estimate_entropy(counts: Sequence[int], estimator: EntropyEstimator = "plug_in") -> float:
    return float(estimate_entropies(rows_of(counts), estimator)[0])


def entropy_deviation(counts: Sequence[int]) -> float:
    return float(entropy_deviations(rows_of(counts))[0])


def entropy_interval(
    counts: Sequence[int], estimator: EntropyEstimator = "plug_in", *, num_classes: int
) -> tuple[float, float]:
    lows, highs = entropy_intervals(rows_of(counts), estimator, num_classes=num_classes)
    return float(lows[0]), float(highs[0])


@given(st.lists(COUNTS, min_size=1, max_size=6), st.sampled_from(ESTIMATORS))
def test_subsets_beside_it_do_not_change_a_subsets_bits(subsets: list[list[int]], estimator: EntropyEstimator) -> None:
    together, alone = rows_of(*subsets), [rows_of(counts) for counts in subsets]
    assert estimate_entropies(together, estimator).tolist() == [estimate_entropies(r, estimator)[0] for r in alone]
    lows, highs = entropy_intervals(together, estimator, num_classes=20)
    assert [*zip(lows, highs, strict=True)] == [
        (low[0], high[0]) for low, high in (entropy_intervals(r, estimator, num_classes=20) for r in alone)
    ]
    assert imbalance_ratios(together).tolist() == [imbalance_ratios(r)[0] for r in alone]


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


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("counts", [[7], [1], [1, 1], [1, 1, 1], [2, 2], [10**9, 10**9]])
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
    assert entropy_deviation([5]) == 0.0


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
    assert imbalance_ratios(rows_of([30, 10, 15], [4])).tolist() == [3.0, 1.0]


def test_no_subsets_have_no_entropies() -> None:
    assert estimate_entropies(rows_of()).size == imbalance_ratios(rows_of()).size == 0


@pytest.mark.parametrize("count", [0, -1])
def test_counts_that_are_not_positive_are_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"must be positive, got {count}"):
        CountRows(np.array([2, count]), np.array([0]))
