"""What correcting for other class frequencies does to test images, whose labels tell what they truly are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from orchestrator.evaluation.intervals import bootstrap_interval, paired_gain
from orchestrator.evaluation.label_shift import ShiftEstimate, Source, Target, estimate_shift
from orchestrator.evaluation.metrics import ClassCounts, Measures, Probabilities, confusion_matrix, losses
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import ClassFrequency, LabelShift, ShiftMethod, ShiftScores, SubsetShift

OWN_IMAGES_PER_CLASS = 20
"""With as many validation images for each class, on average, a subset's estimates stand on its own."""


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

    Labels of test images are used for the scores and to stand beside the estimates, for nothing else. The estimate of a
    subset is from its own validation images where it has 20 for each class on average, else from the whole group's:
    images of a class look otherwise in another subset, and an estimate takes that for a shift. Bootstraps draw kin
    together.
    """
    source_of_all = Source.of(validation)

    def judged(images: Predictions, subset: str | None) -> SubsetShift:
        own = validation if subset is None else validation.for_subset(subset)
        is_own = subset is not None and len(own) >= OWN_IMAGES_PER_CLASS * len(classes)
        source = Source.of(own) if is_own else source_of_all
        found = estimate_shift(source, Target.of(images), method, bootstrap_samples=bootstrap_samples, seed=seed)
        return _compare(images, subset, classes, source, found, bootstrap_samples, seed)

    return LabelShift(
        method=method,
        num_validation=source_of_all.num_images,
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
        num_validation=source.num_images,
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
    counts = ClassCounts.of(confusion_matrix(images.indices, scored.predicted, probabilities.shape[1]))
    return ShiftScores(
        accuracy=float(counts.accuracy()),
        accuracy_interval=bootstrap_interval(scored.correct, bootstrap_samples, seed, images.units),
        balanced_accuracy=float(counts.balanced_accuracy()),
        cross_entropy=float(losses(probabilities, images.indices).mean()),
    )
