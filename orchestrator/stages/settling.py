"""Decides whether what was trained again is kept, and says which model each subset has in the end, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.evaluation.answers import pack
from orchestrator.evaluation.paired_answers import Correct
from orchestrator.records import Regrouping, SubsetGain, SubsetTransfer
from orchestrator.search.regrouping import RegroupingPlan
from orchestrator.stages.subjects import Subject


def is_no_worse(gains: Mapping[str, SubsetGain], subjects: Sequence[Subject]) -> bool:
    """Tell whether the new models get no fewer validation images right than the old ones, over all these subsets."""
    counts = {subject.subset: len(subject.own["val"]) for subject in subjects}
    # Gains are of counts of images: what is less than one of them is rounding.
    return sum(counts[subset] * (gain.validation_gain or 0.0) for subset, gain in gains.items()) > -0.5


def settle(
    found: SubsetTransfer, regrouping: Regrouping, gain: SubsetGain | None, test_answers: Correct | None
) -> SubsetTransfer:
    """Say which model a subset has in the end, and why.

    `gain` is that of a new model, and `test_answers` what that gets right; None where there is none.
    """
    is_moved, is_left_out = (
        any(move.subset == found.subset for move in moves) for moves in (regrouping.moves, regrouping.left_out)
    )
    if gain is None or test_answers is None or not regrouping.is_kept:
        reason = regrouping.reason if is_moved or is_left_out else why_kept(found, "place")
        return found.model_copy(update={"reason": reason, "gain": gain})
    model = next(model for model in regrouping.models if found.subset in model.subsets)
    return found.model_copy(
        update={
            "action": "moved" if is_moved else "retrained",
            "taken": model.group,
            "reason": _why_new(is_moved=is_moved, is_left_out=is_left_out),
            "model": model.model,
            "weights_digest": model.weights_digest,
            "gain": gain,
            "test_answers": pack(test_answers),
        }
    )


def _why_new(*, is_moved: bool, is_left_out: bool) -> str:
    if is_moved:
        return "on validation images it fares better there"
    again = "its group was trained again"
    return f"{again}; its own move did not fit the search's budget" if is_left_out else again


def why_kept(found: SubsetTransfer, other: str) -> str:
    """Say why a subset has no other model, or place: by its name in words."""
    if found.validation is None:
        return "there are no validation images to decide by"
    return f"on validation images no other {other} is better beyond its interval"


def reason_of(plan: RegroupingPlan, *, is_kept: bool, failure: str) -> str:
    """Say what became of a plan; `failure` says why it could not be trained, and is empty where it could."""
    too_dear = f"{len(plan.left_out)} of {len(plan.moves) + len(plan.left_out)} moves did not fit the search's budget"
    if not plan.moves:
        return too_dear if plan.left_out else "no subset fares better elsewhere"
    said = f"{len(plan.moves)} subsets moved, {len(plan.groups)} groups trained again"
    if failure:
        said = f"undone: {failure}"
    elif not is_kept:
        said = "undone: on the validation images of the groups concerned the new models are worse"
    return f"{said}; {too_dear}" if plan.left_out else said
