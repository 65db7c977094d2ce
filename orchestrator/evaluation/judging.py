"""The test results of one group, made from its predictions and its baselines'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import DataError
from orchestrator.evaluation.answers import unpack
from orchestrator.evaluation.baseline_scores import accuracies, baseline_with
from orchestrator.evaluation.calibration import calibrate
from orchestrator.evaluation.gathering import gather
from orchestrator.evaluation.label_set_judging import judge_label_sets
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.shift_judging import judge_shift
from orchestrator.records import (
    BaselineResult,
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

EVALUATION_VERSION = 6


def judge(
    group: str,
    classes: list[str],
    predictions: PredictionParts,
    baselines: Sequence[BaselineResult],
    *,
    validation: PredictionParts,
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

    The temperature of its calibration is fitted on `validation` alone, or the threshold of each label where images have
    any number of them (`label_set_judging`). So is what a correction for other class frequencies stands on, where
    `shift_method` asks for one. A baseline is scored on the same images and compared with the model image by image; one
    that failed, and every one where there are no test images, has None for its numbers. Bootstraps draw kin together.
    What is held of the predictions does not grow with their number.

    Raises DataError when the probabilities are not over `classes`, or a baseline was tested on another number of
    images.
    """
    if predictions.num_classes != len(classes):
        raise DataError(
            f"the probabilities of group {group} must be over its {len(classes)} classes",
            value=predictions.num_classes,
        )
    tested = _tested(baselines, len(predictions))
    sections: dict[str, Any]
    if predictions.is_multi_label:
        sections = judge_label_sets(
            predictions.with_baselines(tested),
            classes,
            baselines,
            validation,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
        )
    else:
        gathered = gather(predictions.with_baselines(tested), list(tested))
        sections = {
            **gathered.scores(bootstrap_samples, seed).model_dump(),
            "subsets": _score_subsets(predictions, bootstrap_samples, seed),
            "baselines": [baseline_with(run, accuracies(gathered, run, bootstrap_samples, seed)) for run in baselines],
            "calibration": calibrate(predictions.scored, validation=validation.scored),
        }
    return Evaluation(
        fingerprint=fingerprint,
        group=group,
        classes=classes,
        **sections,
        num_units=predictions.num_units,
        separation=separation,
        outliers=outliers,
        episodes=episodes,
        label_shift=_judge_shift(predictions, classes, validation, shift_method, bootstrap_samples, seed),
        predictions=predictions_path,
        seconds=seconds,
    )


def judge_task(
    task: TaskClasses, predictions: PredictionParts, *, bootstrap_samples: int, seed: int, predictions_path: str
) -> TaskScores:
    """Score a further task over its classes, on the images that are labelled for it; bootstraps draw kin together."""
    return TaskScores(
        task=task.task,
        classes=task.classes,
        predictions=predictions_path,
        **gather(predictions).scores(bootstrap_samples, seed).model_dump(),
    )


def _judge_shift(
    predictions: PredictionParts,
    classes: list[str],
    validation: PredictionParts,
    method: ShiftMethod | None,
    bootstrap_samples: int,
    seed: int,
) -> LabelShift | None:
    if method is None or not len(predictions):
        return None
    return judge_shift(predictions, classes, validation, method, bootstrap_samples=bootstrap_samples, seed=seed)


def _score_subsets(predictions: PredictionParts, bootstrap_samples: int, seed: int) -> list[SubsetScores]:
    return [
        SubsetScores(subset=name, **gather(predictions, subset=name).scores(bootstrap_samples, seed).model_dump())
        for name in predictions.subset_names
    ]


def _tested(baselines: Sequence[BaselineResult], num_images: int) -> dict[str, NDArray[np.bool_]]:
    """Give what each baseline that was tested got right [n]. Raises DataError for another number of images."""
    for result in baselines:
        if result.correct is not None and result.correct.count != num_images:
            raise DataError(
                f"baseline {result.name} must be tested on the {num_images} images of its group",
                value=result.correct.count,
            )
    return {result.name: unpack(result.correct) for result in baselines if result.correct is not None}
