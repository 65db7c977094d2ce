"""Says in words, by rule from the numbers, what training together with a source came to."""

from __future__ import annotations

from orchestrator.records import Evaluation, ModelCard, OutlierScores, SourceUse
from orchestrator.reporting.findings import verdict
from orchestrator.reporting.wording import (
    counted,
    interval,
    number,
    percent,
    points,
    points_interval,
    shortened,
)

_PENALTIES = {"coral": "CORAL", "mmd": "MMD"}


def joint_findings(model: ModelCard, evaluation: Evaluation | None) -> list[str]:
    """Say what a model was trained together with, what that gained, and how well outliers are told; else nothing."""
    if model.source is None:
        return []
    gained = "" if evaluation is None else _gain(evaluation)
    told = "" if evaluation is None or evaluation.outliers is None else _told(evaluation.outliers)
    return [said for said in (_use(model.source), gained, told) if said]


def _use(source: SourceUse) -> str:
    if source.batch_share is None:
        counts = f"prototypes are means over target and source, weighed by 1 and {number(source.weight)}"
    else:
        counts = f"{percent(source.batch_share)} of every batch, their loss by {number(source.weight)}"
    penalty = ""
    if source.penalty != "none":
        penalty = f", {_PENALTIES[source.penalty]} of the features by {number(source.penalty_weight)}"
    return (
        f"Trained together with {counted(source.num_images, 'image')} of {source.uri}: "
        f"{counts}{penalty}. {_labels(source)}{_searched(source)}"
    )


def _labels(source: SourceUse) -> str:
    if source.as_negatives == "reject":
        return "All of them are one class more, which rejects."
    if source.as_negatives == "outlier_exposure":
        return "They are outliers, on which all classes are to be equally likely."
    shared = shortened(source.shared_classes, most=5) or "none"
    rest = f"; {counted(source.num_other_classes, 'other class')} the model leaves out"
    return f"Shared classes: {shared}{rest if source.num_other_classes else ''}."


def _searched(source: SourceUse) -> str:
    if source.num_searched is None:
        return ""
    return f" All were streamed; the search had a sample, the {source.num_searched:,} that are cached."


def _gain(evaluation: Evaluation) -> str:
    found = next((baseline for baseline in evaluation.baselines if baseline.name == "target_only"), None)
    if found is None or found.accuracy_gain is None:
        return ""
    judgement = {
        "better": "The source helps",
        "worse": "The source hurts",
        "unclear": "The source makes no clear difference",
        "unknown": "The source could not be judged",
    }[verdict(found.accuracy_gain_interval)]
    return (
        f"{judgement}: {points(found.accuracy_gain)} points {points_interval(found.accuracy_gain_interval)} of test "
        "accuracy over the same recipe on the target alone."
    )


def _told(outliers: OutlierScores) -> str:
    score = {
        "reject": "the probability of the class that rejects",
        "outlier_exposure": "one minus the largest probability",
    }.get(outliers.negatives, "")
    return (
        f"By {score}, {counted(outliers.num_source, 'source image')} that were not trained on are told from "
        f"{counted(outliers.num_target, 'test image')} with an area under the ROC curve of {number(outliers.auc, 3)} "
        f"{interval(outliers.auc_interval, 3)}. Test scores are over the classes alone."
    )
