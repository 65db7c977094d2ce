"""Says from features alone how well a backbone separates the classes of a subset, and how far two subsets are apart."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from orchestrator.diversity.feature_sums import DirectionSums, FeatureSums
from orchestrator.errors import DataError
from orchestrator.records import ClassNeighbour, FeatureSeparation

LEAST_VARIANCE = 1e-10
"""What is less is rounding, as a variance of unit directions and as a share of the largest variance of any.

Single precision leaves 1e-14 of features that are all the same.
"""

_MOST_STEPS = 100
_STEP_TOLERANCE = 1e-6


def variance_within(sums: FeatureSums) -> float:
    """Give the mean squared distance of directions from the mean of their class."""
    return max(0.0, float(np.trace(sums.covariance() - sums.between_classes())))


def variance_between(sums: DirectionSums) -> float:
    """Give the mean squared distance of class means from the mean of all, weighted by images."""
    return float((sums.class_deviations() ** 2).sum())


def fisher_ratio(sums: FeatureSums) -> float:
    """Give the variance between classes over that within: infinity when every class is one point.

    0 for one class, and where the means of all classes are one point.
    """
    between, within = variance_between(sums), variance_within(sums)
    if between <= LEAST_VARIANCE:
        return 0.0
    return between / within if within > LEAST_VARIANCE else math.inf


def class_distances(sums: DirectionSums) -> NDArray[np.float64]:
    """Give the distances [classes, classes] between the mean directions of classes, in the order of `sums.classes`."""
    means = sums.class_means()
    distances: NDArray[np.float64] = cdist(means, means)
    return distances


def mean_directions(sums: DirectionSums) -> pa.Table:
    """Give the mean direction of every class, a row each, ordered by label.

    Columns: label, num_images, and mean: a list of float64, as long as the directions.
    """
    return pa.table(
        {
            "label": pa.array(sums.classes, pa.string()),
            "num_images": pa.array([sums.counts[name] for name in sums.classes], pa.int64()),
            "mean": pa.array([mean.tolist() for mean in sums.class_means()], pa.list_(pa.float64())),
        }
    )


def separation(sums: DirectionSums) -> FeatureSeparation:
    """Say how unit directions lie apart by class, from their classes' sums alone. Raises DataError without images.

    Unit directions have a mean squared length of 1: what the squared length of the mean and the variance between
    classes leave of it is the variance within.
    """
    _require_images(sums)
    between, mean = variance_between(sums), sums.mean()
    distances, classes = class_distances(sums), sums.classes
    np.fill_diagonal(distances, math.inf)
    nearest = distances.argmin(axis=1)
    has_others = len(classes) > 1
    return FeatureSeparation(
        variance_within=max(0.0, 1.0 - between - float(mean @ mean)),
        variance_between=between,
        mean_distance=float(distances[np.isfinite(distances)].mean()) if has_others else None,
        neighbours=[
            ClassNeighbour(label=name, nearest=classes[other], distance=float(distances[place, other]))
            for place, (name, other) in enumerate(zip(classes, nearest.tolist(), strict=True))
            if has_others
        ],
    )


def h_score(sums: FeatureSums) -> float:
    """Give tr(cov(f)^-1 cov(E[f | y])): from 0 to the number of classes less one, the greater the more separable.

    Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", 2019. The covariance
    is inverted where it is not nothing; with fewer images than dimensions the score is too good, which a score of
    other images shows. 0 where all images are one point. Raises DataError without images.
    """
    _require_images(sums)
    variances, axes = np.linalg.eigh(sums.covariance())
    if float(variances[-1]) <= LEAST_VARIANCE:
        return 0.0
    kept = variances > LEAST_VARIANCE * float(variances[-1])
    axes = axes[:, kept]
    return float((_between_along(axes, sums) / variances[kept]).sum())


def shrunk_h_score(sums: FeatureSums, dimensions: int) -> float:
    """Give the H-score with a covariance shrunk towards a sphere: it stays below its bound with few images too.

    tr(C^-1 (1 - a) cov(E[f | y])) with C = (1 - a) cov(f) + a tr(cov(f)) / d I (Ibrahim et al., "Newer is not always
    better: Rethinking Transferability Metrics, Their Peculiarities, Stability and Performance", 2021), a by Ledoit and
    Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004. `dimensions` are those of the
    features, also where the sums are on own axes. Raises DataError without images.
    """
    _require_images(sums)
    covariance = sums.covariance()
    sphere = float(np.trace(covariance)) / dimensions
    if sphere <= LEAST_VARIANCE:
        return 0.0
    share = _shrinkage(sums, covariance, sphere, dimensions)
    variances, axes = np.linalg.eigh(covariance)
    between = _between_along(axes, sums)
    shrunk = (1 - share) * variances.clip(0.0) + share * sphere
    kept = shrunk > LEAST_VARIANCE * float(shrunk[-1])
    return float(((1 - share) * between[kept] / shrunk[kept]).sum())


def _between_along(axes: NDArray[np.float64], sums: FeatureSums) -> NDArray[np.float64]:
    """Give the variance of class means along each of the axes [d, k]."""
    between: NDArray[np.float64] = ((sums.class_deviations() @ axes) ** 2).sum(axis=0)
    return between


def _shrinkage(sums: FeatureSums, covariance: NDArray[np.float64], sphere: float, dimensions: int) -> float:
    """Give Ledoit and Wolf's share of the sphere: of unit directions the fourth moments follow from the sums."""
    count, mean = sums.num_images, sums.mean()
    length = float(mean @ mean)
    fourths = (1 + length) ** 2 - 4 * (1 + length) * length + 4 * float(mean @ sums.outer @ mean) / count
    squares = float((covariance**2).sum())
    error = (fourths - squares) / count
    distance = squares - dimensions * sphere**2
    return 1.0 if error >= distance else max(0.0, error / distance)


def log_evidence(sums: FeatureSums) -> float:
    """Give LogME: the mean over classes and images of the log evidence of a Bayesian linear model of each class.

    You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", 2021, with the fixed point
    of its follow-up ("Ranking and Tuning Pre-trained Models", 2022). All it needs are sums: F^T F, and F^T y and
    y^T y of each class's indicator y. Raises DataError without images.
    """
    _require_images(sums)
    squares, axes = np.linalg.eigh(sums.outer)
    # Others add nothing but rounding, which grows without bound where a model fits exactly.
    kept = squares > LEAST_VARIANCE * squares[-1]
    squares, axes = squares[kept], axes[:, kept]
    projected = np.array([sums.sums[name] for name in sums.classes]) @ axes
    targets = np.array([float(sums.counts[name]) for name in sums.classes])
    return float(_evidences(squares, projected, targets, sums.num_images).mean())


def _evidences(
    squares: NDArray[np.float64], projected: NDArray[np.float64], targets: NDArray[np.float64], num_images: int
) -> NDArray[np.float64]:
    """Give the evidence of each class an image: squares [d] are the eigenvalues of F^T F, `projected` F^T y [K, d]."""
    prior, noise = np.ones((2, len(targets), 1))

    def fitted() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the squared lengths [K, 1] of the likeliest weights, and the squared errors that they leave."""
        weights = noise * projected / (prior + noise * squares)
        explained = (2 * weights * projected - weights**2 * squares).sum(axis=1, keepdims=True)
        residual = np.maximum(1e-12, targets[:, None] - explained)
        return (weights**2).sum(axis=1, keepdims=True), residual

    for _ in range(_MOST_STEPS):
        norm, residual = fitted()
        effective = (noise * squares / (prior + noise * squares)).sum(axis=1, keepdims=True)
        before = prior / noise
        prior, noise = effective / np.maximum(norm, 1e-12), (num_images - effective) / residual
        # As many free directions as images: the model is exact, and its evidence without bound.
        noise = np.where(noise <= 0, 1e12, noise)
        if (np.abs(prior / noise - before) <= _STEP_TOLERANCE * before).all():
            break
    norm, residual = fitted()
    evidence = (
        len(squares) / 2 * np.log(prior)
        + num_images / 2 * np.log(noise)
        - noise / 2 * residual
        - prior / 2 * norm
        - np.log(prior + noise * squares).sum(axis=1, keepdims=True) / 2
        - num_images / 2 * math.log(2 * math.pi)
    )
    per_image: NDArray[np.float64] = evidence[:, 0] / num_images
    return per_image


def frechet_distance(one: FeatureSums, other: FeatureSums) -> float:
    """Give the squared Frechet distance of two subsets' directions as if both were normal, from 0 on.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Dowson and Landau, "The Frechet distance between multivariate normal
    distributions", 1982). Raises DataError without images, or when the directions differ in their dimensions.
    """
    for sums in (one, other):
        _require_images(sums)
    if one.outer.shape != other.outer.shape:
        raise DataError(
            f"features must have {len(one.outer)} dimensions to be compared",
            value=len(other.outer),
            remedy="Measure both subsets with one backbone.",
        )
    first, second = one.covariance(), other.covariance()
    root = _square_root(first)
    crossed = np.linalg.eigvalsh(root @ second @ root).clip(0.0)
    apart = float(((one.mean() - other.mean()) ** 2).sum())
    return max(0.0, apart + float(np.trace(first) + np.trace(second)) - 2 * float(np.sqrt(crossed).sum()))


def _square_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, axes = np.linalg.eigh(matrix)
    root: NDArray[np.float64] = (axes * np.sqrt(values.clip(0.0))) @ axes.T
    return root


def _require_images(sums: DirectionSums) -> None:
    if sums.num_images == 0:
        raise DataError("separability needs at least one image")
