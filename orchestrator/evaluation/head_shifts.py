"""Other class frequencies where a network has several heads: each is corrected by its own validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from orchestrator.evaluation.parts import PredictionParts, joined, whole
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.shift_judging import judge_shift
from orchestrator.records import LabelShift, ShiftMethod, SubsetShift, TaskClasses


def judge_task_shift(
    task: TaskClasses,
    predictions: PredictionParts,
    validation: PredictionParts,
    method: ShiftMethod | None,
    *,
    bootstrap_samples: int,
    seed: int,
) -> LabelShift | None:
    """Estimate the class frequencies of a further task on the images that are labelled for it, as of the first.

    None without a method, and where no test image or no validation image has a label for the task.
    """
    if method is None or not len(predictions) or not len(validation):
        return None
    images, known = whole(predictions), whole(validation)
    return judge_shift(images, task.classes, known, method, bootstrap_samples=bootstrap_samples, seed=seed)


def judge_head_shifts(
    heads: Sequence[TaskClasses],
    predictions: PredictionParts,
    validation: PredictionParts,
    classes: Sequence[str],
    method: ShiftMethod | None,
    *,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, SubsetShift]:
    """Estimate the class frequencies of each subset by its head's predictions, over the classes of that head alone.

    `predictions` and `validation` are over all `classes`, each image by the head of its subset. Left out are subsets
    without a head, without test images or without validation images.
    """
    if method is None:
        return {}
    tested, known = set(predictions.subset_names), set(validation.subset_names)
    found = {}
    for head in heads:
        if head.task in tested and head.task in known:
            images, own = (_of_head(head, parts, classes) for parts in (predictions, validation))
            shift = judge_shift(images, head.classes, own, method, bootstrap_samples=bootstrap_samples, seed=seed)
            found[head.task] = shift.whole.model_copy(update={"subset": head.task})
    return found


def _of_head(head: TaskClasses, parts: PredictionParts, classes: Sequence[str]) -> Predictions:
    """Give the predictions of a head on its subset's images over its own classes."""
    images = joined(list(parts.parts(head.task)))
    columns = np.array([classes.index(name) for name in head.classes], dtype=np.int64)
    places = np.full(len(classes), -1, dtype=np.int64)
    places[columns] = np.arange(len(columns))
    return replace(images, truth=places[images.indices], probabilities=images.probabilities[:, columns])
