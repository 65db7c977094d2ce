"""The Vendi score of feature directions, and its value at equal numbers of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from orchestrator.diversity.estimators import NORMAL_95
from orchestrator.errors import DataError

REPEATS = 32
BOOTSTRAP_REPEATS = 64


def unit_directions(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale features [n, d] to unit length, in d + 1 coordinates: float64 [n, d + 1].

    A zero vector has no direction of its own: all of them get the last coordinate, 0 for every other vector. So
    they count as equal to each other and as unlike the rest.
    """
    exact = np.asarray(features, dtype=np.float64)
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", exact, exact)
    directions = np.empty((exact.shape[0], exact.shape[1] + 1))
    # Squares of tiny or huge entries cannot be represented: their rows are divided by the largest entry first.
    is_extreme = ~((squares > 1e-200) & (squares < 1e200))
    np.divide(exact, np.sqrt(np.where(is_extreme, 1.0, squares))[:, None], out=directions[:, :-1])
    directions[:, -1] = 0.0
    if is_extreme.any():
        directions[is_extreme] = _scaled_directions(exact[is_extreme])
    return directions


def _scaled_directions(features: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.abs(features).max(axis=1, initial=0.0, keepdims=True)
    is_zero = largest == 0.0
    scaled = features / np.where(is_zero, 1.0, largest)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.hstack([scaled / np.where(is_zero, 1.0, lengths), is_zero.astype(np.float64)])


def on_own_axes(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate directions [n, d] so that they need no more than n coordinates: lengths and angles stay."""
    num_images, dimensions = directions.shape
    if num_images >= dimensions:
        return directions
    squares, axes = np.linalg.eigh(directions @ directions.T)
    rotated: NDArray[np.float64] = axes * np.sqrt(squares.clip(0.0))
    return rotated


def similarity_matrix(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the smaller of (1/n) F F^T [n, n] and (1/n) F^T F [d, d] of unit vectors F [n, d].

    Both have the same eigenvalues other than 0. Raises DataError without vectors.
    """
    num_images, dimensions = directions.shape
    if num_images == 0:
        raise DataError("a Vendi score needs at least one image")
    product = directions @ directions.T if num_images <= dimensions else directions.T @ directions
    matrix: NDArray[np.float64] = product / num_images
    return matrix


def vendi_score(matrix: NDArray[np.float64]) -> float:
    """Give exp(-sum l ln l), l the eigenvalues of a similarity matrix of trace 1: between 1 and its rank.

    The effective number of images that have nothing in common (Friedman and Dieng, "The Vendi Score", 2022).
    """
    return vendi_scores(matrix, [1.0])[0]


def vendi_scores(matrix: NDArray[np.float64], orders: Sequence[float]) -> list[float]:
    """Give the Vendi score of each order q, 0 < q <= infinity: the higher, the less rare images count.

    (sum l^q)^(1 / (1 - q)), l the eigenvalues of a similarity matrix of trace 1; exp(-sum l ln l) for q = 1 and
    1 / max l for infinity (Pasarkar and Dieng, "Cousins of the Vendi Score", 2023).
    """
    eigenvalues = np.linalg.eigvalsh(matrix).clip(0.0)
    shares = eigenvalues / eigenvalues.sum()
    return [max(1.0, _hill_number(shares, order)) for order in orders]


def _hill_number(shares: NDArray[np.float64], order: float) -> float:
    if order == 1.0:
        return math.exp(float(entr(shares).sum()))
    if math.isinf(order):
        return 1.0 / float(shares.max())
    return float((shares**order).sum() ** (1.0 / (1.0 - order)))


def rarefied_scores(
    directions: NDArray[np.float64], num_images: int, orders: Sequence[float], *, seed: int, repeats: int = REPEATS
) -> list[float]:
    """Estimate the expected Vendi scores of a random sample of `num_images` of the directions [n, d], by order.

    The means over `repeats` samples without replacement, the i-th drawn from (seed, i); the scores of all where
    n is at most `num_images`. Raises DataError without directions.
    """
    if len(directions) <= num_images:
        return vendi_scores(similarity_matrix(directions), orders)
    scores, similarities, weights = [], _similarities(directions), np.ones(num_images)
    for repeat in range(repeats):
        generator = np.random.default_rng([seed, repeat])
        chosen = generator.choice(len(directions), size=num_images, replace=False)
        scores.append(vendi_scores(similarities(chosen, weights), orders))
    return [math.fsum(column) / repeats for column in zip(*scores, strict=True)]


def rarefied_deviation(
    directions: NDArray[np.float64], num_images: int, *, seed: int, repeats: int = BOOTSTRAP_REPEATS
) -> float:
    """Give the bootstrap standard deviation of the logarithm of the rarefied score of the directions [n, d].

    Resamples of m = min(n, `num_images`) images with replacement spread as one sample of m images does; the rarefied
    score is a mean over all of them, whose variance is m / n of that (Hoeffding, "A class of statistics with
    asymptotically normal distribution", 1948). Repeated images lower all resamples alike: only their spread is used.
    """
    taken = min(len(directions), num_images)
    logarithms, similarities = [], _similarities(directions)
    for repeat in range(repeats):
        generator = np.random.default_rng([seed, repeat, taken])
        # Equal images have the eigenvalues of one that weighs as much: a third fewer rows, and less than half the time.
        chosen, weights = np.unique(generator.integers(0, len(directions), size=taken), return_counts=True)
        logarithms.append(math.log(vendi_score(similarities(chosen, weights.astype(np.float64)))))
    return float(np.std(logarithms, ddof=1)) * math.sqrt(taken / len(directions))


def rarefied_interval(score: float, deviation: float, *, most: int) -> tuple[float, float]:
    """Give the 95% interval of a rarefied score of at most `most` images: normal in its logarithm, from 1 to `most`."""
    reach = math.exp(NORMAL_95 * deviation)
    return max(1.0, score / reach), min(float(most), score * reach)


def _similarities(
    directions: NDArray[np.float64],
) -> Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]:
    """Give what makes the similarity matrix of some of the directions [n, d], by their places and weights.

    Where it has a row for each of them, their inner products are those of all, computed once.
    """
    num_images, dimensions = directions.shape
    products = directions @ directions.T if num_images <= dimensions else None

    def similarity_of(chosen: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        lengths = np.sqrt(weights / weights.sum())
        if products is None:
            return similarity_matrix(directions[chosen] * lengths[:, None]) * len(chosen)
        matrix: NDArray[np.float64] = products[np.ix_(chosen, chosen)] * np.outer(lengths, lengths)
        return matrix

    return similarity_of
