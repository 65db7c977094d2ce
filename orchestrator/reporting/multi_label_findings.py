"""What the scores of images with any number of labels say, in words."""

from __future__ import annotations

from orchestrator.records import Evaluation
from orchestrator.reporting.wording import interval, number


def multi_label_finding(evaluation: Evaluation) -> str:
    """State the mean average precision, and what accuracy means here; nothing where images have one label each."""
    found = evaluation.multi_label
    if found is None:
        return ""
    stated = "No test image has a label."
    if found.mean_average_precision is not None:
        precision, bounds = number(found.mean_average_precision, 3), interval(found.mean_average_precision_interval, 3)
        stated = f"The mean average precision over labels is {' '.join(filter(None, (precision, bounds)))}."
    return (
        f"{stated} An image counts as right, in accuracies and gains, when all its labels are (subset accuracy, at a "
        "probability of 0.5); the validation accuracy of trials and epochs is the mean average precision. The "
        "thresholds of labels were fitted on validation images for the best F1."
    )
