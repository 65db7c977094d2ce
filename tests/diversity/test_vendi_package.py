"""The Vendi score agrees with `vendi-score`, the package of the paper's authors, on its own definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from diversity_examples import identities
from numpy.typing import NDArray
from vendi_score import vendi

from orchestrator.diversity.features import FeatureMoments, hash_ids
from orchestrator.diversity.vendi import vendi_score, vendi_scores

SHAPES = [(1, 5), (30, 80), (80, 30), (700, 12)]


def some_features(num_images: int, dimensions: int) -> NDArray[np.float64]:
    generator = np.random.default_rng([num_images, dimensions])
    return generator.normal(size=(num_images, dimensions)) * np.geomspace(1.0, 0.01, dimensions)


def our_matrix(features: NDArray[np.float64]) -> NDArray[np.float64]:
    moments = FeatureMoments()
    moments.add(features, hash_ids(identities(len(features))), ["cat"] * len(features))
    return moments.similarity_matrix()


@pytest.mark.parametrize(("num_images", "dimensions"), SHAPES)
def test_order_one_is_score_x_and_score_dual(num_images: int, dimensions: int) -> None:
    features = some_features(num_images, dimensions)
    ours = vendi_score(our_matrix(features))
    assert ours == pytest.approx(vendi.score_X(features), rel=1e-9)
    assert ours == pytest.approx(vendi.score_dual(features), rel=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(1.0, 1), (2.0, 2), (math.inf, "inf")])
def test_every_order_is_the_score_of_cosine_similarities(ours: float, theirs: int | str) -> None:
    # Not score_X: it ignores its order.
    features = some_features(40, 12)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = vendi.score(list(unit), lambda one, other: float(one @ other), q=theirs)
    assert vendi_scores(our_matrix(features), [ours])[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(2.0, 2), (math.inf, "inf")])
@pytest.mark.parametrize(("num_images", "dimensions"), SHAPES)
def test_other_orders_are_those_of_the_dual(num_images: int, dimensions: int, ours: float, theirs: int | str) -> None:
    features = some_features(num_images, dimensions)
    found = vendi_scores(our_matrix(features), [ours])[0]
    assert found == pytest.approx(vendi.score_dual(features, q=theirs), rel=1e-9)
