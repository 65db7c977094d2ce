"""The Vendi score of feature directions, and its value at equal numbers of images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh
from scipy.special import entr

from orchestrator.errors import DataError

REPEATS = 32


def unit_directions(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale features [n, d] to unit length, in d + 1 coordinates: float64 [n, d + 1].

    A zero vector has no direction of its own: all of them get the last coordinate, 0 for every other vector. So
    they count as equal to each other and as unlike the rest.
    """
    exact = features.astype(np.float64)
    largest = np.abs(exact).max(axis=1, initial=0.0, keepdims=True)
    is_zero = largest == 0.0
    # Dividing by the largest entry first keeps squares of tiny or huge entries representable.
    scaled = exact / np.where(is_zero, 1.0, largest)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.hstack([scaled / np.where(is_zero, 1.0, lengths), is_zero.astype(np.float64)])


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
    eigenvalues = eigvalsh(matrix, check_finite=False).clip(0.0)
    shares = eigenvalues / eigenvalues.sum()
    return max(1.0, math.exp(float(entr(shares).sum())))


def rarefied_vendi(directions: NDArray[np.float64], num_images: int, *, seed: int, repeats: int = REPEATS) -> float:
    """Estimate the expected Vendi score of a random sample of `num_images` of the directions [n, d].

    The mean over `repeats` samples without replacement, the i-th drawn from (seed, i); the score of all where
    n is at most `num_images`. Raises DataError without directions.
    """
    if len(directions) <= num_images:
        return vendi_score(similarity_matrix(directions))
    scores = []
    for repeat in range(repeats):
        generator = np.random.default_rng([seed, repeat])
        chosen = generator.choice(len(directions), size=num_images, replace=False)
        scores.append(vendi_score(similarity_matrix(directions[chosen])))
    return math.fsum(scores) / repeats
