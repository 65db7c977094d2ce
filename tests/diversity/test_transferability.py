"""Separability and distance from sums alone, against their definitions computed from the rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from orchestrator.diversity.feature_sums import DirectionSums, FeatureSums
from orchestrator.diversity.sketch import SketchedSums
from orchestrator.diversity.transferability import (
    class_distances,
    fisher_ratio,
    frechet_distance,
    h_score,
    log_evidence,
    mean_directions,
    separation,
    shrunk_h_score,
    variance_between,
    variance_within,
)
from orchestrator.diversity.vendi import on_own_axes, unit_directions
from orchestrator.errors import DataError

Array = NDArray[np.float64]


def features_of(
    num_images: int = 80, dimensions: int = 5, apart: float = 1.0, seed: int = 0
) -> tuple[Array, list[str]]:
    """Draw three classes whose means lie `apart`; gives directions without the coordinate of zero vectors."""
    generator = np.random.default_rng(seed)
    classes = generator.choice(3, size=num_images, p=[0.5, 0.3, 0.2])
    means = generator.normal(size=(3, dimensions))
    rows = apart * means[classes] + generator.normal(size=(num_images, dimensions))
    return unit_directions(rows)[:, :dimensions], [("cat", "dog", "fox")[index] for index in classes]


def rows_by_class(rows: Array, labels: list[str]) -> dict[str, Array]:
    return {name: rows[[label == name for label in labels]] for name in sorted(set(labels))}


def test_sums_give_the_moments_of_the_rows() -> None:
    rows, labels = features_of()
    sums = FeatureSums.of(rows, labels)
    parts = rows_by_class(rows, labels)
    assert sums.num_images == 80 and sums.classes == list(parts)
    np.testing.assert_allclose(sums.mean(), rows.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(sums.covariance(), np.cov(rows.T, bias=True), atol=1e-14)
    np.testing.assert_allclose(sums.class_means(), [part.mean(axis=0) for part in parts.values()], atol=1e-14)
    kept = mean_directions(sums).to_pylist()
    assert {row["label"]: row["num_images"] for row in kept} == {name: len(part) for name, part in parts.items()}
    np.testing.assert_array_equal([row["mean"] for row in kept], sums.class_means())
    means = np.concatenate([np.tile(part.mean(axis=0), (len(part), 1)) for part in parts.values()])
    expected = np.cov(means.T, bias=True)
    np.testing.assert_allclose(sums.between_classes(), expected, atol=1e-14)


def test_sums_of_parts_add_up_and_stay_as_they_were() -> None:
    rows, labels = features_of()
    whole = FeatureSums.of(rows, labels)
    first, second = FeatureSums.of(rows[:30], labels[:30]), FeatureSums.of(rows[30:], ["new", *labels[31:]])
    before = first.outer.copy()
    added = first + second
    np.testing.assert_allclose(added.outer, whole.outer, atol=1e-12)
    assert added.counts["new"] == 1 and added.num_images == 80
    np.testing.assert_array_equal(first.outer, before)
    assert "new" not in first.counts


def test_variances_add_up_to_that_of_all_rows() -> None:
    rows, labels = features_of()
    sums = FeatureSums.of(rows, labels)
    within = sum(((part - part.mean(axis=0)) ** 2).sum() for part in rows_by_class(rows, labels).values()) / len(rows)
    assert variance_within(sums) == pytest.approx(within)
    assert variance_within(sums) + variance_between(sums) == pytest.approx(rows.var(axis=0).sum())
    assert fisher_ratio(sums) == pytest.approx(variance_between(sums) / within)


def test_the_h_score_is_its_definition() -> None:
    rows, labels = features_of()
    sums = FeatureSums.of(rows, labels)
    expected = np.trace(np.linalg.pinv(np.cov(rows.T, bias=True)) @ sums.between_classes())
    assert h_score(sums) == pytest.approx(expected, rel=1e-9)


def test_the_log_evidence_is_that_of_bayesian_linear_models_at_their_best() -> None:
    """With prior a and noise b, y is normal with covariance I / b + F F^T / a: no a and b explain it better."""
    rows, labels = features_of(num_images=60)
    best = []
    for name in sorted(set(labels)):
        target = np.array([float(label == name) for label in labels])

        def negative(logs: Array, target: Array = target) -> float:
            prior, noise = np.exp(logs)
            covariance = np.eye(len(rows)) / noise + rows @ rows.T / prior
            return -float(multivariate_normal.logpdf(target, cov=covariance)) / len(rows)

        best.append(-minimize(negative, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).fun)
    assert log_evidence(FeatureSums.of(rows, labels)) == pytest.approx(np.mean(best), abs=1e-6)


@pytest.mark.parametrize("num_images", [20, 80, 400])
def test_the_shrunk_h_score_is_its_definition_on_all_axes_and_on_own_ones(num_images: int) -> None:
    rows, labels = features_of(num_images, dimensions=60)
    parts = rows_by_class(rows, labels)
    means = np.concatenate([np.tile(part.mean(axis=0), (len(part), 1)) for part in parts.values()])
    covariance, shrinkage = ledoit_wolf(rows)
    expected = np.trace(np.linalg.solve(covariance, (1 - shrinkage) * np.cov(means.T, bias=True)))
    assert shrunk_h_score(FeatureSums.of(rows, labels), 60) == pytest.approx(expected, rel=1e-9)
    assert shrunk_h_score(FeatureSums.of(on_own_axes(rows), labels), 60) == pytest.approx(expected, rel=1e-9)


def test_the_shrunk_h_score_tells_classes_apart_from_noise_with_fewer_images_than_features() -> None:
    noise, classes = (features_of(40, dimensions=200, apart=apart) for apart in (0.0, 2.0))
    plain = [h_score(FeatureSums.of(*drawn)) for drawn in (noise, classes)]
    shrunk = [shrunk_h_score(FeatureSums.of(*drawn), 200) for drawn in (noise, classes)]
    assert plain == pytest.approx([2.0, 2.0])
    assert shrunk[0] < 0.5 < 1.0 < shrunk[1]


@pytest.mark.parametrize("score", [h_score, log_evidence, fisher_ratio])
def test_classes_further_apart_score_higher_and_shuffled_labels_lowest(score) -> None:
    scores = [score(FeatureSums.of(*features_of(300, 8, apart))) for apart in (0.0, 0.5, 1.0, 3.0)]
    assert scores == sorted(scores) and scores[0] < scores[-1]
    rows, labels = features_of(300, 8, 3.0)
    shuffled = np.random.default_rng(1).permutation(labels).tolist()
    assert score(FeatureSums.of(rows, shuffled)) < scores[1]


def test_extremes_have_scores_too() -> None:
    one_class = FeatureSums.of(features_of()[0], ["cat"] * 80)
    assert h_score(one_class) == pytest.approx(0.0, abs=1e-9) and fisher_ratio(one_class) == 0.0
    points = FeatureSums.of(np.eye(3), ["cat", "dog", "fox"])
    assert h_score(points) == pytest.approx(2.0) and fisher_ratio(points) == math.inf
    single = FeatureSums.of(np.eye(3)[:1], ["cat"])
    assert h_score(single) == 0.0 and math.isfinite(log_evidence(single))
    few = FeatureSums.of(*features_of(num_images=6, dimensions=40))
    assert all(math.isfinite(value) for value in (h_score(few), log_evidence(few), fisher_ratio(few)))
    with pytest.raises(DataError, match="at least one image"):
        h_score(FeatureSums(outer=np.zeros((2, 2)), counts={}, sums={}))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dimensions", [3, 40])
@pytest.mark.parametrize("labels", [["cat"], ["cat"] * 24, ["cat", "dog"] * 12, list("abcdefghijklmnopqrstuvwx")])
@pytest.mark.parametrize("feature", ["same", "same direction", "zero"])
def test_features_that_are_the_same_for_all_images_part_nothing(
    feature: str, labels: list[str], dimensions: int
) -> None:
    generator = np.random.default_rng(0)
    rows = np.tile(generator.normal(size=dimensions), (len(labels), 1))
    if feature == "zero":
        rows *= 0.0
    if feature == "same direction":
        rows *= generator.uniform(0.1, 10.0, size=(len(labels), 1))
    directions = unit_directions(rows.astype(np.float32))
    every = [FeatureSums.of(directions, labels), FeatureSums.of(on_own_axes(directions), labels)]
    for sums in [*every, SketchedSums.of(directions, labels, 4).on_own_axes()]:
        assert h_score(sums) == shrunk_h_score(sums, dimensions + 1) == fisher_ratio(sums) == 0.0
        assert math.isfinite(log_evidence(sums))
        assert variance_within(sums) == pytest.approx(0.0, abs=1e-12)
        assert variance_between(sums) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("copies", [3, 10, 100])
def test_copies_of_fewer_images_than_features_have_an_evidence(copies: int) -> None:
    """A model fits them exactly, and along axes that none of them has there is rounding alone."""
    rows, labels = features_of(60, dimensions=80, apart=0.0)
    parts = [FeatureSums.of(rows, labels) for _ in range(copies)]
    found = log_evidence(sum(parts[1:], parts[0]))
    assert math.isfinite(found) and found > log_evidence(parts[0])


@pytest.mark.filterwarnings("error")
def test_classes_that_are_one_point_each_are_parted_without_bound_but_for_rounding() -> None:
    points = np.random.default_rng(0).normal(size=(2, 30)).astype(np.float32)
    directions, labels = unit_directions(np.repeat(points, 10, axis=0)), ["cat"] * 10 + ["dog"] * 10
    for sums in (FeatureSums.of(directions, labels), SketchedSums.of(directions, labels, 4).on_own_axes()):
        assert fisher_ratio(sums) == math.inf and h_score(sums) == pytest.approx(1.0)
        assert math.isfinite(log_evidence(sums))


@pytest.mark.parametrize("score", [h_score, log_evidence, fisher_ratio, variance_within, variance_between])
@pytest.mark.parametrize("num_images", [6, 25, 60])
def test_a_subset_on_its_own_axes_scores_as_on_those_of_all(score, num_images: int) -> None:
    rows, labels = features_of(num_images, dimensions=40)
    own, shared = FeatureSums.of(on_own_axes(rows), labels), FeatureSums.of(rows, labels)
    # The evidence is where its fixed point is left, which is not to the last digit.
    assert score(own) == pytest.approx(score(shared), rel=1e-6, abs=1e-5)


def test_distances_between_classes_are_those_of_their_means() -> None:
    found = class_distances(FeatureSums.of(np.eye(3)[[0, 0, 1, 2]], ["cat", "cat", "dog", "fox"]))
    np.testing.assert_allclose(found, math.sqrt(2) * (1 - np.eye(3)))


def test_the_frechet_distance_is_its_definition() -> None:
    (one, first), (other, second) = features_of(seed=1), features_of(seed=2)
    covariances = np.cov(one.T, bias=True), np.cov(other.T, bias=True)
    cross = np.trace(sqrtm(covariances[0] @ covariances[1]).real)
    expected = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * cross
    sums = FeatureSums.of(one, first), FeatureSums.of(other, second)
    assert frechet_distance(*sums) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(*sums) == pytest.approx(frechet_distance(*sums[::-1]), rel=1e-9)
    assert frechet_distance(sums[0], sums[0]) == pytest.approx(0.0, abs=1e-9)


def test_subsets_of_two_backbones_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="must have 5 dimensions to be compared, got 4"):
        frechet_distance(FeatureSums.of(*features_of()), FeatureSums.of(*features_of(dimensions=4)))


def test_separation_needs_the_sums_of_classes_alone() -> None:
    rows, labels = features_of()
    found, sums = separation(DirectionSums.of(rows, labels)), FeatureSums.of(rows, labels)
    assert found.variance_within == pytest.approx(variance_within(sums))
    assert found.variance_between == pytest.approx(variance_between(sums))
    distances = class_distances(sums)
    assert found.mean_distance == pytest.approx(distances[np.triu_indices(3, 1)].mean())
    for place, neighbour in enumerate(found.neighbours):
        others = np.delete(distances[place], place)
        assert neighbour.label == sums.classes[place]
        assert neighbour.distance == pytest.approx(others.min())
        assert distances[place, sums.classes.index(neighbour.nearest)] == neighbour.distance


def test_separation_is_that_of_the_whole_however_the_images_are_cut() -> None:
    rows, labels = features_of()
    parts = [DirectionSums.of(rows[start::4], labels[start::4]) for start in range(4)]
    whole, merged = (
        separation(DirectionSums.of(rows, labels)),
        separation(sum(parts, DirectionSums(counts={}, sums={}))),
    )
    assert merged.variance_within == pytest.approx(whole.variance_within)
    assert [found.nearest for found in merged.neighbours] == [found.nearest for found in whole.neighbours]


def test_one_class_has_no_neighbour_and_no_images_no_separation() -> None:
    found = separation(DirectionSums.of(np.eye(3), ["cat"] * 3))
    assert (found.variance_between, found.mean_distance, found.neighbours) == (pytest.approx(0), None, [])
    assert found.variance_within == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="at least one image"):
        separation(DirectionSums(counts={}, sums={}))
