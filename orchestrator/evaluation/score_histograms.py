"""Counts of the scores that labels were given, in bins: what ranking any number of images by them comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, expit

from orchestrator.errors import DataError
from orchestrator.evaluation.metrics import HALF, Measures, Probabilities, Truth, divided
from orchestrator.evaluation.tallies import (
    HIGHEST_LOG_ODDS,
    LOWEST_LOG_ODDS,
    binned_auc_errors,
    binned_aucs,
    chunks,
    score_bins,
)

LABEL_BINS = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreHistograms:
    """Count, in bins, the probability that each of K labels was given for images with it and without it.

    `positives` and `negatives` [K, 4096] add up over parts of the images. Bins are of log-odds, 1/64 wide from -48 to
    16, the outer ones unbounded. The memory is 66 kB a label, whatever the number of images.
    """

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: Probabilities, truth: Truth) -> Self:
        """Count probabilities [n, K] of labels that images have or have not [n, K].

        Raises DataError when a probability is not finite.
        """
        if not np.isfinite(probabilities).all():
            raise DataError("probabilities must be finite", remedy="Check the model's weights for NaN.")
        num_labels = truth.shape[1]
        # By whether an image has the label.
        counts = np.zeros((2, num_labels * LABEL_BINS), dtype=np.int64)
        firsts = np.arange(num_labels) * LABEL_BINS
        for rows in chunks(*truth.shape):
            places = firsts + score_bins(probabilities[rows], LABEL_BINS)
            for has_label, found in enumerate((places[~truth[rows]], places[truth[rows]])):
                np.add.at(counts[has_label], found, 1)
        negatives, positives = counts.reshape(2, num_labels, LABEL_BINS)
        return cls(positives=positives, negatives=negatives)

    def __add__(self, other: Self) -> Self:
        """Add the images of both; neither changes."""
        return type(self)(positives=self.positives + other.positives, negatives=self.negatives + other.negatives)

    def aucs(self) -> Measures:
        """Give the area under the ROC curve of each label [K], off by at most `auc_errors`; see `binned_aucs`."""
        return binned_aucs(self.positives, self.negatives)

    def auc_errors(self) -> Measures:
        """Bound how far each of `aucs` [K] is from the area that ranks give."""
        return binned_auc_errors(self.positives, self.negatives)

    def average_precisions(self) -> Measures:
        """Give the average precision of each label [K], off by at most `average_precision_errors`.

        As if in every bin the images without the label lay evenly between those with it. Not a number for a label that
        no image has.
        """
        order = self._descending()
        odds = divided(order.own_negatives, order.own)
        evenly = order.precision_sums(1.0 + odds, order.before + order.negatives_before - odds / 2)
        return divided(evenly.sum(axis=1), order.total)

    def average_precision_errors(self) -> Measures:
        """Bound how far each of `average_precisions` [K] is from that of ranks.

        In each bin all images without the label may come first, or those with it, with equal scores.
        """
        order = self._descending()
        last = order.precision_sums(1.0, order.before + order.negatives_before + order.own_negatives)
        through = order.before + order.own
        first = np.where(order.own > 0, order.own * divided(through, through + order.negatives_before), 0.0)
        least, most = (divided(found.sum(axis=1), order.total) for found in (last, first))
        estimate = self.average_precisions()
        errors: Measures = np.maximum(estimate - least, most - estimate).clip(0.0, 1.0)
        return errors

    def thresholds(self) -> Measures:
        """Give for each label [K] the lower edge of a bin with the best F1, 0.5 where no image has the label.

        Of edges with equal F1 the one nearest to 0.5 is taken; the lowest is 0. Edges are 1/64 of log-odds apart.
        """
        found, said = (
            np.cumsum(counts[:, ::-1], axis=1)[:, ::-1] for counts in (self.positives, self.positives + self.negatives)
        )
        total = found[:, :1]
        f1 = np.where(total > 0, divided(2 * found, said + total), 0.0)
        edges = expit(np.linspace(LOWEST_LOG_ODDS, HIGHEST_LOG_ODDS, LABEL_BINS, endpoint=False))
        edges[0] = 0.0
        distances = np.where(f1 == f1.max(axis=1, keepdims=True), np.abs(edges - HALF), np.inf)
        return np.where(total[:, 0] > 0, edges[distances.argmin(axis=1)], HALF)

    def _descending(self) -> _Descending:
        own, own_negatives = (counts[:, ::-1].astype(np.float64) for counts in (self.positives, self.negatives))
        return _Descending(own=own, own_negatives=own_negatives)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Descending:
    """Hold how many images with a label, and without it, each bin has [K, B], from the highest scores down."""

    own: Measures
    own_negatives: Measures

    @property
    def before(self) -> Measures:
        """Count the images with the label in higher bins [K, B]."""
        before: Measures = np.cumsum(self.own, axis=1) - self.own
        return before

    @property
    def negatives_before(self) -> Measures:
        """Count the images without the label in higher bins [K, B]."""
        before: Measures = np.cumsum(self.own_negatives, axis=1) - self.own_negatives
        return before

    @property
    def total(self) -> Measures:
        """Count the images with each label [K]."""
        total: Measures = self.own.sum(axis=1)
        return total

    def precision_sums(self, step: Measures | float, start: Measures) -> Measures:
        """Sum up the precisions at the images with the label in each bin [K, B]: 0 where there are none.

        The i-th of P such images, after a others, comes as number `start` + i `step` of all. The sum of
        (a + i) / (start + i step) over i = 1..P has a closed form: that of 1 / (i + q) is psi(P + 1 + q) - psi(1 + q),
        psi being the digamma function.
        """
        begins = start / step
        logs = digamma(self.own + 1.0 + begins) - digamma(1.0 + begins)
        sums: Measures = np.where(self.own > 0, (self.own + (self.before - begins) * logs) / step, 0.0)
        return sums
