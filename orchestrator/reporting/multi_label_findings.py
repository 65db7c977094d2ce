"""What the scores of images with any number of labels say, in words."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.records import Baseline, Evaluation
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
        stated += _say_error(found.mean_average_precision_error or 0.0, evaluation.baselines)
    return (
        f"{stated} An image counts as right, in accuracies and gains, when all its labels are (subset accuracy, at a "
        "probability of 0.5); the validation accuracy of trials and epochs is the mean average precision. The "
        "thresholds of labels were fitted on validation images for the best F1."
    )


def _say_error(error: float, baselines: Sequence[Baseline]) -> str:
    """Bound what counting scores in bins costs; nothing where average precisions are of ranks."""
    if not error:
        return ""
    of_baselines = [other for baseline in baselines if (other := baseline.mean_average_precision_error) is not None]
    gains = f", gains in it by at most {error + max(of_baselines):.1e}" if of_baselines else ""
    return f" Scores were counted in bins: it is off by at most {error:.1e}{gains}."
