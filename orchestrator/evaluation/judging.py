"""The test results of one group, made from its predictions and its baselines'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.errors import DataError
from orchestrator.evaluation.calibration import calibrate
from orchestrator.evaluation.intervals import Units, bootstrap_interval, paired_gain
from orchestrator.evaluation.metrics import Measures
from orchestrator.evaluation.multi_label import fit_thresholds, precision_gain, score_label_sets
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import score
from orchestrator.evaluation.shift_judging import judge_shift
from orchestrator.records import (
    Baseline,
    BaselineResult,
    Calibration,
    EpisodeScores,
    Evaluation,
    FeatureSeparation,
    LabelShift,
    OutlierScores,
    ShiftMethod,
    SubsetScores,
    TaskClasses,
    TaskScores,
)

EVALUATION_VERSION = 3


def judge(
    group: str,
    classes: list[str],
    predictions: Predictions,
    baselines: Sequence[BaselineResult],
    *,
    validation: Predictions,
    separation: FeatureSeparation | None,
    episodes: EpisodeScores | None = None,
    shift_method: ShiftMethod | None = None,
    bootstrap_samples: int,
    seed: int,
    predictions_path: str,
    seconds: float,
    fingerprint: str,
    outliers: OutlierScores | None = None,
) -> Evaluation:
    """Score a group's model on all its test images and on each subset's, over the group's classes.

    The temperature of its calibration is fitted on `validation` alone; where images have any number of labels there is
    none, but a threshold for each label is. So is what a correction for other class
    frequencies stands on, where `shift_method` asks for one. A baseline is scored on the same images and
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
    thresholds = _thresholds(predictions, classes, validation)
    return Evaluation(
        fingerprint=fingerprint,
        group=group,
        classes=classes,
        **_score(predictions, bootstrap_samples, seed, thresholds),
        subsets=_score_subsets(predictions, bootstrap_samples, seed, thresholds),
        baselines=[_compare(predictions, units, run, bootstrap_samples, seed) for run in baselines],
        num_units=len(predictions) if units is None else int(units.max()) + 1,
        calibration=_calibrate(predictions, validation),
        separation=separation,
        outliers=outliers,
        episodes=episodes,
        label_shift=_judge_shift(predictions, classes, validation, shift_method, bootstrap_samples, seed),
        predictions=predictions_path,
        seconds=seconds,
    )


def judge_task(
    task: TaskClasses, predictions: Predictions, *, bootstrap_samples: int, seed: int, predictions_path: str
) -> TaskScores:
    """Score a further task over its classes, on the images that are labelled for it; bootstraps draw kin together."""
    return TaskScores(
        task=task.task,
        classes=task.classes,
        predictions=predictions_path,
        **_score(predictions, bootstrap_samples, seed),
    )


def _judge_shift(
    predictions: Predictions,
    classes: list[str],
    validation: Predictions,
    method: ShiftMethod | None,
    bootstrap_samples: int,
    seed: int,
) -> LabelShift | None:
    if method is None or not len(predictions):
        return None
    return judge_shift(predictions, classes, validation, method, bootstrap_samples=bootstrap_samples, seed=seed)


@dataclass(frozen=True, kw_only=True)
class _Thresholds:
    """Hold the labels of images that may have any number of them, and the threshold of each [K]."""

    labels: list[str]
    values: Measures


def _thresholds(predictions: Predictions, classes: list[str], validation: Predictions) -> _Thresholds | None:
    if not predictions.is_multi_label:
        return None
    return _Thresholds(labels=classes, values=fit_thresholds(validation.probabilities, validation.label_sets))


def _calibrate(predictions: Predictions, validation: Predictions) -> Calibration | None:
    if predictions.is_multi_label:
        return None
    return calibrate(
        predictions.probabilities, predictions.indices, validation=(validation.probabilities, validation.indices)
    )


def _score_subsets(
    predictions: Predictions, bootstrap_samples: int, seed: int, thresholds: _Thresholds | None
) -> list[SubsetScores]:
    return [
        SubsetScores(subset=name, **_score(predictions.for_subset(name), bootstrap_samples, seed, thresholds))
        for name in sorted(set(predictions.subsets))
    ]


def _score(
    predictions: Predictions, bootstrap_samples: int, seed: int, thresholds: _Thresholds | None = None
) -> dict[str, Any]:
    """Give the fields of `Scores`; with thresholds, of images that may have any number of labels."""
    if thresholds is not None:
        return score_label_sets(
            predictions.probabilities,
            predictions.label_sets,
            thresholds.labels,
            thresholds.values,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            units=predictions.units,
        ).model_dump()
    scores = score(
        predictions.probabilities,
        predictions.indices,
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
        **_compare_precisions(predictions, units, result, bootstrap_samples, seed),
    )


def _compare_precisions(
    predictions: Predictions, units: Units | None, result: BaselineResult, bootstrap_samples: int, seed: int
) -> dict[str, Any]:
    """Compare mean average precisions where images have any number of labels."""
    if not predictions.is_multi_label or result.probabilities is None:
        return {}
    found = precision_gain(
        predictions.probabilities,
        np.array(result.probabilities, dtype=np.float32).reshape(predictions.probabilities.shape),
        predictions.label_sets,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        units=units,
    )
    names = ("mean_average_precision", "mean_average_precision_gain", "mean_average_precision_gain_interval")
    return {} if found is None else dict(zip(names, found, strict=True))
