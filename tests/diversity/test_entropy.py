import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.diversity.entropy import (
    effective_number,
    histogram_entropy,
    normalized_entropy,
    shannon_entropy,
)
from orchestrator.errors import DataError

COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("counts", "by_hand"),
    [
        ([1, 1], 0.6931471805599453),
        ([3, 1], 0.5623351446188083),
        ([2, 1, 1], 1.0397207708399179),
        ([5, 0], 0.0),
        ([7], 0.0),
        ([0, 0], 0.0),
        ([], 0.0),
    ],
)
def test_entropy_is_in_nats_as_computed_by_hand(counts: list[int], by_hand: float) -> None:
    assert shannon_entropy(counts) == pytest.approx(by_hand, abs=1e-15)


@given(COUNTS.filter(any))
def test_entropy_agrees_with_scipy(counts: list[int]) -> None:
    assert shannon_entropy(counts) == pytest.approx(stats.entropy(counts), abs=1e-12)


@given(COUNTS.filter(any), st.integers(0, 5))
def test_normalized_entropy_is_a_share_of_the_label_spaces_logarithm(counts: list[int], absent: int) -> None:
    num_classes = len(counts) + absent
    found = normalized_entropy(shannon_entropy(counts), num_classes)
    assert 0.0 <= found <= 1.0
    if num_classes > 1:
        assert found == pytest.approx(stats.entropy(counts, base=num_classes), abs=1e-12)


def test_even_counts_over_the_whole_label_space_have_exactly_all_of_it() -> None:
    found = [normalized_entropy(shannon_entropy([3] * k), k) for k in range(2, 60)]
    assert found == pytest.approx([1.0] * 58, abs=1e-12)
    assert max(found) <= 1.0


def test_a_label_space_of_one_class_has_no_diversity() -> None:
    assert normalized_entropy(0.0, 1) == 0.0


def test_no_entropy_is_a_negative_zero() -> None:
    assert math.copysign(1.0, shannon_entropy([4])) == 1.0
    assert math.copysign(1.0, float(histogram_entropy(np.eye(1, 256))[0])) == 1.0


def test_the_effective_number_of_even_classes_is_their_number() -> None:
    assert effective_number(shannon_entropy([6, 6, 6, 6])) == pytest.approx(4.0)
    assert effective_number(shannon_entropy([6])) == 1.0


def test_every_histogram_has_its_own_entropy() -> None:
    histograms = np.random.default_rng(0).integers(0, 100, size=(5, 256))
    expected = [stats.entropy(histogram) for histogram in histograms]
    np.testing.assert_allclose(histogram_entropy(histograms), expected, rtol=1e-12)


def test_black_and_white_in_equal_parts_have_the_entropy_of_a_coin() -> None:
    histogram = np.zeros((1, 256), dtype=np.int64)
    histogram[0, [0, 255]] = 50
    assert histogram_entropy(histogram)[0] == pytest.approx(math.log(2))


def test_negative_counts_are_refused() -> None:
    with pytest.raises(DataError, match="negative, got -1"):
        shannon_entropy([2, -1])
