"""Shannon entropy of counts, in nats, and what is derived from it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from orchestrator.errors import DataError


def shannon_entropy(counts: ArrayLike) -> float:
    """Give H = -sum p ln p in nats of counts [K], p = counts / sum, with 0 ln 0 = 0.

    0 when there is nothing to count. Raises DataError for a negative count.
    """
    return float(_row_entropies(np.asarray(counts)[np.newaxis])[0])


def normalized_entropy(entropy: float, num_classes: int) -> float:
    """Give H / ln K in [0, 1] of an entropy or an estimate of it, K = `num_classes` of the whole label space.

    0 when K is 1.
    """
    if num_classes <= 1:
        return 0.0
    # Even counts can exceed 1 by a rounding error, and an estimate by more.
    return min(1.0, entropy / math.log(num_classes))


def effective_number(entropy: float) -> float:
    """Give exp(H): how many equally frequent classes have this entropy (Hill number of order 1)."""
    return math.exp(entropy)


def histogram_entropy(histograms: ArrayLike) -> NDArray[np.float64]:
    """Give the entropy [n] in nats of each of n histograms [n, bins]; 0 for an empty one.

    Raises DataError for a negative count.
    """
    return _row_entropies(np.asarray(histograms))


def _row_entropies(counts: NDArray[np.number]) -> NDArray[np.float64]:
    if (counts < 0).any():
        raise DataError("counts must not be negative", value=counts.min())
    totals = counts.sum(axis=1, keepdims=True, dtype=np.float64)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    # abs makes 0.0 of -0.0, which would read oddly in a record.
    entropies: NDArray[np.float64] = np.abs(entr(shares).sum(axis=1))
    return entropies
