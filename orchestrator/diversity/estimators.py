"""Estimates of the entropy that each subset's source has, from the counts of a sample, and how far off they may be."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from orchestrator.config import EntropyEstimator
from orchestrator.diversity.subset_counts import CountRows

# The normal quantile of 0.975: an estimate and this many standard deviations to either side are a 95% interval.
NORMAL_95 = 1.959963984540054

Numbers = NDArray[np.float64]


def estimate_entropies(rows: CountRows, estimator: EntropyEstimator = "plug_in") -> Numbers:
    """Estimate the entropy in nats of what each subset's counts were drawn from: [s].

    `plug_in` is that of the counts themselves, too low by about (K - 1) / 2N.
    """
    return _ESTIMATORS[estimator](rows)


def entropy_deviations(rows: CountRows) -> Numbers:
    """Give the standard deviation in nats of the plug-in entropy of each subset, all orders up to 1 / N^2: [s].

    Var = (sum p ln^2 p - H^2) / N + (K - 1) / 2N^2, K the classes that occur (Harris, "The statistical estimation of
    entropy in the non-parametric case", 1975).
    """
    shares, totals = rows.shares, rows.totals
    logarithms = np.log(shares)
    spread = rows.sums(shares * logarithms**2) - rows.sums(shares * logarithms) ** 2
    deviations: Numbers = np.sqrt(np.maximum(0.0, spread) / totals + (rows.sizes - 1) / (2 * totals**2))
    return deviations


def entropy_intervals(
    rows: CountRows, estimator: EntropyEstimator = "plug_in", *, num_classes: int
) -> tuple[Numbers, Numbers]:
    """Give the lower and the upper ends [s] of 95% intervals in nats, normal around estimates.

    They lie within 0 and ln `num_classes`, and say where the entropy of the source lies for subsets drawn at random
    from it. The plug-in's interval is moved up by its bias, (K - 1) / 2N, as Miller and Madow correct it.
    """
    reach = NORMAL_95 * entropy_deviations(rows)
    most = math.log(max(1, num_classes))
    # An estimate beyond what can be stands for the most that can be: around itself it would have no interval left.
    centre = np.minimum(estimate_entropies(rows, "miller_madow" if estimator == "plug_in" else estimator), most)
    return np.maximum(0.0, centre - reach), np.minimum(most, centre + reach)


def imbalance_ratios(rows: CountRows) -> Numbers:
    """Give how many times as frequent each subset's most frequent category is as the least frequent that occurs."""
    if not len(rows.starts):
        return np.zeros(0)
    most, least = (reduce.reduceat(rows.counts, rows.starts) for reduce in (np.maximum, np.minimum))
    ratios: Numbers = most / least
    return ratios


def _plug_in(rows: CountRows) -> Numbers:
    # abs makes 0.0 of -0.0, which would read oddly in a record.
    return np.abs(rows.sums(entr(rows.shares)))


def _miller_madow(rows: CountRows) -> Numbers:
    """Add (K - 1) / 2N (Miller, "Note on the bias of information estimates", 1955)."""
    return _plug_in(rows) + (rows.sizes - 1) / (2 * rows.totals)


def _chao_shen(rows: CountRows) -> Numbers:
    """Weigh every class by how likely it was to be seen, and all by how much of the source was.

    Coverage C = 1 - f1 / N, f1 the classes seen once; H = -sum C p ln(C p) / (1 - (1 - C p)^N) (Chao and Shen,
    "Nonparametric estimation of Shannon's index of diversity when there are unseen species", 2003). Where all were seen
    once, one of them counts as seen twice, as their software does: C would be 0.
    """
    totals = rows.totals
    once = np.minimum(rows.sums(rows.counts == 1), totals - 1)
    covered = rows.spread(1 - once / totals) * rows.shares
    seen = -np.expm1(rows.spread(totals) * np.log1p(-np.minimum(covered, 1 - 1e-15)))
    estimates: Numbers = np.where(totals == 1, 0.0, np.maximum(0.0, rows.sums(entr(covered) / seen)))
    return estimates


_ESTIMATORS: dict[EntropyEstimator, Callable[[CountRows], Numbers]] = {
    "plug_in": _plug_in,
    "miller_madow": _miller_madow,
    "chao_shen": _chao_shen,
}
