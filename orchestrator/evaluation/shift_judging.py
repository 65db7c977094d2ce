"""What correcting for other class frequencies does to test images, whose labels tell what they truly are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from orchestrator.evaluation.intervals import bootstrap_interval, paired_gain
from orchestrator.evaluation.label_shift import ShiftEstimate, Source, Target, estimate_shift
from orchestrator.evaluation.metrics import ClassCounts, Measures, Probabilities, confusion_matrix, losses
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import ClassFrequency, LabelShift, ShiftMethod, ShiftScores, SubsetShift


def judge_shift(
    predictions: Predictions,
    classes: list[str],
    validation: Predictions,
    method: ShiftMethod,
    *,
    bootstrap_samples: int,
    seed: int,
) -> LabelShift:
    """Estimate class frequencies of all test images and of each subset's, one or more, and score what follows.

    Labels of test images are used for the scores and to stand beside the estimates, for nothing else. Every estimate is
    from the validation images of the whole group, as one of images that come later is. Bootstraps draw kin together.
    """
    source = Source.of(validation)

    def judged(images: Predictions, subset: str | None) -> SubsetShift:
        found = estimate_shift(source, Target.of(images), method, bootstrap_samples=bootstrap_samples, seed=seed)
        return _compare(images, subset, classes, source, found, bootstrap_samples, seed)

    return LabelShift(
        method=method,
        num_validation=len(validation),
        whole=judged(predictions, None),
        subsets=[judged(predictions.for_subset(name), name) for name in sorted(set(predictions.subsets))],
    )


def describe_frequencies(
    classes: list[str], source: Source, found: ShiftEstimate, true: Measures | None = None
) -> list[ClassFrequency]:
    """Name the estimated frequencies [K], beside the true ones [K] where they are known."""
    return [
        ClassFrequency(
            label=label,
            source=float(source.calibration.prior[index]),
            estimated=float(found.frequencies[index]),
            interval=(float(found.intervals[index, 0]), float(found.intervals[index, 1])),
            true=None if true is None else float(true[index]),
        )
        for index, label in enumerate(classes)
    ]


def _compare(
    images: Predictions,
    subset: str | None,
    classes: list[str],
    source: Source,
    found: ShiftEstimate,
    bootstrap_samples: int,
    seed: int,
) -> SubsetShift:
    calibration = source.calibration
    corrected = replace(images, probabilities=calibration.apply(images.probabilities, found.frequencies))
    gain, gain_interval = paired_gain(corrected.correct, images.correct, bootstrap_samples, seed, images.units)
    true = np.bincount(images.truth, minlength=len(classes)) / len(images)
    return SubsetShift(
        subset=subset,
        num_images=len(images),
        frequencies=describe_frequencies(classes, source, found, true),
        is_converged=found.is_converged,
        before=_score(images, images.probabilities, bootstrap_samples, seed),
        calibrated=_score(images, calibration.apply(images.probabilities), bootstrap_samples, seed),
        corrected=_score(images, corrected.probabilities, bootstrap_samples, seed),
        accuracy_gain=gain,
        accuracy_gain_interval=gain_interval,
    )


def _score(images: Predictions, probabilities: Probabilities, bootstrap_samples: int, seed: int) -> ShiftScores:
    scored = replace(images, probabilities=probabilities)
    counts = ClassCounts.of(confusion_matrix(images.truth, scored.predicted, probabilities.shape[1]))
    return ShiftScores(
        accuracy=float(counts.accuracy()),
        accuracy_interval=bootstrap_interval(scored.correct, bootstrap_samples, seed, images.units),
        balanced_accuracy=float(counts.balanced_accuracy()),
        cross_entropy=float(losses(probabilities, images.truth).mean()),
    )
