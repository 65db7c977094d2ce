"""Says in words what models of single subsets gain over their group's."""

from __future__ import annotations

from orchestrator.records import SubsetEvaluation
from orchestrator.reporting.findings import tally
from orchestrator.reporting.wording import counted, percent, points, points_interval


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
