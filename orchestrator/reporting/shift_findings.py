"""Says in words what estimating class frequencies without labels found, and what correcting for them did."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.records import LabelShift, SubsetShift
from orchestrator.reporting.findings import verdict
from orchestrator.reporting.wording import counted, number, percent, points, points_interval, shortened

SHIFT_METHOD_TITLES = {
    "confusion": "which classes were taken for each other on validation (Lipton, Wang and Smola, 2018)",
    "em": "expectation maximisation over calibrated probabilities (Saerens, Latinne and Decaestecker, 2002)",
}


def shift_finding(shift: LabelShift) -> str:
    """Say how far estimated frequencies are from the source's and the truth, and whether correcting helped."""
    whole = shift.whole
    effect = {
        "better": "Correcting for them raises accuracy",
        "worse": "Correcting for them lowers accuracy",
        "unclear": "Correcting for them makes no clear difference to accuracy",
        "unknown": "Accuracy could not be compared",
    }[verdict(whole.accuracy_gain_interval)]
    sentences = [
        f"Without their labels, by {SHIFT_METHOD_TITLES[shift.method]} from "
        f"{counted(shift.num_validation, 'validation image')}, the test images' class frequencies are estimated "
        f"to differ from validation's by {percent(whole.distance)} of the images; "
        + ("the true frequencies lie in their intervals." if whole.holds_truth else f"{_outside(whole)}."),
        f"{effect} ({points(whole.accuracy_gain)} points {points_interval(whole.accuracy_gain_interval)}); "
        f"cross-entropy goes from {number(whole.before.cross_entropy, 3)} to "
        f"{number(whole.calibrated.cross_entropy, 3)} by calibration alone and to "
        f"{number(whole.corrected.cross_entropy, 3)} with the correction.",
    ]
    return " ".join([*sentences, *_of_subsets(shift.subsets)])


def _of_subsets(subsets: Sequence[SubsetShift]) -> list[str]:
    if len(subsets) < 2:
        return []
    verdicts = [verdict(subset.accuracy_gain_interval) for subset in subsets]
    said = [
        f"Of {counted(len(subsets), 'subset')} it raises accuracy in {verdicts.count('better')} and lowers it in "
        f"{verdicts.count('worse')}."
    ]
    missed = [str(subset.subset) for subset in subsets if not subset.holds_truth]
    if missed:
        said.append(
            f"In {shortened(missed, most=5)} true frequencies lie outside of their intervals: images of a class look "
            "otherwise there than in the validation images behind the estimate, and a correction is not to be trusted."
        )
    return said


def _outside(found: SubsetShift) -> str:
    labels = [
        frequency.label
        for frequency in found.frequencies
        if frequency.true is not None and not frequency.interval[0] <= frequency.true <= frequency.interval[1]
    ]
    return f"the true frequencies of {shortened(labels, most=5)} lie outside of their intervals"
