"""Says in words what a head for each subset gains over one head for all."""

from __future__ import annotations

from orchestrator.evaluation.heads import ONE_HEAD
from orchestrator.records import Evaluation
from orchestrator.reporting.findings import tally
from orchestrator.reporting.wording import counted, enumerated, points, points_interval


def heads_finding(evaluation: Evaluation) -> str:
    """Sum up the subsets' heads against one head for all, subset by subset and over all test images; else nothing."""
    if not evaluation.heads:
        return ""
    own = [found for found in evaluation.heads if found.classes is not None]
    sentence = f"One network with a head for each subset: {counted(len(own), 'head')} tested."
    without = [found.subset for found in evaluation.heads if found.classes is None]
    if without:
        sentence += f" Without a head, having no training images: {enumerated(without)}."
    compared = next((baseline for baseline in evaluation.baselines if baseline.name == ONE_HEAD), None)
    if compared is None:
        return sentence
    if compared.accuracy_gain is None:
        return f"{sentence} One head for all could not be compared with them."
    told = tally([found.accuracy_gain_interval for found in own])
    return (
        f"{sentence} Beside one head for all on the same data, {told}; over all test images the gain is "
        f"{points(compared.accuracy_gain)} points {points_interval(compared.accuracy_gain_interval)}."
    )
