"""Says in words what models of single subsets gain over their group's, and what they were trained together with."""

from __future__ import annotations

from orchestrator.records import Evaluation, ModelCard, SubsetEvaluation
from orchestrator.reporting.findings import tally
from orchestrator.reporting.wording import counted, number, percent, points, points_interval


def subset_models_finding(evaluation: SubsetEvaluation) -> str:
    """Sum up the subsets' own models against the group's, subset by subset and over all test images."""
    own = [found for found in evaluation.subsets if found.model is not None]
    total = counted(len(evaluation.subsets), "subset")
    if not own:
        return f"None of {total} has a model of its own: the group's serves all."
    told = tally([found.accuracy_gain_interval for found in own], better="is better than the group's")
    have = "has a model of its own" if len(own) == 1 else "have models of their own"
    sentence = f"{len(own)} of {total} {have}: {told}."
    if evaluation.accuracy is None:
        return sentence
    return (
        f"{sentence} Over all test images, each by what serves its subset, accuracy is {percent(evaluation.accuracy)}, "
        f"{points(evaluation.accuracy_gain)} points from the group's model alone "
        f"{points_interval(evaluation.accuracy_gain_interval)}."
    )


def subset_source_finding(model: ModelCard, of_group: Evaluation | None, evaluation: SubsetEvaluation) -> str:
    """Say that the subsets' own models have the source beside them, and how well they tell outliers; else nothing."""
    own = [found for found in evaluation.subsets if found.model is not None]
    if model.source is None or not own:
        return ""
    subject = "It was" if len(own) == 1 else "Each of them was"
    sentence = f"{subject} trained together with the source, as the group's model was."
    areas = [found.outliers.auc for found in own if found.outliers is not None]
    if not areas:
        return sentence
    least, most = number(min(areas), 3), number(max(areas), 3)
    span = least if least == most else f"{least} to {most}"
    group = ""
    if of_group is not None and of_group.outliers is not None:
        group = f"; for the group's model and its test images it is {number(of_group.outliers.auc, 3)}"
    return (
        f"{sentence} Source images that were not trained on are told from a subset's own test images with an area "
        f"under the ROC curve of {span}{group}."
    )
