"""How right predictions are as they came, calibrated, and corrected for class frequencies, on any number of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from orchestrator.evaluation.class_calibration import ClassCalibration
from orchestrator.evaluation.holding import held
from orchestrator.evaluation.metrics import (
    ClassCounts,
    Measures,
    Probabilities,
    confusion_matrix,
    losses,
    predict_classes,
)
from orchestrator.evaluation.paired_answers import PairedAnswers
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import ShiftScores

_FORMS = ("before", "calibrated", "corrected")
_NO_ANSWERS = np.zeros(0, dtype=np.bool_)

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

    To 100,000 images they are held in memory, and the numbers are the same to the bit however they are cut. Beyond,
    they are counted part by part; where images have kin, intervals draw 4,096 buckets of it (see `PairedAnswers`), and
    those of single images are the same.
    """
    images = held(predictions, subset)
    sums = _Sums(predictions.num_classes)
    for part in predictions.parts(subset) if images is None else [images]:
        sums.add(part, correction)
    return sums.compared(bootstrap_samples, seed)


class _Sums:
    """Add up what the scores of any number of images over K classes follow from."""

    def __init__(self, num_classes: int) -> None:
        self._confusions = np.zeros((len(_FORMS), num_classes, num_classes), dtype=np.int64)
        self._losses = np.zeros(len(_FORMS))
        # The corrected predictions take the place of the model.
        self._answers = PairedAnswers.of(_NO_ANSWERS, dict.fromkeys(_FORMS, _NO_ANSWERS), [])

    def add(self, part: Predictions, correction: Correction) -> None:
        """Add images."""
        truth, correct = part.indices, {}
        for number, (form, probabilities) in enumerate(zip(_FORMS, correction.forms(part.probabilities), strict=True)):
            predicted = predict_classes(probabilities)
            self._confusions[number] += confusion_matrix(truth, predicted, part.num_classes)
            self._losses[number] += losses(probabilities, truth).sum()
            correct[form] = predicted == truth
        self._answers += PairedAnswers.of(correct["corrected"], correct, part.together)

    def compared(self, samples: int, seed: int) -> ShiftComparison:
        """Score the three forms."""
        before, calibrated, corrected = (self._score(form, samples, seed) for form in _FORMS)
        gain, gain_interval = self._answers.gain_over("before", samples, seed)
        return ShiftComparison(
            num_images=self._answers.num_images,
            frequencies=self._confusions[0].sum(axis=1) / self._answers.num_images,
            before=before,
            calibrated=calibrated,
            corrected=corrected,
            gain=gain,
            gain_interval=gain_interval,
        )

    def _score(self, form: str, samples: int, seed: int) -> ShiftScores:
        number = _FORMS.index(form)
        counts = ClassCounts.of(self._confusions[number])
        return ShiftScores(
            accuracy=float(counts.accuracy()),
            accuracy_interval=self._answers.accuracy_interval(form, samples, seed),
            balanced_accuracy=float(counts.balanced_accuracy()),
            cross_entropy=float(self._losses[number]) / self._answers.num_images,
        )
