"""The part of a group's test results that differs where images have any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.evaluation.answers import unpack_matrix
from orchestrator.evaluation.baseline_scores import accuracies, baseline_with
from orchestrator.evaluation.label_ranks import LabelRanks, thresholds_of
from orchestrator.evaluation.label_set_gathering import LabelSetGathering
from orchestrator.evaluation.multi_label import precision_gain
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.records import BaselineResult, PackedMatrix, SubsetScores

_PRECISIONS = (
    "mean_average_precision",
    "mean_average_precision_gain",
    "mean_average_precision_gain_interval",
    "mean_average_precision_error",
)


def judge_label_sets(
    predictions: PredictionParts,
    labels: list[str],
    baselines: Sequence[BaselineResult],
    validation: PredictionParts,
    *,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Give the fields of an `Evaluation` that differ: scores, subsets, baselines, and no calibration.

    Each label's threshold is fitted on `validation`. Baselines were tested on the same images, which `predictions` say
    of those that did not fail, and are compared with the model image by image.
    """
    thresholds = thresholds_of(validation)
    gathered = LabelSetGathering(labels, thresholds, tuple(predictions.baselines)).add_all(predictions)
    scores = gathered.scores(bootstrap_samples, seed)
    subsets = []
    for name in predictions.subset_names:
        of_subset = LabelSetGathering(labels, thresholds).add_all(predictions, name)
        subsets.append(SubsetScores(subset=name, **of_subset.scores(bootstrap_samples, seed).model_dump()))
    compared = []
    for result in baselines:
        measures = accuracies(gathered, result, bootstrap_samples, seed)
        if measures and scores.multi_label is not None:
            mine = scores.multi_label.mean_average_precision
            measures |= _compare_precisions(gathered, mine, predictions, result, bootstrap_samples, seed)
        compared.append(baseline_with(result, measures))
    return {**scores.model_dump(), "subsets": subsets, "baselines": compared, "calibration": None}


def _compare_precisions(
    gathered: LabelSetGathering,
    mine: float | None,
    predictions: PredictionParts,
    result: BaselineResult,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Compare mean average precisions: with an interval where all images are held and the result has probabilities."""
    held = gathered.held()
    if held is not None and result.probabilities is not None:
        found = precision_gain(
            held.probabilities,
            unpack_matrix(result.probabilities),
            held.label_sets,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            units=held.units,
        )
        return {} if found is None else dict(zip(_PRECISIONS, (*found, 0.0), strict=True))
    if result.probabilities is None:
        theirs, error = result.mean_average_precision, result.mean_average_precision_error
    else:
        theirs, error = _mean_average_precision(result.probabilities, predictions)
    if theirs is None or mine is None:
        return {}
    return dict(zip(_PRECISIONS, (theirs, mine - theirs, None, error), strict=True))


def _mean_average_precision(packed: PackedMatrix, predictions: PredictionParts) -> tuple[float | None, float | None]:
    """Give that of a baseline's probabilities [n, K], in the order of the predictions, and a bound of its error."""
    ranks, probabilities, seen = LabelRanks(predictions.num_classes), unpack_matrix(packed), 0
    for part in predictions.parts():
        ranks.add(probabilities[seen : seen + len(part)], part.label_sets)
        seen += len(part)
    return ranks.mean_average_precision()
