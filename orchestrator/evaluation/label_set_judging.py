"""The part of a group's test results that differs where images have any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.evaluation.answers import unpack, unpack_matrix
from orchestrator.evaluation.intervals import bootstrap_interval, paired_gain
from orchestrator.evaluation.metrics import Measures
from orchestrator.evaluation.multi_label import fit_thresholds, precision_gain, score_label_sets
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import Baseline, BaselineResult, Scores, SubsetScores

_ACCURACIES = ("accuracy", "accuracy_interval", "accuracy_gain", "accuracy_gain_interval")
_PRECISIONS = ("mean_average_precision", "mean_average_precision_gain", "mean_average_precision_gain_interval")


def judge_label_sets(
    predictions: Predictions,
    labels: list[str],
    baselines: Sequence[BaselineResult],
    validation: Predictions,
    *,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Give the fields of an `Evaluation` that differ: scores, subsets, baselines, and no calibration.

    Average precision is of all ranks: all predictions are in memory. Each label's threshold is fitted on `validation`.
    Baselines were tested on the same images, and are compared with the model image by image.
    """
    thresholds = fit_thresholds(validation.probabilities, validation.label_sets)
    return {
        **_score(predictions, labels, thresholds, bootstrap_samples, seed).model_dump(),
        "subsets": [
            SubsetScores(
                subset=name,
                **_score(predictions.for_subset(name), labels, thresholds, bootstrap_samples, seed).model_dump(),
            )
            for name in predictions.subset_names
        ],
        "baselines": [_compare(predictions, result, bootstrap_samples, seed) for result in baselines],
        "calibration": None,
    }


def _score(predictions: Predictions, labels: list[str], thresholds: Measures, samples: int, seed: int) -> Scores:
    return score_label_sets(
        predictions.probabilities,
        predictions.label_sets,
        labels,
        thresholds,
        bootstrap_samples=samples,
        seed=seed,
        units=predictions.units,
    )


def _compare(predictions: Predictions, result: BaselineResult, samples: int, seed: int) -> Baseline:
    compared: dict[str, Any] = {}
    if result.correct is not None and len(predictions):
        units, correct = predictions.units, unpack(result.correct)
        gain, gain_interval = paired_gain(predictions.correct, correct, samples, seed, units)
        compared = {
            "accuracy": float(correct.mean()),
            "accuracy_interval": bootstrap_interval(correct, samples, seed, units),
            "accuracy_gain": gain,
            "accuracy_gain_interval": gain_interval,
            **_compare_precisions(predictions, result, samples, seed),
        }
    return Baseline(
        name=result.name,
        hyperparameters=result.hyperparameters,
        seconds=result.seconds,
        error=result.error,
        resources=result.resources,
        **{**dict.fromkeys(_ACCURACIES), **compared},
    )


def _compare_precisions(predictions: Predictions, result: BaselineResult, samples: int, seed: int) -> dict[str, Any]:
    if result.probabilities is None:
        return {}
    found = precision_gain(
        predictions.probabilities,
        unpack_matrix(result.probabilities),
        predictions.label_sets,
        bootstrap_samples=samples,
        seed=seed,
        units=predictions.units,
    )
    return {} if found is None else dict(zip(_PRECISIONS, found, strict=True))
