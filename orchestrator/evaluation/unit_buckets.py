"""Sums over buckets of what a bootstrap draws as one, for more images than can be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.calibration import calibration_error
from orchestrator.evaluation.intervals import Estimates, Measure, Sums, means, resample
from orchestrator.evaluation.metrics import ClassCounts, losses
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.tallies import CONFIDENCE_BINS, confidence_bins

NUM_BUCKETS = 4096


class UnitBuckets:
    """Add up images over K classes in 4,096 buckets, by a stable hash of the name that they share with their kin.

    Kin are in one bucket, so that a bootstrap can draw buckets instead of kin: the random groups of survey sampling
    (Wolter, "Introduction to Variance Estimation", 1985, chapter 2). Groups at random have, in expectation, the
    variance of what is in them; as there are 4,096, a standard error is off by about 1.1%. The memory is 98 kB a class,
    whatever the number of images.
    """

    def __init__(self, num_classes: int) -> None:
        # Of each class: images of it, images taken for it, images of it that were found.
        self._classes = np.zeros((NUM_BUCKETS, 3, num_classes))
        self._gaps = np.zeros((NUM_BUCKETS, CONFIDENCE_BINS + 1))
        self._losses = np.zeros(NUM_BUCKETS)

    def add(self, part: Predictions) -> None:
        """Add images."""
        buckets, predicted, is_right = buckets_of(part), part.predicted, part.correct
        for place, classes, counted in ((0, part.truth, 1), (1, predicted, 1), (2, part.truth, is_right)):
            np.add.at(self._classes[:, place], (buckets, classes), counted)
        confidence = part.probabilities[np.arange(len(part)), predicted].astype(np.float64)
        np.add.at(self._gaps, (buckets, confidence_bins(confidence)), is_right - confidence)
        np.add.at(self._gaps[:, -1], buckets, 1)
        np.add.at(self._losses, buckets, losses(part.probabilities, part.indices))

    def measures(self, num_classes: int, samples: int, seed: int) -> Estimates:
        """Give the measures of classes [samples, 4 + K] of resamples: see `ClassCounts.all_measures`."""

        def measure(sums: Sums) -> Estimates:
            actual, predicted, correct = np.moveaxis(sums.reshape(-1, 3, num_classes), 1, 0)
            return ClassCounts(actual=actual, predicted=predicted, correct=correct).all_measures()

        return self._resampled(self._classes.reshape(NUM_BUCKETS, -1), samples, seed, measure)

    def calibration_errors(self, samples: int, seed: int) -> Estimates:
        """Give the expected calibration error [samples] of resamples."""
        return self._resampled(
            self._gaps, samples, seed, lambda sums: calibration_error(sums[:, :-1], np.rint(sums[:, -1]))
        )

    def mean_losses(self, samples: int, seed: int) -> Estimates:
        """Give the mean cross-entropy [samples] of resamples."""
        sums = np.stack([self._losses, self._gaps[:, -1]], axis=1)
        return self._resampled(sums, samples, seed, means)

    def _resampled(self, sums: NDArray[np.float64], samples: int, seed: int, measure: Measure) -> Estimates:
        held = sums[self._is_held]
        return resample(held, np.ones(len(held), dtype=np.int64), samples, seed, measure)

    @property
    def _is_held(self) -> NDArray[np.bool_]:
        held: NDArray[np.bool_] = self._gaps[:, -1] > 0
        return held


def unit_keys(kin: Sequence[str]) -> NDArray[np.uint64]:
    """Give a stable hash of each name [n] that images share with their kin."""
    return _hashes([f"kin {name}" for name in kin])


def buckets_of_keys(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Give the bucket of each hash [n], and of a bucket itself."""
    return keys % np.uint64(NUM_BUCKETS)


def buckets_of(part: Predictions) -> NDArray[np.int64]:
    """Give the bucket [n] of each image, 0 to 4,095; one without kin goes by its own identity."""
    # A name of kin may be the identity of another image.
    names = [f"kin {kin}" if kin else f"id {own}" for kin, own in zip(part.together, part.ids, strict=True)]
    known, places = np.unique(np.asarray(names, dtype=object), return_inverse=True)
    buckets: NDArray[np.int64] = buckets_of_keys(_hashes(known))[places].astype(np.int64)
    return buckets


def _hashes(names: Iterable[str]) -> NDArray[np.uint64]:
    digests = (blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.fromiter((int.from_bytes(digest, "big") for digest in digests), dtype=np.uint64)
