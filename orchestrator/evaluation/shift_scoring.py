"""How right predictions are as they came, calibrated, and corrected for class frequencies, on any number of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.class_calibration import ClassCalibration
from orchestrator.evaluation.holding import held
from orchestrator.evaluation.intervals import bootstrap_interval, counted_interval, mean_interval, paired_gain
from orchestrator.evaluation.metrics import (
    ClassCounts,
    Measures,
    Probabilities,
    confusion_matrix,
    losses,
    predict_classes,
)
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.unit_buckets import NUM_BUCKETS, buckets_of
from orchestrator.records import ShiftScores

_BEFORE, _CALIBRATED, _CORRECTED = range(3)
_FORMS = np.eye(3)

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShiftComparison:
    """Hold the scores of the three forms of predictions, and what the last gains on the first, image by image.

    `frequencies` [K] are those of the images' true classes.
    """

    num_images: int
    frequencies: Measures
    before: ShiftScores
    calibrated: ShiftScores
    corrected: ShiftScores
    gain: float
    gain_interval: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Correction:
    """Correct probabilities that are calibrated so for images in which classes have these frequencies [K]."""

    calibration: ClassCalibration
    frequencies: Measures

    def forms(self, probabilities: Probabilities) -> Iterator[Probabilities]:
        """Give probabilities [n, K] as they are, calibrated, and corrected."""
        yield probabilities
        yield self.calibration.apply(probabilities)
        yield self.calibration.apply(probabilities, self.frequencies)


def compare_forms(
    predictions: PredictionParts, subset: str | None, correction: Correction, *, bootstrap_samples: int, seed: int
) -> ShiftComparison:
    """Score the predictions, or those of a subset, before and after a correction; there must be images.

    To 100,000 images they are held in memory, and a bootstrap draws kin together. Beyond, they are counted part by
    part; where images have kin, intervals draw 4,096 buckets of it (see `UnitBuckets`), and those of single images are
    the same.
    """
    images = held(predictions, subset)
    if images is not None:
        return _compare_held(images, correction, bootstrap_samples, seed)
    sums = _Sums(predictions.num_classes, has_kin=predictions.has_kin(subset))
    for part in predictions.parts(subset):
        sums.add(part, correction)
    return sums.compared(bootstrap_samples, seed)


def _compare_held(images: Predictions, correction: Correction, samples: int, seed: int) -> ShiftComparison:
    forms = [replace(images, probabilities=form) for form in correction.forms(images.probabilities)]
    scores = [_score_held(form, samples, seed) for form in forms]
    gain, gain_interval = paired_gain(forms[_CORRECTED].correct, images.correct, samples, seed, images.units)
    return ShiftComparison(
        num_images=len(images),
        frequencies=np.bincount(images.indices, minlength=images.num_classes) / len(images),
        before=scores[_BEFORE],
        calibrated=scores[_CALIBRATED],
        corrected=scores[_CORRECTED],
        gain=gain,
        gain_interval=gain_interval,
    )


def _score_held(images: Predictions, samples: int, seed: int) -> ShiftScores:
    counts = ClassCounts.of(confusion_matrix(images.indices, images.predicted, images.num_classes))
    return ShiftScores(
        accuracy=float(counts.accuracy()),
        accuracy_interval=bootstrap_interval(images.correct, samples, seed, images.units),
        balanced_accuracy=float(counts.balanced_accuracy()),
        cross_entropy=float(losses(images.probabilities, images.indices).mean()),
    )


class _Sums:
    """Add up what the scores of any number of images over K classes follow from."""

    def __init__(self, num_classes: int, *, has_kin: bool) -> None:
        self._confusions = np.zeros((len(_FORMS), num_classes, num_classes), dtype=np.int64)
        self._losses = np.zeros(len(_FORMS))
        # Images that the correction lost, left as they were, and won.
        self._outcomes = np.zeros(3, dtype=np.int64)
        # Of each bucket: images that each form has right, and all.
        self._kin = np.zeros((NUM_BUCKETS, len(_FORMS) + 1)) if has_kin else None

    def add(self, part: Predictions, correction: Correction) -> None:
        """Add images."""
        truth, num_classes = part.indices, part.num_classes
        is_right = np.ones((len(part), len(_FORMS) + 1), dtype=np.int64)
        for number, probabilities in enumerate(correction.forms(part.probabilities)):
            predicted = predict_classes(probabilities)
            self._confusions[number] += confusion_matrix(truth, predicted, num_classes)
            self._losses[number] += losses(probabilities, truth).sum()
            is_right[:, number] = predicted == truth
        self._outcomes += np.bincount(1 + is_right[:, _CORRECTED] - is_right[:, _BEFORE], minlength=3)
        if self._kin is not None:
            np.add.at(self._kin, buckets_of(part), is_right)

    def compared(self, samples: int, seed: int) -> ShiftComparison:
        """Score the three forms."""
        lost, _, won = self._outcomes.tolist()
        gained = _FORMS[_CORRECTED] - _FORMS[_BEFORE]
        return ShiftComparison(
            num_images=self._num_images,
            frequencies=self._confusions[_BEFORE].sum(axis=1) / self._num_images,
            before=self._score(_BEFORE, samples, seed),
            calibrated=self._score(_CALIBRATED, samples, seed),
            corrected=self._score(_CORRECTED, samples, seed),
            gain=(won - lost) / self._num_images,
            gain_interval=self._interval(gained, np.array([-1.0, 0.0, 1.0]), self._outcomes, samples, seed),
        )

    @property
    def _num_images(self) -> int:
        return int(self._outcomes.sum())

    def _score(self, form: int, samples: int, seed: int) -> ShiftScores:
        counts = ClassCounts.of(self._confusions[form])
        num_right = int(counts.correct.sum())
        answers = np.array([self._num_images - num_right, num_right])
        return ShiftScores(
            accuracy=float(counts.accuracy()),
            accuracy_interval=self._interval(_FORMS[form], np.array([0.0, 1.0]), answers, samples, seed),
            balanced_accuracy=float(counts.balanced_accuracy()),
            cross_entropy=float(self._losses[form]) / self._num_images,
        )

    def _interval(
        self, weights: Measures, values: Measures, counts: NDArray[np.int64], samples: int, seed: int
    ) -> Interval:
        """Bound the mean over images of what the forms have right by `weights` [3]; `counts` images have each value."""
        if self._kin is None:
            return counted_interval(values, counts, samples, seed)
        rows = np.stack([self._kin[:, :-1] @ weights, self._kin[:, -1]], axis=1)[self._kin[:, -1] > 0]
        return mean_interval(*np.unique(rows, axis=0, return_counts=True), samples, seed)
