"""Estimates of the entropy that a subset's source has, from the counts of a sample, and how far off they may be."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.config import EntropyEstimator
from orchestrator.diversity.entropy import require_counts, shannon_entropy

# The normal quantile of 0.975: an estimate and this many standard deviations to either side are a 95% interval.
NORMAL_95 = 1.959963984540054


def estimate_entropy(counts: ArrayLike, estimator: EntropyEstimator = "plug_in") -> float:
    """Estimate the entropy in nats of what counts [K] were drawn from; 0 when there is nothing to count.

    `plug_in` is that of the counts themselves, too low by about (K - 1) / 2N. Raises DataError for a negative count.
    """
    positive = _positive(counts)
    if positive.size == 0:
        return 0.0
    return _ESTIMATORS[estimator](positive)


def entropy_deviation(counts: ArrayLike) -> float:
    """Give the standard deviation in nats of the plug-in entropy of counts [K], all orders up to 1 / N^2.

    Var = (sum p ln^2 p - H^2) / N + (K - 1) / 2N^2, K the classes that occur (Harris, "The statistical estimation of
    entropy in the non-parametric case", 1975). 0 when there is nothing to count.
    """
    positive = _positive(counts)
    if positive.size == 0:
        return 0.0
    total = positive.sum()
    shares = positive / total
    logarithms = np.log(shares)
    spread = float((shares * logarithms**2).sum() - (shares * logarithms).sum() ** 2)
    return math.sqrt(max(0.0, spread) / total + (positive.size - 1) / (2 * total**2))


def entropy_interval(
    counts: ArrayLike, estimator: EntropyEstimator = "plug_in", *, num_classes: int
) -> tuple[float, float]:
    """Give the 95% interval of an estimate of entropy in nats, normal around it, within 0 and ln `num_classes`.

    It says where the entropy of the source lies for subsets drawn at random from it. The plug-in's interval is moved
    up by its bias, (K - 1) / 2N, as Miller and Madow correct it. Raises DataError for a negative count.
    """
    reach = NORMAL_95 * entropy_deviation(counts)
    centre = estimate_entropy(counts, "miller_madow" if estimator == "plug_in" else estimator)
    most = math.log(max(1, num_classes))
    return min(most, max(0.0, centre - reach)), min(most, max(0.0, centre + reach))


def imbalance_ratio(counts: ArrayLike) -> float:
    """Give how many times as frequent the most frequent class is as the least frequent that occurs; 1 without any."""
    positive = _positive(counts)
    return float(positive.max() / positive.min()) if positive.size else 1.0


def _positive(counts: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(counts, dtype=np.float64)
    require_counts(array)
    positive: NDArray[np.float64] = array[array > 0]
    return positive


def _miller_madow(counts: NDArray[np.float64]) -> float:
    """Add (K - 1) / 2N (Miller, "Note on the bias of information estimates", 1955)."""
    return shannon_entropy(counts) + (counts.size - 1) / (2 * float(counts.sum()))


def _chao_shen(counts: NDArray[np.float64]) -> float:
    """Weigh every class by how likely it was to be seen, and all by how much of the source was.

    Coverage C = 1 - f1 / N, f1 the classes seen once; H = -sum C p ln(C p) / (1 - (1 - C p)^N) (Chao and Shen,
    "Nonparametric estimation of Shannon's index of diversity when there are unseen species", 2003). Where all were seen
    once, one of them counts as seen twice, as their software does: C would be 0.
    """
    total = float(counts.sum())
    once = min(float((counts == 1).sum()), total - 1)
    covered = (1 - once / total) * counts / total
    if total == 1:
        return 0.0
    seen = -np.expm1(total * np.log1p(-np.minimum(covered, 1 - 1e-15)))
    return max(0.0, float(-(covered * np.log(covered) / seen).sum()))


_ESTIMATORS: dict[EntropyEstimator, Callable[[NDArray[np.float64]], float]] = {
    "plug_in": shannon_entropy,
    "miller_madow": _miller_madow,
    "chao_shen": _chao_shen,
}
