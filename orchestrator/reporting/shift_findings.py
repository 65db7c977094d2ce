"""Says in words what estimating class frequencies without labels found, and what correcting for them did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.records import Evaluation, LabelShift, SubsetShift
from orchestrator.reporting.findings import verdict
from orchestrator.reporting.wording import counted, number, percent, points, points_interval, shortened

_TITLE = "Other class frequencies"
SHIFT_METHOD_TITLES = {
    "confusion": "which classes were taken for each other on validation (Lipton, Wang and Smola, 2018)",
    "em": "expectation maximisation over calibrated probabilities (Saerens, Latinne and Decaestecker, 2002)",
}


@dataclass(frozen=True, kw_only=True)
class ShownShift:
    """Hold what the report shows of one correction; a row without a subset is of the whole group.

    `shared_validation` counts the validation images of the group, which subsets without enough of their own share; None
    where each has its own.
    """

    title: str
    finding: str
    rows: list[SubsetShift]
    shared_validation: int | None


def shown_shifts(evaluation: Evaluation) -> list[ShownShift]:
    """Give the corrections of a group's model: of its first task, of each further one, and of its subsets' heads."""
    of_tasks = {_TITLE: evaluation.label_shift}
    of_tasks |= {f"{_TITLE}: {scores.task}": scores.label_shift for scores in evaluation.tasks}
    shown = [
        ShownShift(
            title=title,
            finding=shift_finding(shift),
            rows=[shift.whole, *shift.subsets],
            shared_validation=shift.whole.num_validation,
        )
        for title, shift in of_tasks.items()
        if shift is not None
    ]
    heads = [found.label_shift for found in evaluation.heads if found.label_shift is not None]
    if heads:
        said = "Without their labels, the class frequencies of each subset are estimated by its head alone, over the "
        said += "head's classes and from the subset's validation images, and probabilities are corrected for them."
        said = " ".join([said, *_of_subsets(heads)])
        shown.append(ShownShift(title=_TITLE, finding=said, rows=heads, shared_validation=None))
    return shown


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
    # Of a single subset all is said.
    return " ".join([*sentences, *(_of_subsets(shift.subsets) if len(shift.subsets) > 1 else [])])


def _of_subsets(subsets: Sequence[SubsetShift]) -> list[str]:
    if not subsets:
        return []
    verdicts = [verdict(subset.accuracy_gain_interval) for subset in subsets]
    said = [
        f"Of {counted(len(subsets), 'subset')} correcting raises accuracy in {verdicts.count('better')} and lowers "
        f"it in {verdicts.count('worse')}."
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
