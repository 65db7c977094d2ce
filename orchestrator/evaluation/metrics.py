"""Metrics of predicted classes and of probabilities against true classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)
HALF = 0.5

Probabilities = NDArray[np.floating]
ClassIndices = NDArray[np.integer]
Truth = NDArray[np.bool_]
Counts = NDArray[np.number]
Measures = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassCounts:
    """Hold how many images of each class [..., K] there are, were predicted, and were both.

    Measures of these counts are [...] or [..., K]: one confusion matrix and thousands of resamples are measured alike.
    """

    actual: Counts
    predicted: Counts
    correct: Counts

    @classmethod
    def of(cls, matrix: NDArray[np.int64]) -> Self:
        """Take the counts from a confusion matrix [K, K] with true classes in its rows."""
        return cls(actual=matrix.sum(axis=1), predicted=matrix.sum(axis=0), correct=np.diag(matrix))

    def accuracy(self) -> Measures:
        """Give the share of images [...] whose class was predicted; there must be images."""
        return divided(self.correct.sum(axis=-1), self.actual.sum(axis=-1))

    def recall(self) -> Measures:
        """Give the share of each class's images [..., K] that were found; not a number for a class without images."""
        return divided(self.correct, self.actual)

    def precision(self) -> Measures:
        """Give the share of each class's predictions [..., K] that are right; not a number for one never predicted."""
        return divided(self.correct, self.predicted)

    def f1(self) -> Measures:
        """Give the harmonic mean of precision and recall [..., K]; not a number for a class without images."""
        return np.where(self.actual > 0, divided(2 * self.correct, self.actual + self.predicted), np.nan)

    def balanced_accuracy(self) -> Measures:
        """Average recall [...] over the classes that occur in truth: the macro recall."""
        return self._averaged(self.recall())

    def macro_precision(self) -> Measures:
        """Average precision [...] over the classes that occur in truth; one that is never predicted counts as 0."""
        return self._averaged(np.nan_to_num(self.precision(), nan=0.0))

    def macro_f1(self) -> Measures:
        """Average F1 [...] over the classes that occur in truth.

        A class that never occurs in truth is left out: its F1 would be 0 however good the predictions are.
        """
        return self._averaged(self.f1())

    def all_measures(self) -> Measures:
        """Give accuracy, balanced accuracy, macro precision, macro F1 and the F1 of each class [..., 4 + K]."""
        macro = [self.accuracy(), self.balanced_accuracy(), self.macro_precision(), self.macro_f1()]
        return np.concatenate([np.stack(macro, axis=-1), self.f1()], axis=-1)

    def _averaged(self, values: Measures) -> Measures:
        occurs = self.actual > 0
        return divided(np.where(occurs, values, 0.0).sum(axis=-1), occurs.sum(axis=-1))


def divided(dividend: Counts, divisor: Counts) -> Measures:
    """Divide counts [...]; not a number where the divisor [...] is not above 0."""
    quotient = np.full(np.shape(divisor), np.nan)
    np.divide(dividend, divisor, out=quotient, where=np.asarray(divisor) > 0)
    return quotient


def finite_means(values: Measures) -> Measures:
    """Average values [..., K] over those of the last axis that are finite [...]; not a number without any."""
    is_finite = np.isfinite(values)
    return divided(np.where(is_finite, values, 0.0).sum(axis=-1), is_finite.sum(axis=-1))


def predict_classes(probabilities: Probabilities) -> NDArray[np.int64]:
    """Give the index [n] of the most probable class for probabilities [n, K], the first of equals."""
    if not len(probabilities):
        return np.zeros(0, dtype=np.int64)
    best: NDArray[np.int64] = probabilities.argmax(axis=1).astype(np.int64)
    return best


def predict_labels(probabilities: Probabilities, thresholds: Measures | float = HALF) -> Truth:
    """Tell which labels each image is said to have [n, K]: those whose probability reaches their threshold."""
    said: Truth = probabilities >= thresholds
    return said


def confusion_matrix(truth: ClassIndices, predicted: ClassIndices, num_classes: int) -> NDArray[np.int64]:
    """Count images [K, K] by true class (rows) and predicted class (columns)."""
    cells = truth.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def losses(probabilities: Probabilities, truth: ClassIndices) -> Measures:
    """Give -ln p of the true class of each image [n], in nats.

    p is clipped at the smallest normal float32, 1.2e-38: a true class whose probability underflowed to 0 costs
    87.3 nats, not infinitely many.
    """
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    found: Measures = -np.log(of_truth.clip(SMALLEST_PROBABILITY, 1.0))
    return found


def binary_losses(probabilities: Probabilities, truth: Truth) -> Measures:
    """Give -ln of the probability that each answer was given [n, K], in nats; clipped as in `losses`."""
    given = np.where(truth, probabilities.astype(np.float64), 1.0 - probabilities.astype(np.float64))
    found: Measures = -np.log(given.clip(SMALLEST_PROBABILITY, 1.0))
    return found


def class_aucs(probabilities: Probabilities, truth: ClassIndices) -> Measures:
    """Give the one-vs-rest area under the ROC curve of each class [K].

    From ranks, ties counting half (Hanley and McNeil, 1982). Not a number for a class that has not images both of
    itself and of others.
    """
    num_classes = probabilities.shape[1]
    counts = np.bincount(truth, minlength=num_classes)
    areas = np.full(num_classes, np.nan)
    for index in np.flatnonzero((counts > 0) & (counts < len(truth))).tolist():
        areas[index] = auc(probabilities[:, index], truth == index)
    return areas


def auc(scores: Probabilities, positive: NDArray[np.bool_]) -> float:
    """Give the area under the ROC curve of scores [n] for images [n] of which some are positive and some are not."""
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)
