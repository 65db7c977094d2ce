"""Says from features alone how well a backbone separates the classes of a subset, and how far two subsets are apart."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.errors import DataError

# Directions with less than this share of the largest variance carry rounding errors, not features.
_LEAST_VARIANCE = 1e-10
_MOST_STEPS = 100
_STEP_TOLERANCE = 1e-6


def variance_within(sums: FeatureSums) -> float:
    """Give the mean squared distance of directions from the mean of their class."""
    return max(0.0, float(np.trace(sums.covariance() - sums.between_classes())))


def variance_between(sums: FeatureSums) -> float:
    """Give the mean squared distance of class means from the mean of all, weighted by images."""
    return float(np.trace(sums.between_classes()))


def fisher_ratio(sums: FeatureSums) -> float:
    """Give the variance between classes over that within; infinity when every class is one point, 0 for one class."""
    between, within = variance_between(sums), variance_within(sums)
    if between <= 0.0:
        return 0.0
    return between / within if within > 0.0 else math.inf


def class_distances(sums: FeatureSums) -> NDArray[np.float64]:
    """Give the distances [classes, classes] between the mean directions of classes, in the order of `sums.classes`."""
    means = sums.class_means()
    distances: NDArray[np.float64] = np.linalg.norm(means[:, None] - means[None], axis=2)
    return distances


def h_score(sums: FeatureSums) -> float:
    """Give tr(cov(f)^-1 cov(E[f | y])): from 0 to the number of classes less one, the greater the more separable.

    Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", 2019. The covariance
    is inverted where it is not nothing; with fewer images than dimensions the score is too good, which a score of
    other images shows. Raises DataError without images.
    """
    _require_images(sums)
    variances, axes = eigh(sums.covariance(), check_finite=False)
    kept = variances > _LEAST_VARIANCE * max(float(variances[-1]), 0.0)
    if not kept.any():
        return 0.0
    axes = axes[:, kept]
    between = (axes * (sums.between_classes() @ axes)).sum(axis=0)
    return float((between / variances[kept]).sum())


def log_evidence(sums: FeatureSums) -> float:
    """Give LogME: the mean over classes and images of the log evidence of a Bayesian linear model of each class.

    You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", 2021, with the fixed point
    of its follow-up ("Ranking and Tuning Pre-trained Models", 2022). All it needs are sums: F^T F, and F^T y and
    y^T y of each class's indicator y. Raises DataError without images.
    """
    _require_images(sums)
    squares, axes = eigh(sums.outer, check_finite=False)
    squares = squares.clip(0.0)
    evidences = [
        _class_evidence(squares, axes.T @ sums.sums[name], float(sums.counts[name]), sums.num_images)
        for name in sums.classes
    ]
    return float(np.mean(evidences))


def _class_evidence(
    squares: NDArray[np.float64], projected: NDArray[np.float64], target: float, num_images: int
) -> float:
    """Give the evidence of one class an image: squares are the eigenvalues of F^T F, `projected` F^T y along them."""

    def fitted() -> tuple[float, float]:
        """Give the squared length of the likeliest weights, and the squared error that they leave."""
        weights = noise * projected / (prior + noise * squares)
        residual = target - 2 * float(weights @ projected) + float((weights**2 * squares).sum())
        return float((weights**2).sum()), max(1e-12, residual)

    prior, noise = 1.0, 1.0
    for _ in range(_MOST_STEPS):
        norm, residual = fitted()
        effective = float((noise * squares / (prior + noise * squares)).sum())
        before = prior / noise
        prior, noise = effective / max(norm, 1e-12), (num_images - effective) / residual
        if noise <= 0:
            # As many free directions as images: the model is exact, and its evidence without bound.
            noise = 1.0 / 1e-12
        if abs(prior / noise - before) <= _STEP_TOLERANCE * before:
            break
    norm, residual = fitted()
    evidence = (
        len(squares) / 2 * math.log(prior)
        + num_images / 2 * math.log(noise)
        - noise / 2 * residual
        - prior / 2 * norm
        - float(np.log(prior + noise * squares).sum()) / 2
        - num_images / 2 * math.log(2 * math.pi)
    )
    return evidence / num_images


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
    crossed = eigh(root @ second @ root, eigvals_only=True, check_finite=False).clip(0.0)
    apart = float(((one.mean() - other.mean()) ** 2).sum())
    return max(0.0, apart + float(np.trace(first) + np.trace(second)) - 2 * float(np.sqrt(crossed).sum()))


def _square_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, axes = eigh(matrix, check_finite=False)
    root: NDArray[np.float64] = (axes * np.sqrt(values.clip(0.0))) @ axes.T
    return root


def _require_images(sums: FeatureSums) -> None:
    if sums.num_images == 0:
        raise DataError("separability needs at least one image")
