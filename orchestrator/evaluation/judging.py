"""The test results of one group, made from its predictions and its baselines'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.errors import DataError
from orchestrator.evaluation.calibration import calibrate
from orchestrator.evaluation.intervals import Units, bootstrap_interval, paired_gain
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import score
from orchestrator.records import Baseline, BaselineResult, Evaluation, FeatureSeparation, SubsetScores

EVALUATION_VERSION = 2


def judge(
    group: str,
    classes: list[str],
    predictions: Predictions,
    baselines: Sequence[BaselineResult],
    *,
    validation: Predictions,
    separation: FeatureSeparation | None,
    bootstrap_samples: int,
    seed: int,
    predictions_path: str,
    seconds: float,
    fingerprint: str,
) -> Evaluation:
    """Score a group's model on all its test images and on each subset's, over the group's classes.

    The temperature of its calibration is fitted on `validation` alone. A baseline is scored on the same images and
    compared with the model image by image; one that failed, and every one where there are no test images, has None for
    its numbers. Bootstraps draw kin together. Raises DataError when the probabilities are not over `classes`, or a
    baseline was tested on another number of images.
    """
    if predictions.probabilities.shape[1] != len(classes):
        raise DataError(
            f"the probabilities of group {group} must be over its {len(classes)} classes",
            value=predictions.probabilities.shape[1],
        )
    units = predictions.units
    return Evaluation(
        fingerprint=fingerprint,
        group=group,
        classes=classes,
        **_score(predictions, bootstrap_samples, seed),
        subsets=_score_subsets(predictions, bootstrap_samples, seed),
        baselines=[_compare(predictions, units, run, bootstrap_samples, seed) for run in baselines],
        num_units=len(predictions) if units is None else int(units.max()) + 1,
        calibration=calibrate(
            predictions.probabilities,
            predictions.truth,
            validation=(validation.probabilities, validation.truth),
        ),
        separation=separation,
        predictions=predictions_path,
        seconds=seconds,
    )


def _score_subsets(predictions: Predictions, bootstrap_samples: int, seed: int) -> list[SubsetScores]:
    return [
        SubsetScores(subset=name, **_score(predictions.for_subset(name), bootstrap_samples, seed))
        for name in sorted(set(predictions.subsets))
    ]


def _score(predictions: Predictions, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Give the fields of `Scores`."""
    scores = score(
        predictions.probabilities,
        predictions.truth,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        units=predictions.units,
    )
    return scores.model_dump()


def _compare(
    predictions: Predictions, units: Units | None, result: BaselineResult, bootstrap_samples: int, seed: int
) -> Baseline:
    if result.correct is not None and len(result.correct) != len(predictions):
        raise DataError(
            f"baseline {result.name} must be tested on the {len(predictions)} images of its group",
            value=len(result.correct),
        )
    if result.correct is None or not len(predictions):
        accuracy = accuracy_interval = gain = gain_interval = None
    else:
        correct = np.array(result.correct, dtype=bool)
        accuracy = float(correct.mean())
        accuracy_interval = bootstrap_interval(correct, bootstrap_samples, seed, units)
        gain, gain_interval = paired_gain(predictions.correct, correct, bootstrap_samples, seed, units)
    return Baseline(
        name=result.name,
        hyperparameters=result.hyperparameters,
        accuracy=accuracy,
        accuracy_interval=accuracy_interval,
        seconds=result.seconds,
        accuracy_gain=gain,
        accuracy_gain_interval=gain_interval,
        error=result.error,
        resources=result.resources,
    )
