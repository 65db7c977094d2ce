import math
from itertools import pairwise

import numpy as np
import pytest
from diversity_examples import identities
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.config import MOST_EXACT_DIMENSIONS
from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.diversity.features import FeatureMoments, hash_ids
from orchestrator.diversity.sketch import SketchedSums
from orchestrator.diversity.transferability import h_score
from orchestrator.diversity.vendi import similarity_matrix, unit_directions, vendi_score
from orchestrator.errors import DataError


def some_directions(num_images: int, dimensions: int, decay: float = 1.0, seed: int = 0) -> NDArray[np.float64]:
    """Draw features whose variances fall with a power of their place, as those of networks do, and with a mean."""
    generator = np.random.default_rng([seed, num_images, dimensions])
    scales = np.arange(1, dimensions + 1) ** -decay
    return unit_directions((generator.normal(size=(num_images, dimensions)) + 0.5) * scales)


def labels_of(num_images: int) -> list[str]:
    return [("cat", "dog", "fox")[index % 3] for index in range(num_images)]


def sketch_of(directions: NDArray[np.float64], cuts: list[int], size: int) -> SketchedSums:
    """Sketch parts that begin at `cuts`, and merge them one after the other."""
    parts = np.split(np.arange(len(directions)), sorted(cuts))
    first, *others = [
        SketchedSums.of(directions[rows], [labels_of(len(directions))[row] for row in rows], size) for rows in parts
    ]
    for other in others:
        first = first + other
    return first


@given(
    st.integers(1, 80),
    st.integers(1, 30),
    st.integers(2, 12),
    st.lists(st.integers(0, 80), max_size=5),
    st.floats(0.0, 3.0),
    st.integers(0, 2**32 - 1),
)
def test_the_exact_score_lies_between_the_bounds_however_the_parts_were_cut(
    num_images: int, dimensions: int, size: int, cuts: list[int], decay: float, seed: int
) -> None:
    directions = some_directions(num_images, dimensions, decay, seed)
    sketch = sketch_of(directions, [min(cut, num_images) for cut in cuts], size)
    low, high = sketch.vendi_bounds()
    exact = vendi_score(similarity_matrix(directions))
    assert low * (1 - 1e-9) <= exact <= high * (1 + 1e-9)
    assert len(sketch.rows) <= size


@given(st.integers(2, 80), st.integers(1, 30), st.integers(2, 12), st.lists(st.integers(0, 80), max_size=5))
def test_what_is_lost_keeps_to_its_bound(num_images: int, dimensions: int, size: int, cuts: list[int]) -> None:
    directions = some_directions(num_images, dimensions)
    sketch = sketch_of(directions, [min(cut, num_images) for cut in cuts], size)
    missing = np.linalg.eigvalsh(directions.T @ directions - sketch.rows.T @ sketch.rows)
    assert missing.min() >= -1e-9
    assert missing.max() <= sketch.lost + 1e-9
    assert sketch.lost <= (num_images - (sketch.rows**2).sum()) / size + 1e-9


def test_bounds_close_as_the_sketch_grows_and_are_tight_where_nothing_is_lost() -> None:
    directions = some_directions(300, 60)
    exact = vendi_score(similarity_matrix(directions))
    bounds = [sketch_of(directions, [100], size).vendi_bounds() for size in (8, 16, 32, 61, 300)]
    widths = [math.log(high / low) for low, high in bounds]
    assert all(wide > narrow for wide, narrow in pairwise(widths[:4]))
    assert bounds[-1] == pytest.approx((exact, exact), rel=1e-9)


def test_few_kinds_of_images_are_sketched_without_loss() -> None:
    kinds = np.eye(40)[:5]
    sketch = sketch_of(unit_directions(kinds[np.arange(200) % 5]), [50, 120], 8)
    assert sketch.lost == pytest.approx(0.0, abs=1e-9)
    assert sketch.vendi_bounds() == pytest.approx((5.0, 5.0), rel=1e-6)


@given(st.lists(st.integers(0, 60), max_size=5))
def test_classes_are_counted_and_summed_up_exactly(cuts: list[int]) -> None:
    directions = some_directions(60, 10)
    sketch, expected = sketch_of(directions, cuts, 4), FeatureSums.of(directions, labels_of(60))
    assert sketch.counts == expected.counts and sketch.num_images == 60
    for name, total in expected.sums.items():
        np.testing.assert_allclose(sketch.sums[name], total, rtol=0, atol=1e-12)


def test_an_h_score_of_the_sketch_is_at_most_that_of_all_axes_and_near_where_little_is_lost() -> None:
    directions = some_directions(400, 30, decay=2.0)
    labels = labels_of(400)
    directions[:, 0] += 0.2 * np.array([labels.index(label) for label in labels])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    exact = h_score(FeatureSums.of(directions, labels))
    scores = [h_score(sketch_of(directions, [150], size).on_own_axes()) for size in (6, 12, 31)]
    assert all(0.0 < score <= exact * (1 + 1e-9) for score in scores)
    assert scores[-1] == pytest.approx(exact, rel=1e-6)


def moments_of(features: NDArray[np.float64], parts: int, sketch_above: int = MOST_EXACT_DIMENSIONS) -> FeatureMoments:
    moments = FeatureMoments(8, sketch_above)
    ids, labels = identities(len(features)), labels_of(len(features))
    for rows in np.array_split(np.arange(len(features)), parts):
        moments.add(features[rows], hash_ids([ids[row] for row in rows]), [labels[row] for row in rows])
    return moments


@pytest.mark.parametrize("parts", [1, 3])
def test_long_features_are_sketched_and_say_so(parts: int) -> None:
    features = np.random.default_rng(0).normal(size=(600, 30)) * np.arange(1, 31) ** -1.0
    moments = moments_of(features, parts, sketch_above=20)
    low, high = moments.vendi_bounds()
    assert low <= vendi_score(similarity_matrix(unit_directions(features))) * (1 + 1e-9)
    assert vendi_score(similarity_matrix(unit_directions(features))) <= high * (1 + 1e-9)
    assert moments.sums_on_own_axes().counts == {"cat": 200, "dog": 200, "fox": 200}
    for exact_only in (moments.sums, moments.similarity_matrix):
        with pytest.raises(
            DataError, match=r"at most diversity\.sketch_above dimensions to be summed up exactly, got 30"
        ):
            exact_only()


def test_up_to_two_thousand_dimensions_sums_are_exact() -> None:
    assert MOST_EXACT_DIMENSIONS >= 2048
    moments = moments_of(np.random.default_rng(0).normal(size=(80, 30)), 2)
    low, high = moments.vendi_bounds()
    assert low == high == vendi_score(moments.similarity_matrix())
