"""What correcting for other class frequencies does to test images, whose labels tell what they truly are."""

from __future__ import annotations

from orchestrator.evaluation.label_shift import ShiftEstimate, Source, Target, estimate_shift
from orchestrator.evaluation.metrics import Measures
from orchestrator.evaluation.parts import PredictionParts, count_images
from orchestrator.evaluation.shift_scoring import Correction, compare_forms
from orchestrator.records import ClassFrequency, LabelShift, ShiftMethod, SubsetShift

OWN_IMAGES_PER_CLASS = 20
"""With as many validation images for each class, on average, a subset's estimates stand on its own."""


def judge_shift(
    predictions: PredictionParts,
    classes: list[str],
    validation: PredictionParts,
    method: ShiftMethod,
    *,
    bootstrap_samples: int,
    seed: int,
) -> LabelShift:
    """Estimate class frequencies of all test images and of each subset's, one or more, and score what follows.

    Labels of test images are used for the scores and to stand beside the estimates, for nothing else. The estimate of a
    subset is from its own validation images where it has 20 for each class on average, else from the whole group's:
    images of a class look otherwise in another subset, and an estimate takes that for a shift. Bootstraps draw kin
    together. Both are read part by part, several times: what is held of them does not grow with their number.
    """
    source_of_all = Source.of(validation)

    def judged(subset: str | None) -> SubsetShift:
        num_own = 0 if subset is None else count_images(validation, subset)
        is_own = num_own >= OWN_IMAGES_PER_CLASS * len(classes)
        source = Source.of(validation, subset) if is_own else source_of_all
        target = Target.of(predictions, subset)
        found = estimate_shift(source, target, method, bootstrap_samples=bootstrap_samples, seed=seed)
        correction = Correction(calibration=source.calibration, frequencies=found.frequencies)
        compared = compare_forms(predictions, subset, correction, bootstrap_samples=bootstrap_samples, seed=seed)
        return SubsetShift(
            subset=subset,
            num_images=compared.num_images,
            num_validation=source.num_images,
            frequencies=describe_frequencies(classes, source, found, compared.frequencies),
            is_converged=found.is_converged,
            before=compared.before,
            calibrated=compared.calibrated,
            corrected=compared.corrected,
            accuracy_gain=compared.gain,
            accuracy_gain_interval=compared.gain_interval,
        )

    return LabelShift(
        method=method,
        num_validation=source_of_all.num_images,
        whole=judged(None),
        subsets=[judged(name) for name in predictions.subset_names],
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
