"""The tally of predictions from which scores follow: it merges, and takes no more memory for more images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import DataError
from orchestrator.evaluation.metrics import (
    ClassIndices,
    Measures,
    Probabilities,
    confusion_matrix,
    losses,
    predict_classes,
)

CONFIDENCE_BINS = 15
# A float32 next to 1 has log-odds of 17; what is next to 0 reaches far further down.
LOWEST_LOG_ODDS, HIGHEST_LOG_ODDS = -48.0, 16.0
SCORE_BINS = 2048
_CHUNK_CELLS = 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """Hold what counts of the predictions on any number of images over K classes.

    Tallies of parts add up to that of the whole however it was cut: counts exactly, sums to rounding. The memory is
    33 kB a class and K x K counts, whatever the number of images.

    - `confusion` [K, K] counts images by true and predicted class; `loss` is the sum of cross-entropies in nats.
    - `positives` and `negatives` [K, 2048] count, in bins, the probability that each class was given for its own and
      for other images. Bins are of log-odds, 1/32 wide from -48 to 16, the outer ones unbounded.
    - `confidence_counts` and `confidence_sums` [15, 2] count images and sum up the probability of the predicted class,
      in equal bins of it, apart for wrong (0) and right (1) predictions.
    - `loss_counts` and `loss_sums` [2048] count images and sum up their cross-entropies, in bins of the log-odds of the
      true class's probability.
    """

    confusion: NDArray[np.int64]
    loss: float
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    confidence_counts: NDArray[np.int64]
    confidence_sums: NDArray[np.float64]
    loss_counts: NDArray[np.int64]
    loss_sums: NDArray[np.float64]

    @classmethod
    def of(cls, probabilities: Probabilities, truth: ClassIndices) -> Self:
        """Tally probabilities [n, K] against true class indices [n].

        Raises DataError when the shapes do not fit, a probability is not finite or a class index is outside [0, K).
        """
        _check(probabilities, truth)
        parts = (cls._of_chunk(probabilities[rows], truth[rows]) for rows in chunks(*probabilities.shape))
        return reduce(add, parts)

    @classmethod
    def _of_chunk(cls, probabilities: Probabilities, truth: ClassIndices) -> Self:
        num_images, num_classes = probabilities.shape
        predicted = predict_classes(probabilities)
        confidence = probabilities[np.arange(num_images), predicted].astype(np.float64)
        cells = 2 * confidence_bins(confidence) + (predicted == truth)
        sums: Measures = np.bincount(cells, weights=confidence, minlength=2 * CONFIDENCE_BINS).astype(np.float64)
        bins, of_images = score_bins(probabilities), losses(probabilities, truth)
        places, true_bins = np.arange(num_classes) * SCORE_BINS + bins, bins[np.arange(num_images), truth]
        every = np.bincount(places.ravel(), minlength=num_classes * SCORE_BINS)
        own = np.bincount(places[np.arange(num_images), truth], minlength=num_classes * SCORE_BINS)
        return cls(
            confusion=confusion_matrix(truth, predicted, num_classes),
            loss=float(of_images.sum()),
            positives=own.reshape(num_classes, SCORE_BINS),
            negatives=(every - own).reshape(num_classes, SCORE_BINS),
            confidence_counts=np.bincount(cells, minlength=2 * CONFIDENCE_BINS).reshape(-1, 2),
            confidence_sums=sums.reshape(-1, 2),
            loss_counts=np.bincount(true_bins, minlength=SCORE_BINS),
            loss_sums=np.bincount(true_bins, weights=of_images, minlength=SCORE_BINS).astype(np.float64),
        )

    def __add__(self, other: Self) -> Self:
        """Add the images of both; neither changes. Raises DataError when they are over other numbers of classes."""
        if self.num_classes != other.num_classes:
            raise DataError(
                f"tallies of {self.num_classes} classes add up with their like alone", value=other.num_classes
            )
        return type(self)(**{part.name: getattr(self, part.name) + getattr(other, part.name) for part in fields(self)})

    @property
    def num_images(self) -> int:
        """Count the images."""
        return int(self.confusion.sum())

    @property
    def num_classes(self) -> int:
        """Count the classes K."""
        return len(self.confusion)

    def class_aucs(self) -> Measures:
        """Give the one-vs-rest area under the ROC curve of each class [K], off by at most `auc_errors`.

        A pair of an image of the class and one of another in the same bin counts half, as a tie. Not a number for a
        class that has not images both of itself and of others.
        """
        return binned_aucs(self.positives, self.negatives)

    def auc_errors(self) -> Measures:
        """Bound how far each of `class_aucs` [K] is from the area that ranks give: half the share of pairs in one bin.

        All other pairs are in the order of their probabilities.
        """
        return binned_auc_errors(self.positives, self.negatives)


def binned_aucs(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> Measures:
    """Give the area under the ROC curve [K] from counts of positive and negative images in ascending bins [K, B].

    A pair in the same bin counts half, as a tie. Not a number without both.
    """
    own, others = _shares(positives, negatives)
    below: Measures = np.cumsum(others, axis=1) - others
    areas: Measures = (own * (below + others / 2)).sum(axis=1)
    return areas


def binned_auc_errors(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> Measures:
    """Bound how far each of `binned_aucs` [K] is from the area that ranks give: half the share of pairs in one bin."""
    own, others = _shares(positives, negatives)
    errors: Measures = (own * others).sum(axis=1) / 2
    return errors


def _shares(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> tuple[Measures, Measures]:
    """Give the share of positive and of negative images in each bin [K, B], not numbers without both."""
    totals = [counts.sum(axis=1, keepdims=True) for counts in (positives, negatives)]
    scale = np.where((totals[0] > 0) & (totals[1] > 0), 1.0, np.nan)
    own, others = (np.maximum(total, 1) for total in totals)
    return scale * positives / own, scale * negatives / others


def chunks(num_images: int, num_classes: int) -> Iterator[slice]:
    """Cut images into slices that keep what is computed of their probabilities small; there is always one."""
    size = max(1, _CHUNK_CELLS // num_classes)
    for start in range(0, max(1, num_images), size):
        yield slice(start, start + size)


def confidence_bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the bin, 0 to 14, of each confidence [n]: open below and closed above, as Guo et al. (2017) have them."""
    bins: NDArray[np.int64] = np.ceil(confidence * CONFIDENCE_BINS).astype(np.int64).clip(1, CONFIDENCE_BINS) - 1
    return bins


def score_bins(probabilities: Probabilities, num_bins: int = SCORE_BINS) -> NDArray[np.int64]:
    """Give the bin of each probability [...]: equal bins of log-odds from -48 to 16, the outer ones unbounded."""
    exact = probabilities.astype(np.float64).clip(0.0, 1.0)
    with np.errstate(divide="ignore"):
        log_odds = np.log(exact) - np.log1p(-exact)
    width = (HIGHEST_LOG_ODDS - LOWEST_LOG_ODDS) / num_bins
    places = (log_odds.clip(LOWEST_LOG_ODDS, HIGHEST_LOG_ODDS) - LOWEST_LOG_ODDS) / width
    bins: NDArray[np.int64] = places.astype(np.int64).clip(0, num_bins - 1)
    return bins


def _check(probabilities: Probabilities, truth: ClassIndices) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] == 0 or truth.shape != probabilities.shape[:1]:
        raise DataError(
            "probabilities must have a row for each image and a column for each class",
            value=f"probabilities of shape {probabilities.shape}, truth of shape {truth.shape}",
        )
    if not np.isfinite(probabilities).all():
        raise DataError("probabilities must be finite", remedy="Check the model's weights for NaN.")
    if len(truth) and not 0 <= truth.min() <= truth.max() < probabilities.shape[1]:
        raise DataError(
            f"class indices must be in [0, {probabilities.shape[1]})", value=f"{truth.min()} to {truth.max()}"
        )
