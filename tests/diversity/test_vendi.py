import itertools
import math

import numpy as np
import pytest
from diversity_examples import brute_force_vendi
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.diversity.vendi import (
    REPEATS,
    on_own_axes,
    rarefied_deviation,
    rarefied_interval,
    rarefied_scores,
    similarity_matrix,
    unit_directions,
    vendi_score,
    vendi_scores,
)
from orchestrator.errors import DataError


def rarefied_vendi(directions: np.ndarray, num_images: int, *, seed: int, repeats: int = REPEATS) -> float:
    return rarefied_scores(directions, num_images, [1.0], seed=seed, repeats=repeats)[0]


def score_of(features: np.ndarray) -> float:
    return vendi_score(similarity_matrix(unit_directions(features)))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_the_score_agrees_with_its_definition(num_images: int, dimensions: int, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(num_images, dimensions))
    assert score_of(features) == pytest.approx(brute_force_vendi(features), rel=1e-9)


@pytest.mark.parametrize("num_images", [1, 3, 50])
def test_identical_features_score_one(num_images: int) -> None:
    features = np.tile(np.random.default_rng(0).normal(size=8), (num_images, 1))
    assert score_of(features) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("num_images", [1, 3, 50])
def test_orthogonal_features_score_their_number(num_images: int) -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(50, 50)))[0]
    assert score_of(rotation[:num_images]) == pytest.approx(num_images, rel=1e-9)


def test_two_kinds_of_images_in_unequal_shares_score_by_hand() -> None:
    features = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    assert score_of(features) == pytest.approx(np.exp(0.5623351446188083), abs=1e-12)


def test_lengths_do_not_matter_even_where_squares_would_overflow_or_vanish() -> None:
    features = np.random.default_rng(0).normal(size=(6, 4))
    lengths = np.array([[1e-200], [1e200], [1.0], [7.0], [1e-3], [1e3]])
    assert score_of(features * lengths) == pytest.approx(score_of(features), rel=1e-12)


def test_zero_vectors_equal_each_other_and_nothing_else() -> None:
    assert score_of(np.zeros((4, 3))) == pytest.approx(1.0)
    assert score_of(np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 5.0], [0.0, 1.0]])) == pytest.approx(2.0)


def test_directions_have_unit_length() -> None:
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    features[2] = 0
    directions = unit_directions(features)
    assert directions.shape == (5, 4) and directions.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, rtol=1e-12)


def test_the_similarity_matrix_is_never_larger_than_images_or_dimensions() -> None:
    assert similarity_matrix(np.eye(3, 8)).shape == (3, 3)
    assert similarity_matrix(np.tile(np.eye(3), (5, 1))).shape == (3, 3)


def test_rarefaction_estimates_the_mean_over_all_samples() -> None:
    directions = unit_directions(np.random.default_rng(1).normal(size=(9, 3)))
    every_sample = [directions[list(chosen)] for chosen in itertools.combinations(range(9), 4)]
    scores = [brute_force_vendi(sample) for sample in every_sample]
    spread = np.std(scores) / np.sqrt(500)
    found = rarefied_vendi(directions, 4, seed=0, repeats=500)
    assert found == pytest.approx(np.mean(scores), abs=4 * spread)


def test_rarefied_scores_of_like_subsets_agree_where_raw_scores_grow_with_size() -> None:
    features = np.random.default_rng(2).normal(size=(400, 64))
    small, large = unit_directions(features[:100]), unit_directions(features)
    assert score_of(features) > 1.2 * score_of(features[:100])
    assert rarefied_vendi(large, 50, seed=0) == pytest.approx(rarefied_vendi(small, 50, seed=0), rel=0.02)


@pytest.mark.parametrize("num_images", [4, 10])
def test_few_images_take_all_they_have(num_images: int) -> None:
    features = np.random.default_rng(3).normal(size=(4, 6))
    assert rarefied_vendi(unit_directions(features), num_images, seed=0) == score_of(features)


def test_rarefied_identical_features_score_one_and_orthogonal_ones_the_sample_size() -> None:
    assert rarefied_vendi(unit_directions(np.ones((30, 3))), 10, seed=0) == pytest.approx(1.0, abs=1e-9)
    assert rarefied_vendi(unit_directions(np.eye(30)), 10, seed=0) == pytest.approx(10.0, rel=1e-9)


def test_rarefaction_depends_on_its_seed_alone() -> None:
    directions = unit_directions(np.random.default_rng(4).normal(size=(20, 5)))
    assert rarefied_vendi(directions, 6, seed=1) == rarefied_vendi(directions, 6, seed=1)
    assert rarefied_vendi(directions, 6, seed=1) != rarefied_vendi(directions, 6, seed=2)


def test_no_images_have_no_score() -> None:
    with pytest.raises(DataError, match="at least one image"):
        similarity_matrix(np.zeros((0, 3)))


def test_orders_as_computed_by_hand() -> None:
    # Eigenvalues 3/4 and 1/4.
    matrix = similarity_matrix(unit_directions(np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])))
    first, second, last = vendi_scores(matrix, [1.0, 2.0, math.inf])
    assert first == vendi_score(matrix)
    assert second == pytest.approx(1 / (9 / 16 + 1 / 16))
    assert last == pytest.approx(4 / 3)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_higher_orders_never_score_higher(num_images: int, dimensions: int, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(num_images, dimensions))
    scores = vendi_scores(similarity_matrix(unit_directions(features)), [0.5, 1.0, 2.0, math.inf])
    assert all(low <= high + 1e-9 for high, low in itertools.pairwise(scores))
    assert min(scores) >= 1.0


def test_all_orders_agree_where_images_have_nothing_in_common() -> None:
    assert vendi_scores(np.eye(5) / 5, [1.0, 2.0, math.inf]) == pytest.approx([5.0] * 3)


def test_every_order_is_rarefied_on_the_same_samples() -> None:
    directions = unit_directions(np.random.default_rng(5).normal(size=(40, 6)))
    first, second = rarefied_scores(directions, 8, [1.0, 2.0], seed=3)
    assert first == rarefied_vendi(directions, 8, seed=3) and 1.0 < second < first


@pytest.mark.parametrize("num_images", [30, 60])
def test_the_interval_holds_the_mean_of_such_subsets_about_as_often_as_it_says(num_images: int) -> None:
    """Subsets of 60 images are drawn from one source: the expected score of 30, or of 60, lies in most intervals."""
    generator = np.random.default_rng(6)
    kinds = generator.normal(size=(6, 12))
    found = []
    for subset in range(60):
        rows = kinds[generator.choice(6, size=60, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05])]
        directions = unit_directions(rows + 0.3 * generator.normal(size=rows.shape))
        score = rarefied_vendi(directions, num_images, seed=subset)
        deviation = rarefied_deviation(directions, num_images, seed=subset)
        found.append((score, rarefied_interval(score, deviation, most=num_images)))
    expected = np.mean([score for score, _ in found])
    covered = np.mean([low <= expected <= high for _, (low, high) in found])
    assert 0.8 <= covered <= 1.0
    widths = [high - low for _, (low, high) in found]
    assert np.mean(widths) < 6 * np.std([score for score, _ in found])


def test_an_interval_stays_where_scores_are() -> None:
    alike = rarefied_deviation(unit_directions(np.ones((9, 3))), 5, seed=0)
    assert rarefied_interval(1.0, alike, most=5) == (1.0, pytest.approx(1.0, abs=1e-12))
    low, high = rarefied_interval(5.0, rarefied_deviation(unit_directions(np.eye(9)), 5, seed=0), most=5)
    assert 1.0 < low < high == 5.0


@pytest.mark.parametrize(("num_images", "dimensions"), [(5, 20), (5, 5), (20, 5)])
def test_own_axes_are_no_more_than_images_and_keep_lengths_and_angles(num_images: int, dimensions: int) -> None:
    directions = unit_directions(np.random.default_rng(7).normal(size=(num_images, dimensions)))
    rotated = on_own_axes(directions)
    assert rotated.shape == (num_images, min(num_images, dimensions + 1))
    np.testing.assert_allclose(rotated @ rotated.T, directions @ directions.T, atol=1e-12)
